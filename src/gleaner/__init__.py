"""Gleaner: capture, label, train and watch, on your own hardware."""

__version__: str


def __getattr__(name: str) -> str:
    """The version, looked up when somebody asks: the look-up costs every process 50 ms at its start."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("gleaner")
    except PackageNotFoundError:  # run from a source tree that was never installed
        found = "0.0.0"
    globals()["__version__"] = found
    return found
