"""Where the key for captures at rest comes from: a file that nobody else may read, the environment, or a command.

Its text is one key a line: 32 bytes in hexadecimal or base64 (`openssl rand -hex 32`). New files take the first line's;
the others read files from before a rotation. Empty lines and lines that begin with `#` do not count. Blocking.
"""

from __future__ import annotations

import base64
import binascii
import os
import shlex
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gleaner.machine.capture.at_rest import KEY_BYTES, Keyring
from gleaner.machine.capture.errors import BadCaptureKey

COMMAND_TIMEOUT_S = 20.0
_MAKE_ONE = "make one with `openssl rand -hex 32`"


@dataclass(frozen=True)
class KeySource:
    """One of the three is set; none: captures are not encrypted."""

    key_file: str = ""
    key_env: str = ""
    key_command: str = ""


def load_keyring(source: KeySource, environment: Mapping[str, str]) -> Keyring:
    """Raises BadCaptureKey, which never quotes the key."""
    if source.key_file:
        return parse_keys(_from_file(Path(source.key_file).expanduser()), f"the key file {source.key_file}")
    if source.key_env:
        if source.key_env not in environment:
            raise BadCaptureKey(f"the environment variable {source.key_env} is not set: {_MAKE_ONE} and set it")
        return parse_keys(environment[source.key_env], f"the environment variable {source.key_env}")
    if source.key_command:
        return parse_keys(_from_command(source.key_command), f"the output of `{source.key_command}`")
    return Keyring()


def parse_keys(text: str, where: str) -> Keyring:
    lines = [line.strip() for line in text.splitlines()]
    keys = [_parse_key(line, where) for line in lines if line and not line.startswith("#")]
    if not keys:
        raise BadCaptureKey(f"{where} holds no key: {_MAKE_ONE}")
    return Keyring(tuple(dict.fromkeys(keys)))


def _parse_key(line: str, where: str) -> bytes:
    for decode in (bytes.fromhex, _from_base64):
        try:
            key = decode(line)
        except (ValueError, binascii.Error):
            continue
        if len(key) == KEY_BYTES:
            return key
    raise BadCaptureKey(f"{where} holds something that is no key of {KEY_BYTES} bytes in hexadecimal: {_MAKE_ONE}")


def _from_base64(line: str) -> bytes:
    return base64.b64decode(line, validate=True)


def _from_file(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BadCaptureKey(
            f"the key file cannot be read ({error}): {_MAKE_ONE} into it, for this user only"
        ) from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise BadCaptureKey(f"the key file {path} is no regular file: name the file itself")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise BadCaptureKey(f"the key file {path} may be read by others (mode {mode:04o}): chmod 600 {path}")
        if status.st_uid not in (0, os.geteuid()):
            raise BadCaptureKey(
                f"the key file {path} belongs to another user: give it to the machine's user, or to root"
            )
        return file.read(64 * 1024).decode("ascii", "replace")


def _from_command(command: str) -> str:
    try:
        done = subprocess.run(
            shlex.split(command), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise BadCaptureKey(f"the key command `{command}` did not work: {error}") from error
    if done.returncode:
        said = done.stderr.strip()[-300:]
        raise BadCaptureKey(f"the key command `{command}` ended with code {done.returncode}: {said}")
    return done.stdout
