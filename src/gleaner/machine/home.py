"""The folder that belongs to one machine, and who may use it.

machine.lock     held (flock) by the running machine: a second one on the same folder refuses to start
machine.sock     the robot API without authentication; the folder is 0700, so only this user reaches it
token.key        signs the robot API's access tokens, so that they outlive a restart
packages/        models downloaded from the app
capture/         what the data manager keeps until it is synced
cached_cloud_config_<part id>.json   the last configuration that was applied
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import tempfile
from pathlib import Path
from types import TracebackType

# Linux allows 107 bytes in the path of a unix socket, macOS 103.
_MAX_SOCKET_PATH_BYTES = 100


class HomeInUse(Exception):
    """Another machine runs on the same folder."""


class MachineHome:
    """Made (0700) and locked by `with MachineHome(path)`. Raises HomeInUse; OSError when the folder cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self._lock: int | None = None

    def __enter__(self) -> MachineHome:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        lock = os.open(self.path / "machine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip()
            os.close(lock)
            raise HomeInUse(
                f"another machine{f' (process {owner})' if owner else ''} already runs on {self.path}: "
                "stop it, or give this one another folder with --home"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket_path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def socket_path(self) -> Path:
        """`machine.sock` in the folder, or in a private folder with a short name when the path would be too long."""
        path = self.path / "machine.sock"
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES:
            return path
        digest = hashlib.blake2b(os.fsencode(self.path), digest_size=8).hexdigest()
        return Path(tempfile.gettempdir()) / f"gleaner-{os.getuid()}-{digest}" / "machine.sock"

    def prepare_socket(self) -> Path:
        """Remove what an earlier process left and make sure that only this user can reach the socket."""
        path = self.socket_path
        path.parent.mkdir(mode=0o700, exist_ok=True)
        status = path.parent.lstat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(
                f"{path.parent} must belong to this user alone (mode 0700): it holds the machine's private socket"
            )
        path.unlink(missing_ok=True)
        return path

    def token_key(self) -> bytes:
        """32 random bytes, made once."""
        path = self.path / "token.key"
        if not path.exists():
            write_private(path, secrets.token_bytes(32))
        return path.read_bytes()

    def cached_config(self, part_id: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in part_id)
        return self.path / f"cached_cloud_config_{safe}.json"


def write_private(path: Path, content: bytes) -> None:
    """Replace a file (0600) so that a crash leaves the old content or the new, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
