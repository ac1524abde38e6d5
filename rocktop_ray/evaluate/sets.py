"""Many takes: each measured once, kept by content, and summed up. What was measured is not measured again.

With a folder to write to, every take gets a folder of its own under ``takes/``: ``scores.json`` with the fingerprint of
what it was made from (content of the files, choices, instruments), the two recordings as FLAC and a picture. An
interrupted run goes on where it was; a take that changed is measured again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import rocktop_ray
from rocktop_ray.audio.decode import read_take
from rocktop_ray.audio.encode import write_take
from rocktop_ray.errors import AudioError, RocktopError, storage_errors
from rocktop_ray.evaluate.choices import Choices
from rocktop_ray.evaluate.instruments import Instruments, build_instruments
from rocktop_ray.evaluate.measures import values_of
from rocktop_ray.evaluate.pair import Measured, measure_pair
from rocktop_ray.evaluate.pairing import Pair
from rocktop_ray.evaluate.summary import Summary
from rocktop_ray.protocols import TAKE_RATE, Array
from rocktop_ray.store.atomic import write_bytes
from rocktop_ray.store.digest import file_sha256

REVISION = 1
"""Raised when a metric is computed otherwise, so that kept scores are not mixed with new ones."""
TAKES, SCORES, TARGET = "takes", "scores.json", "target.flac"
SOURCE, RESULT, PICTURE = "source.flac", "result.flac", "picture.png"


@dataclass(frozen=True)
class TakeScores:
    """One pair, measured."""

    name: str
    source: str
    result: str
    values: dict[str, float]
    """By the names of ``measures.MEASURES``."""
    report: dict[str, Any]
    """``Report.as_dict()``."""
    folder: str | None = None
    """Below the output folder, where there is one."""
    picture: bool = False


@dataclass
class SetReport:
    """What became of a set."""

    choices: Choices
    takes: list[TakeScores] = field(default_factory=list)
    failed: list[tuple[str, RocktopError]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Metrics that are not installed, with what to do."""
    measured: int = 0
    """Takes measured in this run; the others were kept from earlier ones."""

    @property
    def summary(self) -> Summary:
        """Statistics over the takes."""
        return Summary.of({take.name: take.values for take in self.takes})

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "rocktop": rocktop_ray.__version__,
            "revision": REVISION,
            "choices": self.choices.as_dict(),
            "missing": self.missing,
            "summary": self.summary.as_dict(),
            "takes": [vars(take) for take in self.takes],
            "failed": [{"name": name, **error.as_dict()} for name, error in self.failed],
        }

    def raise_for_failures(self) -> None:
        """Raises AudioError if a pair failed."""
        if self.failed:
            total = len(self.failed) + len(self.takes)
            raise AudioError(f"{len(self.failed)} of {total} pairs failed; the others are measured")


def evaluate_set(
    pairs: Iterable[Pair],
    choices: Choices | None = None,
    *,
    out: Path | None = None,
    target: Path | None = None,
    instruments: Instruments | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> SetReport:
    """Measures pairs of files.

    Args:
        pairs: as ``pairing.find_pairs`` gives them; names must differ.
        choices: what to measure; None for everything that is installed.
        out: folder for scores, recordings and pictures, and to go on from; None keeps nothing.
        target: a recording of the voice that all results should sound like.
        instruments: what to measure with; None builds it from ``choices``.
        on_progress: called with the pairs finished, all pairs, and the name of the one just finished.

    A RocktopError of one pair costs that pair only: see ``SetReport.failed``. Raises AudioError for the target,
    SettingsError, StorageError.
    """
    choices = choices or Choices()
    tools = instruments or build_instruments(choices.metrics)
    clip = None if target is None else read_take(target)
    basis = {
        "revision": REVISION,
        "choices": choices.as_dict(),
        "instruments": tools.identity(),
        "missing": sorted(tools.missing),
        "target": None if target is None else file_sha256(target),
    }
    report = SetReport(choices, missing=tools.missing)
    if out is not None and clip is not None:
        write_take(out / TARGET, _playable(clip), TAKE_RATE, "flac")
    listed = list(pairs)
    for at, pair in enumerate(listed, start=1):
        try:
            take, fresh = _take(pair, choices, tools, clip, basis, out)
            report.takes.append(take)
            report.measured += fresh
        except RocktopError as error:
            report.failed.append((pair.name, error))
        if on_progress is not None:
            on_progress(at, len(listed), pair.name)
    return report


def _take(
    pair: Pair, choices: Choices, tools: Instruments, clip: Array | None, basis: dict[str, Any], out: Path | None
) -> tuple[TakeScores, bool]:
    """The scores of one pair, and whether they are new."""
    try:
        content = {"source": file_sha256(pair.source), "result": file_sha256(pair.result)}
    except OSError as error:
        raise AudioError(f"{error.filename} cannot be read: {error.strerror}", stage="input") from error
    fingerprint = hashlib.sha256(json.dumps({**basis, **content}, sort_keys=True).encode()).hexdigest()
    folder = None if out is None else out / TAKES / folder_name(pair.name)
    kept = None if folder is None else _kept(folder, fingerprint)
    if kept is not None:
        report, picture = kept["report"], bool(kept["picture"])
        values = {name: float(value) for name, value in kept["values"].items()}
    else:
        source, result = read_take(pair.source), read_take(pair.result)
        measured = measure_pair(source, result, TAKE_RATE, choices, tools, target=clip)
        report, values = measured.report.as_dict(), values_of(measured.report)
        picture = folder is not None and _illustrate(folder, source, result, measured)
        if folder is not None:
            data = {"fingerprint": fingerprint, "values": values, "report": report, "picture": picture}
            write_bytes(folder / SCORES, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())
    below = None if out is None or folder is None else folder.relative_to(out).as_posix()
    return TakeScores(pair.name, str(pair.source), str(pair.result), values, report, below, picture), kept is None


def folder_name(name: str) -> str:
    """A plain folder name for a take: readable, and different for different names."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or "take"
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _kept(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The scores of an earlier run, if made from the same content, choices and instruments, and all files are there."""
    try:
        data = json.loads((folder / SCORES).read_text("utf-8"))
        good = data["fingerprint"] == fingerprint and isinstance(data["report"], dict)
        needed = [SOURCE, RESULT, *([PICTURE] if data["picture"] else [])]
        values = data["values"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or a broken file: measured again
    if not good or not isinstance(values, dict) or not all((folder / name).is_file() for name in needed):
        return None
    return dict(data)


def _illustrate(folder: Path, source: Array, result: Array, measured: Measured) -> bool:
    """Writes both recordings and, where matplotlib is installed, the picture; says whether that is there."""
    with storage_errors(folder):
        (folder / SCORES).unlink(missing_ok=True)  # scores stand for files that are whole
        folder.mkdir(parents=True, exist_ok=True)
    write_take(folder / SOURCE, _playable(source), TAKE_RATE, "flac")
    write_take(folder / RESULT, _playable(result), TAKE_RATE, "flac")
    try:
        from rocktop_ray.evaluate.picture import draw_conversion
    except ModuleNotFoundError:
        return False
    draw_conversion(folder / PICTURE, source, result, TAKE_RATE, measured.f0_source, measured.f0_result)
    return True


def _playable(audio: Array) -> Array:
    """What a player can render: nothing over full scale."""
    return np.clip(audio, -1.0, 1.0)
