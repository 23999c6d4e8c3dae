"""What a disk's error means: the reason it is counted under, and what a person can do about it."""

from __future__ import annotations

import errno
import os

from gleaner.machine.capture.ledger import DropReason

_REASONS = {
    errno.ENOSPC: DropReason.DISK_FULL,
    errno.EDQUOT: DropReason.QUOTA,
    errno.EROFS: DropReason.READ_ONLY,
    errno.EIO: DropReason.IO_ERROR,
    errno.EMFILE: DropReason.TOO_MANY_FILES,
    errno.ENFILE: DropReason.TOO_MANY_FILES,
    errno.ENOENT: DropReason.REMOVED,
    errno.EACCES: DropReason.NO_PERMISSION,
    errno.EPERM: DropReason.NO_PERMISSION,
}
_WORDS = {
    DropReason.DISK_FULL: "the disk is full: free some space, or let sync catch up",
    DropReason.NO_INODES: "the disk has no room for more files (inodes): remove some small files, or let sync catch up",
    DropReason.QUOTA: "the disk quota of this user is used up: raise it, free some space, or let sync catch up",
    DropReason.READ_ONLY: "the disk is read-only: look into the kernel's log (dmesg) for its error, check it, then mount "
    "it writable",
    DropReason.IO_ERROR: "the disk gives errors: look into the kernel's log (dmesg), save what is on it and replace it",
    DropReason.TOO_MANY_FILES: "too many files are open: raise the limit (ulimit -n, LimitNOFILE in the systemd unit)",
    DropReason.NO_PERMISSION: "the capture folder may not be written: give it to the user that the machine runs as",
    DropReason.REMOVED: "somebody removed it while it was in use: leave the capture folder to Gleaner",
}


def reason_of(error: OSError, folder: str = "") -> DropReason:
    """`folder` tells a disk without space from one without inodes, which answer alike."""
    if error.errno == errno.ENOSPC and folder and _lacks_inodes(folder):
        return DropReason.NO_INODES
    return _REASONS.get(error.errno or 0, DropReason.WRITE_FAILED)


def explain(reason: DropReason, error: OSError | None = None) -> str:
    words = _WORDS.get(reason, "writing failed")
    if reason is DropReason.DISK_FULL or error is None:
        return words
    return f"{words} ({error})"


def _lacks_inodes(folder: str) -> bool:
    try:
        status = os.statvfs(folder)
    except OSError:
        return False
    # Some file systems (btrfs) have no fixed number of inodes and say 0 of 0.
    return status.f_files > 0 and status.f_favail == 0 and status.f_bavail > 0
