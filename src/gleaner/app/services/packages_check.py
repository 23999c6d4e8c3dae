"""Whether the files of packages are there and open: the part of `gleaner app fsck` that concerns models."""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c

from gleaner.app.errors import NotFound
from gleaner.app.keys import KeyProblem
from gleaner.app.services.package_files import DamagedFile
from gleaner.app.services.packages import Package, PackageService
from gleaner.app.store.fsck import Finding


def check_packages(packages: PackageService, *, deep: bool) -> Iterator[Finding]:
    """Quick: the first byte of each is opened; deep: all of them, against the checksum of the upload."""
    for one in packages.all():
        if problem := _problem(packages, one, deep=deep):
            yield Finding(f"package: {problem}", f"{one.name} {one.version}", records=1)


def _problem(packages: PackageService, one: Package, *, deep: bool) -> str:
    crc32c = 0
    try:
        for chunk in packages.content(one, 0, None if deep else 1):
            crc32c = google_crc32c.extend(crc32c, chunk)
    except NotFound:
        return ""  # deleted meanwhile
    except FileNotFoundError:
        return "its file is missing: train or upload it again, or restore a backup"
    except (DamagedFile, KeyProblem, OSError) as err:
        return str(err)
    return "its bytes are not those of the upload" if deep and crc32c != one.crc32c else ""
