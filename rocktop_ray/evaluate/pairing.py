"""Which result belongs to which source: two folders, paired by name."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from rocktop_ray.audio.batch import find_recordings
from rocktop_ray.errors import AudioError, SettingsError


@dataclass(frozen=True)
class Pair:
    """A source and its result."""

    name: str
    """Path below the source folder, without ending, with ``/``."""
    source: Path
    result: Path


@dataclass(frozen=True)
class Pairing:
    """What two folders hold, in order."""

    pairs: tuple[Pair, ...]
    sources_alone: tuple[str, ...]
    results_alone: tuple[str, ...]


def find_pairs(sources: Path, results: Path) -> Pairing:
    """Pairs of two files, or of two folder trees by path and name without ending.

    Results are named as ``rocktop convert FOLDER FOLDER`` names them: ``a.wav`` becomes ``a.*``, or ``a.wav.*`` where
    ``a`` is there with two endings. Raises AudioError if a path or any pair is missing, SettingsError for a file with a
    folder or for a name that fits two files.
    """
    for path in (sources, results):
        if not path.exists():
            raise AudioError(f"there is no file or folder {path}", stage="input")
    if sources.is_dir() != results.is_dir():
        raise SettingsError("name two files or two folders, not one of each")
    if not sources.is_dir():
        return Pairing((Pair(sources.stem, sources, results),), (), ())
    if sources.resolve() == results.resolve():
        raise SettingsError(f"sources and results are the same folder ({sources})")
    # A folder of results inside that of the sources, or the other way round, is not part of it.
    first = [path for path in _recordings(sources) if not _inside(path, results, sources)]
    second = [path for path in _recordings(results) if not _inside(path, sources, results)]
    by_name: dict[str, list[Path]] = {}
    for path in second:
        by_name.setdefault(_name(path.relative_to(results).with_suffix("")), []).append(path)
    plain = [_name(path.relative_to(sources).with_suffix("")) for path in first]
    pairs, alone, taken = [], [], set()
    for path, stem in zip(first, plain, strict=True):
        full = _name(path.relative_to(sources))
        twice = plain.count(stem) > 1
        key = full if full in by_name else stem
        found = by_name.get(key, [])
        if len(found) > 1:
            names = ", ".join(str(each) for each in found)
            raise SettingsError(f"{path} could belong to each of {names}; keep one of them")
        if twice and found and key == stem:
            raise SettingsError(f"{found[0]} could come from each {stem}.* in {sources}; keep one of them")
        if not found:
            alone.append(full)
            continue
        taken.add(found[0])
        pairs.append(Pair(full if twice else stem, path, found[0]))
    if not pairs:
        raise AudioError(f"no recording in {results} has the name of one in {sources}", stage="input")
    left = tuple(_name(path.relative_to(results)) for path in second if path not in taken)
    return Pairing(tuple(pairs), tuple(alone), left)


def _recordings(folder: Path) -> list[Path]:
    return find_recordings(folder)[0]


def _inside(path: Path, folder: Path, outer: Path) -> bool:
    here = folder.resolve()
    return here != outer.resolve() and here.is_relative_to(outer.resolve()) and path.resolve().is_relative_to(here)


def _name(path: Path) -> str:
    """One form for the same letters: macOS takes accents apart."""
    return unicodedata.normalize("NFC", path.as_posix())
