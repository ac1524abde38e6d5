"""The history of a run, for people: log lines, ``history.jsonl``, ``curves.png``, ``samples/`` and ``report.html``.

``history.jsonl`` has one object on each line: ``kind`` (``log`` or ``validation``), ``step``, ``epoch``, ``seconds``
of training, and values by name; a validation also says whether it was the best so far (``improved``). Stores cannot
append, so the whole file is written anew at validations, checkpoints and the end. What came after that is also in the
notes of checkpoints, so a run that was killed goes on without a gap, and without rows of steps that come again.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rocktop_ray.audio.encode import encode_bytes
from rocktop_ray.config.training import StopConfig
from rocktop_ray.errors import ObjectMissingError
from rocktop_ray.store.storage import Storage
from train_loops.rvc.callbacks import Callback, Facts, Outcome, Sample, Standing, ValidationResult
from train_loops.rvc.curves import CURVES, draw_curves
from train_loops.rvc.run_page import SAMPLES, TARGET, RunPage, clock, sample_picture
from train_loops.rvc.step import AdversarialStep

HISTORY = "history.jsonl"
REPORT = "report.html"
MOST_ROWS = 4000
"""Log rows that are kept; beyond, old ones are put together."""
MOST_SAMPLES = 24
"""Validations of which samples are kept: the first, the best, the last, and others evenly between."""
_LIMIT = 64 << 20
_SHARE = 0.05
"""Of the time that may go into pictures."""
_NOTE = "history"
_LOSSES = ("mel", "kl", "feature", "adversarial", "discriminator")
_COMMON = ("kind", "step", "epoch", "seconds")
"""What every row says."""
Row = dict[str, Any]
_log = logging.getLogger(__name__)


class History(Callback):
    """Writes a run's history into its store."""

    def __init__(self, storage: Storage, stop: StopConfig | None = None) -> None:
        """``storage``: of the run; ``stop``: its bounds, for the remaining time."""
        self._storage, self._stop = storage, stop or StopConfig()
        self._facts: Facts | None = None
        self._first = Standing(0, 0, 1, 0.0)
        self._logs: list[Row] = []
        self._validations: list[Row] = []
        self._pending: list[Row] = []
        self._samples: dict[int, list[str]] = {}
        self._targets: set[str] = set()
        self._drawn, self._cost = 0.0, 0.0

    def on_train_start(self, facts: Facts, at: Standing) -> None:
        """Takes up the rows and samples of the steps done; those of later steps go. Raises StorageError."""
        self._facts, self._first = facts, at
        kept = read_history(self._storage) if facts.resumed_from else []
        kept += facts.notes.get(_NOTE, [])
        rows = {(row["kind"], row["step"]): row for row in kept if row["step"] <= at.step}
        ordered = sorted(rows.values(), key=lambda row: (row["step"], row["kind"]))
        self._logs = [row for row in ordered if row["kind"] == "log"]
        self._validations = [row for row in ordered if row["kind"] == "validation"]
        self._pending = facts.notes[_NOTE] = []
        self._recall_samples(at.step)
        if at.step:
            self._write()
        _log.info("%s", self._beginning(facts, at))

    def on_log(self, at: Standing, values: Mapping[str, float]) -> None:
        """A row, and a line with the time that remains."""
        row = _row("log", at, values)
        self._logs.append(row)
        self._pending.append(row)
        self._logs = thinned(self._logs, MOST_ROWS)
        _log.info("%s", self._line(at, values))

    def on_validation_end(
        self, at: Standing, result: ValidationResult, step: AdversarialStep, *, improved: bool
    ) -> None:
        """A row, the samples, and everything anew. Raises StorageError."""
        row = _row("validation", at, {**result.metrics, "validation/score": result.score})
        row["improved"] = bool(improved)
        self._validations.append(row)
        self._pending.append(row)
        for sample in result.samples:
            self._keep_sample(at.step, sample)
        self._thin_samples()
        best = "the best so far" if improved else f"best {self._best()[1]:.3f} at step {self._best()[0]}"
        _log.info("step %d, held-out takes: score %.3f (%s)", at.step, result.score, best)
        self._write()
        self._draw(None)

    def on_checkpoint(self, at: Standing) -> None:
        """Writes the rows. Raises StorageError."""
        self._write()
        self._draw(None)

    def on_train_end(self, outcome: Outcome) -> None:
        """Writes everything. Raises StorageError."""
        self._write()
        self._draw(outcome)
        _log.info(
            "the run is over (%s): %d steps, %d epochs, %s%s",
            outcome.reason,
            outcome.at.step,
            outcome.at.epoch,
            clock(outcome.at.seconds),
            "" if outcome.best_score is None else f"; best score {outcome.best_score:.3f} at step {outcome.best_step}",
        )

    # --- lines --------------------------------------------------------------------------------------------------------

    def _beginning(self, facts: Facts, at: Standing) -> str:
        synthesizer = facts.recipe.synthesizer
        what = f"{facts.recipe.version}, {synthesizer.sample_rate} Hz, {'F0' if synthesizer.uses_f0 else 'no F0'}"
        begun = f"goes on at step {at.step}" if at.step else "begins"
        return f"{facts.name} {begun}: {what}, {at.batches_per_epoch} steps per epoch"

    def _line(self, at: Standing, values: Mapping[str, float]) -> str:
        of = f" of {self._stop.steps}" if self._stop.steps else ""
        losses = ", ".join(f"{name} {values[f'loss/{name}']:.3g}" for name in _LOSSES if f"loss/{name}" in values)
        parts = [f"step {at.step}{of}, epoch {at.epoch}", losses]
        if "speed/steps_per_second" in values:
            wait = values.get("speed/loader_wait", 0.0)
            parts.append(f"{values['speed/steps_per_second']:.3g} steps/s, waiting {wait:.0%}")
        left = remaining(self._stop, at, self._first)
        if left is not None:
            parts.append(f"{clock(left[0])} left ({left[1]})")
        return "; ".join(part for part in parts if part)

    # --- files --------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        rows = sorted([*self._logs, *self._validations], key=lambda row: (row["step"], row["kind"]))
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        self._storage.write(HISTORY, text.encode(), content_type="application/jsonl")
        self._pending.clear()

    def _draw(self, outcome: Outcome | None) -> None:
        """Curves and page; while the run goes on only so often that they cost little of its time."""
        if self._facts is None or (
            outcome is None and time.monotonic() - self._drawn < self._cost / _SHARE and self._drawn
        ):
            return
        began = time.monotonic()
        best = self._best()[0]
        picture = draw_curves(self._logs, self._validations, title=self._facts.name, best_step=best)
        self._storage.write(CURVES, picture)
        page = RunPage(self._facts, self._logs, self._validations, self._samples, outcome)
        self._storage.write(REPORT, page.render().encode(), content_type="text/html; charset=utf-8")
        self._drawn = time.monotonic()
        self._cost = self._drawn - began

    def _best(self) -> tuple[int, float]:
        """Step and score of the best validation; 0 and NaN if there is none."""
        best = [row for row in self._validations if row["improved"]]
        return (best[-1]["step"], best[-1]["validation/score"]) if best else (0, math.nan)

    # --- samples ------------------------------------------------------------------------------------------------------

    def _recall_samples(self, step: int) -> None:
        self._samples, self._targets = {}, set()
        for stat in list(self._storage.list(f"{SAMPLES}/")):
            folder, _, name = stat.key.removeprefix(f"{SAMPLES}/").partition("/")
            if folder.isdecimal() and 0 < int(folder) <= step:
                self._samples.setdefault(int(folder), []).append(stat.key)
            elif folder == TARGET and step:
                self._targets.add(name.rpartition(".")[0])
            elif folder.isdecimal() or folder == TARGET:
                self._storage.delete(stat.key)

    def _keep_sample(self, step: int, sample: Sample) -> None:
        """The sample and its spectrogram; of the recording too, once."""
        clips = [(str(step), sample.wave)]
        if sample.name not in self._targets:
            self._targets.add(sample.name)
            clips.append((TARGET, sample.target))
        for folder, wave in clips:
            for ending, data in (
                (".wav", encode_bytes(wave, "wav16", sample.rate)),
                (".png", sample_picture(wave, sample.rate)),
            ):
                key = f"{SAMPLES}/{folder}/{sample.name}{ending}"
                self._storage.write(key, data)
                if folder != TARGET:
                    self._samples.setdefault(step, []).append(key)

    def _thin_samples(self) -> None:
        while len(self._samples) > MOST_SAMPLES:
            for key in self._samples.pop(spare(sorted(self._samples), self._best()[0])):
                self._storage.delete(key)


