"""Which run does which task. Importing this imports torch."""

from __future__ import annotations

from gleaner.learn.classify import ClassificationRun
from gleaner.learn.detect.run import DetectionRun
from gleaner.learn.request import RunRequest, Task
from gleaner.learn.run import Run, Surroundings

__all__ = ["Surroundings", "run_for"]


def run_for(request: RunRequest, surroundings: Surroundings) -> Run:
    return (DetectionRun if request.task is Task.DETECTION else ClassificationRun)(request, surroundings)
