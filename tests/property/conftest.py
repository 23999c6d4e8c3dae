from __future__ import annotations

from hypothesis import settings

# How long an example takes is the machine's business: a loaded one must not fail a test.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
