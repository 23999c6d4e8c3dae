"""Gleaner: capture, label, train and watch, on your own hardware."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("gleaner")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"
