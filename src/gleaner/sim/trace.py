"""Where the rover stood for each picture, written for tests when the environment variable GLEANER_SIM_TRACE names a file.

One JSON line per rendered picture: `{"captured_at_ns", "x_mm", "y_mm", "heading_deg"}`. With `sim.truth` a test learns what was in
view. Nothing in the product reads it, and without the variable nothing is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from gleaner.sim.geometry import Pose

VARIABLE = "GLEANER_SIM_TRACE"


def tracer() -> Callable[[int, Pose], None]:
    """What a camera calls with the time and place of each picture."""
    path = os.environ.get(VARIABLE)
    if not path:
        return lambda _captured_at_ns, _pose: None

    def write(captured_at_ns: int, pose: Pose) -> None:
        line = json.dumps(
            {"captured_at_ns": captured_at_ns, "x_mm": pose.x_mm, "y_mm": pose.y_mm, "heading_deg": pose.heading_deg}
        )
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    return write
