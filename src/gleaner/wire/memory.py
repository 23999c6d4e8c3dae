"""How a process that moves many bytes keeps its memory: freed blocks are used again instead of given back and fetched anew.

glibc maps each block of 128 KiB or more afresh and unmaps it when it is freed. The kernel then clears every page at its
first touch: of a 30 kB file on its way through sync that was a third of all processor time (80 of 210 µs on a virtual
machine, where such a fault takes 2 µs).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

# mallopt(3); the numbers are glibc's ABI.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST_MMAP_THRESHOLD = 32 << 20
# Young objects are looked through for cycles after so many allocations: batches of files hold thousands for a moment.
_COLLECT_AFTER = 20_000


def keep_memory(kept_bytes: int, *, arenas: int = 0) -> None:
    """Keeps up to `kept_bytes` of freed memory for each arena; `arenas` bounds their number (0: as glibc likes).

    Call before threads are started. Does nothing where the C library is another one.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        library.mallopt(_M_TRIM_THRESHOLD, kept_bytes)
        if arenas:
            library.mallopt(_M_ARENA_MAX, arenas)


def give_back_memory() -> None:
    """Returns what is free to the system, after a rush."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def collect_rarely() -> None:
    """What was loaded until now is never looked through for cycles again, and what comes not at every batch.

    The collector took a tenth of the app's time while files came in.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
