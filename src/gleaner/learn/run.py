"""What every training run does around its network: read the pictures, divide them, tell how far it is, write the report."""

from __future__ import annotations

import json
import platform
import random
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from gleaner import __version__
from gleaner.learn.events import Events, utc_text
from gleaner.learn.fit import FEWEST_USEFUL_STEPS, Metrics
from gleaner.learn.graph import measure_inference_ms, model_properties, open_session
from gleaner.learn.network import parameter_count
from gleaner.learn.pictures import Loaded, load_pictures
from gleaner.learn.previous import SPLIT_FILE, Answer, Qualities, answer, compare, qualities, said_of, write_split
from gleaner.learn.request import Example, RunRequest, Skipped
from gleaner.learn.split import Split, declared_split, fingerprint, group_pictures, leaked, most_kept, split_groups

FINISH_S = 4.0
"""Judging and exporting take about this long after training; only the shown estimate depends on it."""
READING_SHARE = 0.35
"""Of the budget at most goes to reading pictures; the rest of an oversized dataset is left out, with a warning."""
REVIEW_S, REVIEW_SHARE, LONGEST_REVIEW_S = 2.0, 0.04, 10.0
"""Looking for wrong tags and at the worth of more pictures may take this share of the budget, within these limits."""
LEAST_FOR_INT8_S = 30.0
LEAST_TRAINING_S = 2.0
CHECKED_PICTURES = 4
LAST_LAYER = "the last layer"
MODEL_FILE = "model.onnx"
ONLY_OWN = "written only of Gleaner's own network, not over another backbone"
_DIRECTION = re.compile(r"(?i)(?<![a-z])(left|right)(?![a-z])")


@dataclass(frozen=True)
class Surroundings:
    """What a run needs from outside itself."""

    run_dir: Path
    events: Events
    elapsed: Callable[[], float]
    """Seconds since the run's process was asked to start."""


class Plan(Protocol):
    """What the plans of all kinds of networks say."""

    @property
    def input_size(self) -> tuple[int, int]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def mirror(self) -> bool: ...


class Fitted(Protocol):
    """What training any of them gives."""

    steps: int
    pictures_seen: int
    history: list[Metrics]
    learned: str
    """What of the network was: all layers, or LAST_LAYER where the time was too short for more."""

    @property
    def network(self) -> torch.nn.Module: ...


OnMetrics = Callable[[Metrics, float], None]
FittedT = TypeVar("FittedT", bound=Fitted)


