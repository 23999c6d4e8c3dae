"""What a run may start from instead of Gleaner's own weights: `hf:owner/name`, `hf:/a/folder`, `timm:name`.

No library is loaded here, so that a wrong name or a missing extra is said in a moment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from gleaner.learn.errors import RunProblem

INSTALL = "Run: pip install 'gleaner[pretrained]'."
INSTALL_TIMM = "Run: pip install 'gleaner[pretrained]' timm, with a torchvision that fits the installed torch."
EXAMPLES = "hf:facebook/convnextv2-atto-1k-224, hf:/path/to/checkpoint or timm:mobilenetv3_small_100"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w./-]{1,100})?")
_MODEL = re.compile(r"[a-z0-9][a-z0-9_]{0,95}(\.[A-Za-z0-9_]{1,95})?")
_NEEDED = {"hf": ("transformers", "onnxscript"), "timm": ("timm", "onnxscript")}


class Library(StrEnum):
    HUGGING_FACE = "hf"
    TIMM = "timm"


@dataclass(frozen=True)
class BackboneName:
    library: Library
    what: str
    """A repository of the Hugging Face Hub, perhaps with @revision; an absolute folder; or a model's name in timm."""

    @property
    def folder(self) -> Path | None:
        """Where the checkpoint lies, if it need not be fetched."""
        return Path(self.what) if self.what.startswith("/") else None

    @property
    def repository(self) -> str:
        return self.what.partition("@")[0]

    @property
    def revision(self) -> str | None:
        return self.what.partition("@")[2] or None

    def __str__(self) -> str:
        return f"{self.library}:{self.what}"


def parse_backbone(text: str) -> BackboneName:
    """Raises RunProblem for what names none. Folders become absolute."""
    library, _, what = text.strip().partition(":")
    if library not in _NEEDED or not what:
        raise RunProblem(f"{text!r} names no backbone.", f"Write one as {EXAMPLES}.")
    if library == Library.HUGGING_FACE and what.startswith(("/", "./", "../", "~")):
        return BackboneName(Library(library), str(Path(what).expanduser().absolute()))
    pattern, form = (_MODEL, "a model's name") if library == Library.TIMM else (_REPOSITORY, "owner/name or a folder")
    if not pattern.fullmatch(what):
        raise RunProblem(f"{text!r} names no backbone: {form} must follow {library}:.", f"Write one as {EXAMPLES}.")
    return BackboneName(Library(library), what)


def missing_libraries(library: Library) -> list[str]:
    return [one for one in _NEEDED[library] if find_spec(one) is None]


def check_backbone(text: str, detects: bool) -> BackboneName | None:
    """What can be known before anything is loaded; None for Gleaner's own. Raises RunProblem."""
    if not text:
        return None
    name = parse_backbone(text)
    if detects:
        raise RunProblem(
            f"A detector cannot start from {name}: its boxes are read off a map of 8 × 8 pixels a cell that only "
            "Gleaner's own backbone has.",
            "Leave the backbone out, or train a classifier.",
        )
    how = INSTALL_TIMM if name.library is Library.TIMM else INSTALL
    if missing := missing_libraries(name.library):
        raise RunProblem(f"Starting from {name} needs {' and '.join(missing)}, not installed here.", how)
    if name.folder is not None and not (name.folder / "config.json").is_file():
        raise RunProblem(
            f"{name.folder} holds no checkpoint: there is no config.json in it.",
            "Name a folder that save_pretrained wrote, or that was downloaded whole from the Hugging Face Hub.",
        )
    return name