def read_history(storage: Storage) -> list[Row]:
    """The rows of ``history.jsonl``; none if there is no such file. Lines that cannot be read are left out.

    Raises StorageError.
    """
    try:
        text = storage.read(HISTORY, limit=_LIMIT).decode("utf-8", "replace")
    except ObjectMissingError:
        return []
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and set(_COMMON) <= row.keys() and row["kind"] in ("log", "validation"):
            rows.append(row)
    return rows


def thinned(rows: list[Row], most: int) -> list[Row]:
    """``rows`` if they are at most ``most``; else about half as many, evenly over the steps, the latest as they were.

    Rows that are put together become one of the last one's step, with means over the steps that they stand for.
    """
    if len(rows) <= most:
        return rows
    latest = most // 8
    old, new = rows[:-latest] if latest else rows, rows[-latest:] if latest else []
    width = max(1, old[-1]["step"] // max(1, most // 2 - latest))
    made: list[Row] = []
    group: list[tuple[int, Row]] = []
    before = 0
    for row in old:
        if group and row["step"] - (group[0][1]["step"] - group[0][0]) > width:
            made.append(_together(group))
            group = []
        group.append((row["step"] - before, row))
        before = row["step"]
    return [*made, _together(group), *new]


def _together(group: Sequence[tuple[int, Row]]) -> Row:
    """One row of several, each with the number of steps that it stands for."""
    last = group[-1][1]
    if len(group) == 1:
        return last
    row = {key: last[key] for key in _COMMON}
    for name in last:
        if name not in row:
            found = [(max(width, 1), each[name]) for width, each in group if each.get(name) is not None]
            total = sum(width for width, _ in found)
            row[name] = sum(width * value for width, value in found) / total if total else None
    return row


def spare(steps: Sequence[int], best: int) -> int:
    """Which of some steps, in order, is missed least: not the first, last or best, and the one with the nearest
    neighbours."""
    inner = [place for place in range(1, len(steps) - 1) if steps[place] != best]
    return steps[min(inner, key=lambda place: (steps[place + 1] - steps[place - 1], place))]


def remaining(stop: StopConfig, at: Standing, first: Standing) -> tuple[float, str] | None:
    """Seconds to the nearest bound, and its name, at the pace since ``first``; None without a bound or a pace."""
    left: list[tuple[float, str]] = []
    if stop.minutes:
        left.append((60 * stop.minutes - at.seconds, "minutes"))
    steps = at.step - first.step
    if steps > 0 and at.seconds > first.seconds:
        pace = (at.seconds - first.seconds) / steps
        if stop.steps:
            left.append((pace * (stop.steps - at.step), "steps"))
        if stop.epochs:
            left.append((pace * (stop.epochs * at.batches_per_epoch - at.step), "epochs"))
    seconds, bound = min(left, default=(0.0, ""))
    return (max(seconds, 0.0), bound) if bound else None


def _row(kind: str, at: Standing, values: Mapping[str, float]) -> Row:
    """Numbers that JSON does not know become null."""
    plain = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
    return {"kind": kind, "step": at.step, "epoch": at.epoch, "seconds": round(at.seconds, 3), **plain}
