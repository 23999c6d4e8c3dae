"""Remotes: other machines whose resources this one uses as if they were its own."""
