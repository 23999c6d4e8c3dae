"""The detector: the classifier's trunk and pyramid, and two small heads on its stride-8 map.

Anchor-free: every cell of the map says how likely each label is there and how far its box reaches to the four sides.
About 1.3 million parameters. Only the highest cell of a 3×3 neighbourhood speaks (`peaks`; Zhou et al. 2019, "Objects as
Points"); a large thing has several such cells, and of boxes that mean the same one the surest is kept (`suppressed`; Zheng
et al. 2020, "Cluster-NMS"). Both are plain operations of fixed shapes, so `export.py` writes them into the graph.
"""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gleaner.learn.detect.boxes import iou
from gleaner.learn.network import Backbone, ConvUnit, load_backbone, prepared_batches
from gleaner.learn.picture_file import Pictures

STRIDE = 8
MOST_BOXES = 50
"""Per picture, in the exported model too."""
CANDIDATES = 100
"""Peaks that suppression looks at."""
SAME_THING = 0.55
"""Overlap (IoU) from which two boxes of one label are the same thing."""
SECOND_LABEL = 0.5
"""A thing has one label: the score of another one for the same box is worth this much of itself. Half keeps mAP (0.951 instead of
0.953 on generated shapes) and takes the second name off the picture (F1 at 0.3: 0.82 instead of 0.76)."""
SUPPRESSION_ROUNDS = 3
"""Exact for chains of as many boxes that each overlap the next."""
LOG_REACH = (-4.0, 4.5)
"""Of the natural logarithm of a reach in strides: from a sixth of a pixel to 720 pixels."""
_WIDTH = 64
_FOUND_AT_ONCE = 16
_RARE_LOGIT = -4.5
"""At the start no cell expects anything, or the background's losses drown the first steps (Lin et al. 2017)."""


class Found(NamedTuple):
    """Boxes of one picture, surest first: (K, 4) x_min, y_min, x_max, y_max in pixels, (K,) scores, (K,) label numbers."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Detector(nn.Module):
    """(N, 3, H, W) normalized → label logits (N, labels, H/8, W/8) and log reaches (N, 4, H/8, W/8): left, top, right, bottom."""

    def __init__(self, label_count: int) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.label_head = nn.Sequential(ConvUnit(_WIDTH, _WIDTH), nn.Conv2d(_WIDTH, label_count, 1))
        self.box_head = nn.Sequential(ConvUnit(_WIDTH, _WIDTH), nn.Conv2d(_WIDTH, 4, 1))
        for head, bias in ((self.label_head, _RARE_LOGIT), (self.box_head, 0.9)):
            last = head[-1]
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            nn.init.normal_(last.weight, std=0.01)
            nn.init.constant_(last.bias, bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _, fine = self.backbone.maps(x)
        return self.label_head(fine), self.box_head(fine)


def build_detector(label_count: int, pretrained: bool = True) -> Detector:
    network = Detector(label_count)
    if pretrained:
        load_backbone(network.backbone)
        with files("gleaner.learn.weights").joinpath("heads.npz").open("rb") as file, np.load(file) as arrays:
            state = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
        _, unexpected = network.load_state_dict(state, strict=False)
        if unexpected:
            raise ValueError(f"heads.npz does not fit the network: {', '.join(unexpected[:5])}")
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def boxes_of(reaches: Tensor) -> Tensor:
    """(N, 4, h, w) log reaches → (N, h·w, 4) boxes in pixels."""
    count, _, height, width = reaches.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    left, top, right, bottom = reaches.clamp(*LOG_REACH).exp().unbind(1)
    return (torch.stack([x - left, y - top, x + right, y + bottom], -1) * STRIDE).reshape(count, -1, 4)


def peaks(logits: Tensor) -> Tensor:
    """Probabilities (N, labels, h, w), zero wherever a neighbouring cell's best label is surer."""
    probabilities = logits.sigmoid()
    best = probabilities.amax(1, keepdim=True)
    return probabilities * (best >= functional.max_pool2d(best, 3, 1, 1))


def find(network: Detector, pictures: Pictures) -> list[Found]:
    """The boxes in pictures of the input size, at most MOST_BOXES each, clipped to the picture."""
    return [settled(one) for one in candidates(network, pictures)]


@torch.no_grad()
def candidates(network: Detector, pictures: Pictures) -> list[Found]:
    """Of each picture the CANDIDATES surest peaks, several of which may mean the same thing: what takes time about `find`."""
    network.eval()
    found: list[Found] = []
    height, width = pictures.shape[1:3]
    limit = torch.tensor([width, height, width, height])
    for batch in prepared_batches(pictures, _FOUND_AT_ONCE):
        logits, reaches = network(batch)
        probabilities, boxes = peaks(logits).flatten(2), boxes_of(reaches)
        for each, own in zip(probabilities, boxes, strict=True):
            scores, where = each.flatten().topk(min(CANDIDATES, each.numel()))
            chosen = own[where % each.shape[1]].clamp_min(0).minimum(limit)
            found.append(Found(chosen, scores, where // each.shape[1]))
    return found


def settled(peaks: Found, slope: float = 1.0, offset: float = 0.0) -> Found:
    """The boxes among a picture's candidates; as of a network whose logits are `slope` · logit + `offset`, `slope` > 0."""
    scores = torch.sigmoid(torch.logit(peaks.scores) * slope + offset)
    one_label = torch.where(suppressed(peaks.boxes, torch.zeros_like(peaks.labels)), SECOND_LABEL, 1.0)
    scores = scores * one_label * ~suppressed(peaks.boxes, peaks.labels)
    scores, order = scores.topk(min(MOST_BOXES, len(scores)))
    return Found(peaks.boxes[order], scores, peaks.labels[order])


def suppressed(boxes: Tensor, labels: Tensor) -> Tensor:
    """(K,) bool: which of the boxes (K, 4), surest first, mean the same thing as a surer one that stays."""
    same = (iou(boxes[:, None], boxes[None]) > SAME_THING) & (labels[:, None] == labels[None])
    by_surer = same.float().triu(1)
    stays = torch.ones(len(boxes))
    for _ in range(SUPPRESSION_ROUNDS):
        stays = ((stays @ by_surer) < 0.5).float()
    return stays < 0.5
