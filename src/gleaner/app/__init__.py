from pathlib import Path

DEFAULT_DATA_DIR = Path("~/.gleaner/app")
"""Where an app keeps its data unless told otherwise."""
