"""Checkpoints of the Hugging Face Hub, or of a folder, by way of `transformers`.

Only files that hold no program are read: config.json, the card and safetensors. Code that comes with a checkpoint never runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from gleaner.learn.backbone_name import BackboneName
from gleaner.learn.backbones.card import licenses_of, require_permissive
from gleaner.learn.backbones.trunk import Wants
from gleaner.learn.errors import RunProblem

_FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Body(nn.Module):
    """A vision model of transformers as a function of pictures."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.model(pixel_values=x, return_dict=True).last_hidden_state)


def load(name: BackboneName, accepted: bool, log: Callable[[str], None]) -> tuple[nn.Module, Wants, dict[str, str]]:
    """The network with its weights, how it sees, and what the report says of it. Raises RunProblem."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    folder, about = name.folder, {"name": str(name)}
    if folder is not None:
        card = folder / "README.md"
        about["license"] = require_permissive(name, licenses_of(_text(card)), accepted)
    else:
        folder, about["license"] = _fetched(name, accepted, log)
        about["revision"] = folder.name  # snapshots lie under the commit they are of
    return *_opened(name, folder), about


def card_of(name: BackboneName, repository: str, revision: str | None = None) -> str:
    """The card of a repository; "" where it has none. Raises RunProblem when it cannot be asked."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return _text(Path(hf_hub_download(repository, "README.md", revision=revision)))
    except LocalEntryNotFoundError as error:  # is an EntryNotFoundError too, but says that nobody could be asked
        raise unreachable(name, error) from error
    except EntryNotFoundError:
        return ""
    except Exception as error:
        raise unreachable(name, error) from error


def unreachable(name: BackboneName, error: Exception) -> RunProblem:
    """What to say when the hub did not give something."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, GatedRepoError):
        return RunProblem(
            f"{name} is given only to those who asked its owner for it.",
            "Accept its terms on its page, then set HF_TOKEN, or download it and name its folder: hf:/path/to/it.",
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        return RunProblem(
            f"The Hugging Face Hub has no {name}.", "Check the spelling: it is owner/name, or owner/name@revision."
        )
    return RunProblem(
        f"{name} could not be fetched from the Hugging Face Hub: {first}",
        "Check the network, or download the checkpoint elsewhere, copy its folder here and name that: hf:/path/to/it.",
    )


def _fetched(name: BackboneName, accepted: bool, log: Callable[[str], None]) -> tuple[Path, str]:
    """The card first: weights that may not be used are not even downloaded."""
    from huggingface_hub import snapshot_download

    licence = require_permissive(name, licenses_of(card_of(name, name.repository, name.revision)), accepted)
    log(f"Fetching {name} ({licence}); it is kept for later runs")
    try:
        found = snapshot_download(name.repository, revision=name.revision, allow_patterns=_FILES)
    except Exception as error:
        raise unreachable(name, error) from error
    return Path(found), licence


def _opened(name: BackboneName, folder: Path) -> tuple[nn.Module, Wants]:
    from transformers import AutoConfig, AutoModel

    if not any(folder.glob("*.safetensors")):
        raise RunProblem(
            f"{name} has no weights in safetensors, the only format that cannot carry a program.",
            "Choose a checkpoint that has a .safetensors file, or convert this one with save_pretrained.",
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model = AutoModel.from_pretrained(folder, config=config, trust_remote_code=False, use_safetensors=True)
    except Exception as error:
        raise RunProblem(
            f"{name} cannot be opened: {type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}",
            "Choose a picture model that transformers itself knows, such as a ResNet, ConvNeXt, DINOv2, MobileNet or ViT.",
        ) from error
    if getattr(model, "main_input_name", "") != "pixel_values":
        raise RunProblem(
            f"{name} is a {getattr(config, 'model_type', 'model')} and looks at no pictures.",
            "Choose a picture model, such as a ResNet, ConvNeXt, DINOv2, MobileNet or ViT.",
        )
    return Body(model), _wants(config, folder)


def _wants(config: Any, folder: Path) -> Wants:
    path = folder / "preprocessor_config.json"
    try:
        prepared = json.loads(_text(path) or "{}")
    except ValueError:
        prepared = {}
    mean, std = (
        tuple(map(float, prepared.get(key) or usual))
        for key, usual in zip(("image_mean", "image_std"), _IMAGENET, strict=True)
    )
    side, patch = getattr(config, "image_size", None) or 224, getattr(config, "patch_size", None) or 0
    size = tuple(side) if isinstance(side, list | tuple) else (side, side)
    return Wants(mean, std, (int(size[0]), int(size[1])), int(patch) if isinstance(patch, int) else int(patch[0]))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
