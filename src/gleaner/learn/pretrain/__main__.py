"""`make pretrain`: learns the starting weights anew and writes `backbone.npz` and `heads.npz`.

Counted in steps, not seconds: the same seed and options give the same weights on the same machine. A checkpoint is kept,
so that a run of hours goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gleaner.learn.fit import WeightAverage, adamw
from gleaner.learn.network import normalize
from gleaner.learn.pretrain.contours import make_contours
from gleaner.learn.pretrain.drawing import draw
from gleaner.learn.pretrain.task import PretrainLoss, PretrainNetwork, pretrain_loss

CONTOURS = 1024
_CONTOUR_SEED = 7
_WARM_UP = 0.05
_AVERAGED = 0.998
_SAID_EVERY = 50
_KEPT_EVERY = 500
_HEADS = ("label_head.0.", "box_head.")
"""All but the layer that names labels: the detector's own labels are other ones."""


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    device = torch.device(options.device)
    torch.set_default_device(device)
    torch.manual_seed(options.seed)
    contours = make_contours(CONTOURS, torch.Generator(device).manual_seed(_CONTOUR_SEED))
    network = PretrainNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = WeightAverage(network, _AVERAGED)
    optimizer = adamw(network, options.learning_rate, 0.05)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "checkpoint.pt"
    began_at = _resume(kept, network, average, optimizer) if kept.exists() else 0
    recent: deque[PretrainLoss] = deque(maxlen=_SAID_EVERY)
    started = time.monotonic()
    end = min(options.steps, options.until or options.steps)
    for step in range(began_at, end):
        # A generator of its own for each step: a run that goes on draws what it would have drawn.
        random = torch.Generator(device).manual_seed(options.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _rate(step / options.steps)
        drawn = draw(contours, options.batch_size, (options.height, options.width), random)
        network.train()
        loss = pretrain_loss(network(normalize(drawn.pixels)), drawn, contours)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average.update(network)
        recent.append(loss._replace(total=loss.total.detach()))
        if (step + 1) % _SAID_EVERY == 0 or step + 1 == end:
            _say(step + 1, options.steps, recent, (time.monotonic() - started) / (step + 1 - began_at))
        if (step + 1) % _KEPT_EVERY == 0 or step + 1 == end:
            _keep(kept, step + 1, network, average, optimizer)
    if end < options.steps:
        print(f"Stopped after {end} of {options.steps} steps; the same command without --until goes on.")
        return 0
    _write(average.network, options.out)
    kept.unlink(missing_ok=True)
    print(f"Wrote {options.out / 'backbone.npz'} and {options.out / 'heads.npz'}")
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gleaner.learn.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/pretrain"), help="folder for the weights")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--until", type=int, default=0, help="stop after this step and keep a checkpoint to go on from")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if min(options.steps, options.batch_size) < 1 or min(options.height, options.width) < 64:
        parser.error("steps and batch size are at least 1, height and width at least 64")
    return options


def _rate(share: float) -> float:
    """Up in the first twentieth, then down along a half cosine."""
    down = max(0.0, (share - _WARM_UP) / (1 - _WARM_UP))
    return min(1.0, share / _WARM_UP + 0.02) * 0.5 * (1 + math.cos(math.pi * down))


def _say(step: int, steps: int, recent: deque[PretrainLoss], seconds_each: float) -> None:
    loss, found, symmetry, paint = (float(np.mean([float(one[i]) for one in recent])) for i in range(4))
    left_min = (steps - step) * seconds_each / 60
    print(
        f"{step:6d} of {steps}  loss {loss:.3f}  found {found:.0%}  symmetry {symmetry:.0%}  paint {paint:.0%}  "
        f"{left_min:.0f} min left",
        flush=True,
    )


def _keep(
    path: Path, step: int, network: nn.Module, average: WeightAverage[PretrainNetwork], optimizer: torch.optim.Optimizer
) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "average": average.network.state_dict(),
        "updates": average.updates,
        "optimizer": optimizer.state_dict(),
    }
    new = path.with_suffix(".partial")
    torch.save(state, new)
    new.replace(path)


def _resume(
    path: Path, network: nn.Module, average: WeightAverage[PretrainNetwork], optimizer: torch.optim.Optimizer
) -> int:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    average.network.load_state_dict(state["average"])
    average.updates = state["updates"]
    optimizer.load_state_dict(state["optimizer"])
    step = int(state["step"])
    print(f"Going on from step {step} of {path}", flush=True)
    return step


def _write(network: PretrainNetwork, out: Path) -> None:
    """As float16: half the size, and no difference that measures."""
    state = {name: value for name, value in network.detector.state_dict().items() if "num_batches" not in name}
    parts = {
        "backbone.npz": {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")},
        "heads.npz": {n: v for n, v in state.items() if n.startswith(_HEADS)},
    }
    for name, tensors in parts.items():
        _save(out / name, tensors)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    arrays: dict[str, Any] = {name: tensor.cpu().numpy().astype(np.float16) for name, tensor in tensors.items()}
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
