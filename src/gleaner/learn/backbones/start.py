"""Where a classifier begins: at Gleaner's own weights, or at a backbone of somebody else."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

from gleaner.learn.backbone_name import BackboneName, Library
from gleaner.learn.errors import RunProblem
from gleaner.learn.network import Backbone, Trunk, load_backbone


@dataclass(frozen=True)
class Start:
    """`about`: name, license and revision of a backbone of somebody else; empty for Gleaner's own."""

    _trunk: Trunk
    about: dict[str, str] = field(default_factory=dict)

    @property
    def is_own(self) -> bool:
        return not self.about

    def trunk(self) -> Trunk:
        """A copy with the starting weights, for whoever changes it."""
        return deepcopy(self._trunk)


def own_start() -> Start:
    backbone = Backbone()
    load_backbone(backbone)
    return Start(backbone)


def foreign_start(
    name: BackboneName, accepted: bool, sizes: list[tuple[int, int]], log: Callable[[str], None]
) -> Start:
    """Loads, and where need be fetches, the named backbone. Raises RunProblem; `sizes` are those it will be asked."""
    from gleaner.learn.backbones import hugging_face, timm_models
    from gleaner.learn.backbones.trunk import ForeignTrunk

    module = timm_models if name.library is Library.TIMM else hugging_face
    body, wants, about = module.load(name, accepted, log)
    try:
        return Start(ForeignTrunk(body, wants, sizes), about)
    except Exception as error:
        raise RunProblem(
            f"{name} gives no features of a picture: {type(error).__name__}: {error}",
            "Choose a picture model, such as a ResNet, ConvNeXt, DINOv2, MobileNet or ViT.",
        ) from error
