"""What both halves speak: ids, the capture-file codec, sync frames, link frames and machine configuration.

Imports nothing else of Gleaner, so that `app`, `machine`, `learn` and `sim` may all import it.
"""
