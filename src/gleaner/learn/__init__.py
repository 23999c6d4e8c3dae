"""Dataset in, model and report out. Knows neither the app nor the machine.

`python -m gleaner.learn.worker <run dir>` is the program; see `docs/learning.md`. Modules that need torch are `network`,
`augment` and `fit`; the others import without it, so mistakes in a run are told before the seconds that torch takes to load.
"""
