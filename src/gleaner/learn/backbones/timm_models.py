"""Models of timm, whose weights lie on the Hugging Face Hub, each with a card of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from gleaner.learn.backbone_name import INSTALL_TIMM, BackboneName
from gleaner.learn.backbones.card import licenses_of, require_permissive
from gleaner.learn.backbones.trunk import Wants
from gleaner.learn.errors import RunProblem


class Body(nn.Module):
    """The deepest map of a model made with `features_only`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.model(x)[-1])


def load(name: BackboneName, accepted: bool, log: Callable[[str], None]) -> tuple[nn.Module, Wants, dict[str, str]]:
    """The network with its weights, how it sees, and what the report says of it. Raises RunProblem."""
    try:
        import timm
    except Exception as error:
        raise RunProblem(
            f"Starting from {name} needs timm, which cannot be loaded here: {type(error).__name__}: {error}",
            f"{INSTALL_TIMM} Or choose a checkpoint of Hugging Face (hf:…).",
        ) from error
    return _made(timm, name, accepted, log)


def _made(
    timm: object, name: BackboneName, accepted: bool, log: Callable[[str], None]
) -> tuple[nn.Module, Wants, dict[str, str]]:
    from timm import create_model
    from timm.models import get_pretrained_cfg, is_model

    from gleaner.learn.backbones.hugging_face import card_of, unreachable

    wanted = get_pretrained_cfg(name.what) if is_model(name.what.partition(".")[0]) else None
    if wanted is None or not wanted.hf_hub_id:
        raise RunProblem(
            f"timm {getattr(timm, '__version__', '')} has no pretrained weights for {name.what!r}.",
            "timm.list_models(pretrained=True) lists those it has.",
        )
    licence = require_permissive(name, licenses_of(card_of(name, wanted.hf_hub_id)), accepted)
    log(f"Fetching {name} ({licence}); it is kept for later runs")
    try:
        model = create_model(name.what, pretrained=True, features_only=True, out_indices=(-1,))
    except (AttributeError, TypeError, IndexError, NotImplementedError, AssertionError) as error:
        raise RunProblem(
            f"{name} gives no map of features: {error}",
            "Choose another model, such as a MobileNet, ResNet or ConvNeXt.",
        ) from error
    except Exception as error:
        raise unreachable(name, error) from error
    wants = Wants(tuple(wanted.mean), tuple(wanted.std), (wanted.input_size[1], wanted.input_size[2]))
    return Body(model), wants, {"name": str(name), "license": licence, "revision": wanted.hf_hub_id}