class Run(ABC):
    """From checked examples to the finished output folder, in `work`."""

    def __init__(self, request: RunRequest, surroundings: Surroundings) -> None:
        self.request = request
        self.events = surroundings.events
        self.elapsed = surroundings.elapsed
        self.run_dir = surroundings.run_dir
        self._out = surroundings.run_dir / request.output_dir
        self.partial = self._out.with_name(self._out.name + ".partial")
        self.groups: list[list[int]] = []
        """Of pictures that are nearly the same, once `split` has found them."""
        self.fetching_s = 0.0
        """Spent on loading, perhaps downloading, somebody else's backbone: comes on top of the time that was given."""
        torch.set_num_threads(request.threads)

    def run(self, examples: list[Example], skipped: list[Skipped]) -> None:
        """Leaves the complete output folder or none at all."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self.work(examples, skipped)
        shutil.rmtree(self._out, ignore_errors=True)
        self.partial.rename(self._out)

    @abstractmethod
    def work(self, examples: list[Example], skipped: list[Skipped]) -> None:
        """Fills `partial`."""

    @property
    def may_mirror(self) -> bool:
        """A label that says left or right would be taught wrong by a mirrored picture."""
        return not any(_DIRECTION.search(label) for label in self.request.labels)

    @property
    def seconds_left(self) -> float:
        return max(LEAST_TRAINING_S, self.request.budget_s + self.fetching_s - self.elapsed())

    def time_to_review(self) -> Callable[[float], bool]:
        """Whether less than a share of the time for what the report tells beside the test is gone, which begins now."""
        began_s, whole_s = self.elapsed(), min(LONGEST_REVIEW_S, max(REVIEW_S, REVIEW_SHARE * self.request.budget_s))
        return lambda share: self.elapsed() - began_s < share * whole_s

    def load(self, examples: list[Example], size: tuple[int, int]) -> Loaded:
        self.events.log(f"Reading {len(examples)} pictures at {size[1]}×{size[0]}")
        order = list(examples)
        random.Random(self.request.seed).shuffle(order)
        started, limit_s = self.elapsed(), READING_SHARE * self.request.budget_s
        loaded = load_pictures(
            order,
            size,
            self.request.threads,
            lambda: self.elapsed() - started < limit_s,
            lambda _: self.progress("reading"),
            self.run_dir,
        )
        if loaded.skipped:
            first = loaded.skipped[0]
            self.warn([f"{len(loaded.skipped)} pictures could not be used; the first, {first.id}: {first.reason}."])
        if loaded.left_out:
            read = len(examples) - loaded.left_out
            self.warn(
                [f"Only {read} of {len(examples)} pictures were read in the time given: allow more time to use all."]
            )
        return loaded

    def split(self, loaded: Loaded, labelling: str) -> Split:
        """`labelling`: what people did to the pictures, for the words of a warning."""
        self.progress("splitting")
        prints = np.stack([fingerprint(picture) for picture in loaded.pixels])
        groups = self.groups = group_pictures(prints, loaded.examples)
        label_sets = [example.labels for example in loaded.examples]
        mixed = sum(len({label_sets[i] for i in group}) > 1 for group in groups)
        if mixed:
            self.warn([f"{mixed} sets of nearly identical pictures are labelled differently: look for {labelling}."])
        most = most_kept(self.request.budget_s)
        declared = declared_split(groups, loaded.examples, self.request.seed, most)
        if declared is not None and (flattering := leaked(groups, declared)):
            self.warn(
                [
                    f"{flattering} of the dataset's {len(declared.test)} test pictures are nearly the same as pictures it "
                    "learns from: the score is better than the model."
                ]
            )
        split = declared or split_groups(groups, label_sets, self.request.seed, most)
        untested = [label for label in self.request.labels if not any(label in label_sets[i] for i in split.test)]
        if untested:
            self.warn(
                [f"No test picture of {', '.join(untested)}: all of them look the same. Capture from other places too."]
            )
        parts = f"{len(split.train)} to learn from, {len(split.validation)} to watch, {len(split.test)} to test"
        self.events.log(f"{len(loaded.examples)} pictures in {split.group_count} groups: {parts}")
        return split

    def train(self, plan: Plan, fit: Callable[[OnMetrics], FittedT], on: str = "") -> FittedT:
        """`fit` makes the network and trains it as `plan` says, telling its points; `on` ends the line of the log."""
        torch.manual_seed(self.request.seed)
        self.events.log(f"Training for {plan.seconds:.0f} s{on}")
        started = self.elapsed()

        def since_start(point: Metrics) -> Metrics:
            return replace(point, t_s=round(started + point.t_s, 3))

        def on_metrics(point: Metrics, _share: float) -> None:
            self.events.metrics(since_start(point))
            self.progress("training")

        result = fit(on_metrics)
        result.history[:] = map(since_start, result.history)
        self._train_s = self.elapsed() - started
        self.events.log(f"{result.steps} steps, {result.pictures_seen} pictures seen in {self._train_s:.1f} s")
        is_quick = result.learned == LAST_LAYER
        if is_quick and self.request.backbone:
            self.events.log(
                "The backbone as it was, with a last layer of its own, did better on the validation pictures and is kept"
            )
        elif result.steps < FEWEST_USEFUL_STEPS or is_quick:
            kept = ", so only the last layer was learned" if is_quick else ""
            text = f"Only {result.steps} training steps fitted into the time{kept}: allow more time for a better model."
            self.warn([text])
        return result

    def export(
        self,
        result: Fitted,
        loaded: Loaded,
        split: Split,
        threshold: float,
        write: Callable[[Path, Mapping[str, str]], None],
        write_tflite: Callable[[Path], None],
        largest_difference: Callable[[Path, NDArray[np.uint8]], float],
    ) -> dict[str, Any]:
        """Writes the model, also for TF-Lite, and its labels; the report's `timings` and `model`.

        `write` gets the file's path and metadata, `largest_difference` a file and some real pictures that it and the network
        must answer alike.
        """
        self.progress("exporting")
        started = self.elapsed()
        request, path = self.request, self.partial / MODEL_FILE
        write(path, model_properties(list(request.labels), request.task.value, threshold, request.model_version))
        self.write_labels()
        write_split(self.partial / SPLIT_FILE, loaded.examples, split)
        pictures = loaded.pixels[(split.test + split.validation + split.train)[:CHECKED_PICTURES]]

        def measured(made: Path) -> dict[str, Any]:
            return {
                "file": made.name,
                "size_bytes": made.stat().st_size,
                "largest_difference": largest_difference(made, pictures),
                "inference_ms": measure_inference_ms(made, pictures[0]),
            }

        formats = {"onnx": measured(path), "tflite": self._tflite(write_tflite, measured)}
        formats["int8"] = self._int8(path, loaded, split, threshold)
        return {
            "timings": {
                "train_s": round(self._train_s, 2),
                "export_s": round(self.elapsed() - started, 2),
                "inference_ms": formats["onnx"]["inference_ms"],
                "total_s": round(self.elapsed(), 2),
            },
            "model": {
                "size_bytes": path.stat().st_size,
                "parameters": parameter_count(result.network),
                "input_shape": [1, *pictures.shape[1:]],
                "largest_difference": formats["onnx"]["largest_difference"],
                "steps": result.steps,
                "formats": formats,
            },
        }

    def _int8(self, source: Path, loaded: Loaded, split: Split, threshold: float) -> dict[str, Any]:
        if self.request.backbone:
            return {"reason": ONLY_OWN}
        if self.request.budget_s < LEAST_FOR_INT8_S:
            return {"reason": f"not tried in runs of less than {LEAST_FOR_INT8_S:.0f} s"}
        kept, labels, in_time = split.test + split.validation, self.request.labels, self.time_to_review()

        def asked(session: Any, i: int) -> Answer:
            return answer(session, loaded.pixels[i], loaded.examples[i], labels, threshold, self.request)

        def compare_both(before: Any, now: Any) -> Qualities | None:
            both = [(loaded.examples[i], asked(before, i), asked(now, i)) for i in chosen]
            return qualities(both, self.request) if both else None

        from gleaner.learn.int8 import CALIBRATED_WITH, export_int8

        chosen: list[int] = []
        session = open_session(source)
        for i in kept:  # as many as a third of the time is enough for
            if not in_time(1 / 3):
                break
            session.run(None, {"image": loaded.pixels[i][None]})
            chosen.append(i)
        return export_int8(
            source, self.partial / "model-int8.onnx", loaded.pixels[split.train[:CALIBRATED_WITH]], compare_both
        )

    def _tflite(self, write: Callable[[Path], None], measured: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """For viam-server's `tflite_cpu`, under the name that its configurations expect."""
        if self.request.backbone:
            return {"reason": ONLY_OWN}
        if find_spec("ai_edge_litert") is None:
            return {"reason": "ai-edge-litert is not installed: pip install 'gleaner[tflite]'"}
        path = self.partial / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', self.request.model_name)}.tflite"
        write(path)
        return measured(path)

    def head(self, loaded: Loaded, split: Split, plan: Plan, result: Fitted) -> dict[str, Any]:
        """The beginning of report.json."""
        request = self.request
        return {
            "format": 1,
            "task": request.task.value,
            "labels": list(request.labels),
            "model_name": request.model_name,
            "model_version": request.model_version,
            "created_at": utc_text(datetime.now(UTC)),
            "dataset": {
                "hash": request.dataset_hash,
                "item_count": len(loaded.examples),
                "groups": split.group_count,
                "split_by": "dataset" if any(e.split in ("val", "test") for e in loaded.examples) else "gleaner",
                "split": {"train": len(split.train), "validation": len(split.validation), "test": len(split.test)},
            },
            "config": {
                "seed": request.seed,
                "budget_s": request.budget_s,
                "threads": request.threads,
                "input_size": list(plan.input_size),
                "batch_size": plan.batch_size,
                "learning_rate": plan.learning_rate,
                "mirror": plan.mirror,
                "learned": result.learned,
            },
            "versions": _versions(),
        }

    def compare(self, loaded: Loaded, split: Split, now: Sequence[Answer]) -> dict[str, Any]:
        """The report's `compared`: with the version before, on the test pictures, to which `now` has the new one's answers."""
        began_s, longest_s = self.elapsed(), max(REVIEW_S, REVIEW_SHARE * self.request.budget_s)
        examples = [loaded.examples[i] for i in split.test]
        found = compare(self.run_dir, self.request, examples, now, lambda: self.elapsed() - began_s < longest_s)
        if found is not None:
            self.events.log(f"Compared with version {found['version']}: {said_of(found)} ({found['verdict']})")
        return {"compared": found}

    def write_report(self, result: Fitted, skipped: Sequence[Skipped], report: dict[str, Any]) -> None:
        """`report`: what this run's kind says, beside what every run knows."""
        whole = {**report, "skipped": [asdict(s) for s in skipped], "history": [asdict(p) for p in result.history]}
        text = json.dumps(whole, ensure_ascii=False, allow_nan=False)
        (self.partial / "report.json").write_text(text, encoding="utf-8")

    def write_labels(self) -> None:
        lines = "".join(f"{label}\n" for label in self.request.labels)
        (self.partial / "labels.txt").write_text(lines, encoding="utf-8")

    def progress(self, phase: str) -> None:
        whole = max(self.request.budget_s, LEAST_TRAINING_S) + self.fetching_s + FINISH_S
        elapsed = self.elapsed()
        self.events.progress(min(0.99, elapsed / whole), phase, whole - elapsed)

    def warn(self, messages: Sequence[str]) -> None:
        for message in messages:
            self.events.warning(message)


def _versions() -> dict[str, str]:
    import onnx
    import onnxruntime

    return {
        "gleaner": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
    }
