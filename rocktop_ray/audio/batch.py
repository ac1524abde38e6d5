"""The same work on every recording of a folder tree: kept apart by file, resumable, in several processes.

What is finished is noted, one JSON line per file, in ``.rocktop-batch.jsonl`` in the target folder: with the settings,
size and time of the source, and the size of the result. A file is skipped when all of these still hold.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from rocktop_ray.errors import AudioError, RocktopError, SettingsError, storage_errors

JOURNAL = ".rocktop-batch.jsonl"
AUDIO_SUFFIXES = frozenset(
    "." + ending
    for endings in (
        "wav wave w64 rf64 bwf flac aif aiff aifc caf au snd voc",
        "ogg oga opus mp3 mp2 m4a m4b aac wma amr ape wv tta ac3",
        "mp4 mov webm mkv mka 3gp avi mpg mpeg",
    )
    for ending in endings.split()
)
"""Endings of files that are taken for recordings."""

Work = Callable[[Path, Path], object]
"""Reads the first path, writes the second. Must be picklable for several processes."""


@dataclass
class BatchReport:
    """What became of the files; paths as found."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    """Finished by an earlier run."""
    failed: list[tuple[Path, RocktopError]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    """Not recordings, by their ending."""

    @property
    def total(self) -> int:
        """Recordings found."""
        return len(self.done) + len(self.skipped) + len(self.failed)

    def raise_for_failures(self) -> None:
        """Raises AudioError if a file failed."""
        if self.failed:
            raise AudioError(f"{len(self.failed)} of {self.total} files failed; the others are done")


def find_recordings(folder: Path) -> tuple[list[Path], list[Path]]:
    """All recordings under a folder, and all other files, sorted; hidden files and folders are passed over."""
    recordings: list[Path] = []
    others: list[Path] = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(root, name)
                (recordings if path.suffix.lower() in AUDIO_SUFFIXES else others).append(path)
    return recordings, others


def plan(source: Path, target: Path, suffix: str) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Pairs of source and target files, and the files that are passed over.

    A folder tree keeps its shape under ``target``; names get the ending ``suffix``. Where two files differ only by
    their ending, both keep it before the new one. A single file goes to ``target`` or, if that is a folder, into it.

    Raises AudioError if there is nothing to do, SettingsError if a file would be written over its source.
    """
    if source.is_dir():
        here, there = source.resolve(), target.resolve()
        if here == there:
            raise SettingsError(f"the results cannot go into the folder they come from ({source}); name another")
        recordings, others = find_recordings(source)
        if there.is_relative_to(here):
            recordings = [path for path in recordings if not path.resolve().is_relative_to(there)]
            others = [path for path in others if not path.resolve().is_relative_to(there)]
        if not recordings:
            raise AudioError(f"there are no recordings in {source}", stage="input")
        plain = [path.with_suffix(suffix) for path in recordings]
        twice = {path for path in plain if plain.count(path) > 1} if len(set(plain)) < len(plain) else set()
        names = [
            path.with_name(path.name + suffix) if wanted in twice else wanted
            for path, wanted in zip(recordings, plain, strict=True)
        ]
        return [(path, target / name.relative_to(source)) for path, name in zip(recordings, names, strict=True)], others
    if not source.exists():
        raise AudioError(f"there is no file or folder {source}", stage="input")
    result = target / f"{source.stem}{suffix}" if target.is_dir() else target
    if result.resolve() == source.resolve():
        raise SettingsError(f"{source} cannot be written over itself; name another target")
    return [(source, result)], []


def run_batch(
    source: Path,
    target: Path,
    work: Work,
    settings: Mapping[str, object],
    *,
    suffix: str = ".wav",
    jobs: int = 1,
    on_progress: Callable[[int, int, Path], None] | None = None,
) -> BatchReport:
    """Does ``work(file, result)`` for every recording of ``source`` that is not done yet; see plan for the names.

    Args:
        source: a folder, or one file.
        target: where the results go.
        work: a RocktopError that it raises is kept in the report, and the next file follows.
        settings: plain data that tells this work from others, for resuming.
        suffix: ending of the results.
        jobs: processes.
        on_progress: called with the files finished, all files, and the one just finished.

    Raises AudioError, SettingsError (see plan), StorageError.
    """
    if jobs < 1:
        raise SettingsError(f"at least one process is needed, not {jobs}")
    pairs, others = plan(source, target, suffix)
    report = BatchReport(others=others)
    # One file is done again each time: no journal is left in a folder that is not ours.
    journal = _Journal(target, settings) if source.is_dir() else None
    waiting = []
    for file, result in pairs:
        if journal is not None and journal.holds(file, result):
            report.skipped.append(file)
        else:
            waiting.append((file, result))
    with _runner(work, min(jobs, len(waiting))) as run:
        for file, result, error in run(waiting):
            if error is None:
                report.done.append(file)
                if journal is not None:
                    journal.note(file, result)
            else:
                report.failed.append((file, error))
            if on_progress is not None:
                on_progress(report.total, len(pairs), file)
    report.done.sort()
    report.failed.sort(key=lambda entry: entry[0])
    return report


_Outcome = Iterator[tuple[Path, Path, RocktopError | None]]


@contextmanager
def _runner(work: Work, jobs: int) -> Iterator[Callable[[list[tuple[Path, Path]]], _Outcome]]:
    """A function that yields each pair when it is finished, with its error."""
    if jobs <= 1:
        yield lambda pairs: ((file, result, _attempt(work, file, result)) for file, result in pairs)
        return
    # A fresh interpreter for each process: forking one that has threads is not safe.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:

        def run(pairs: list[tuple[Path, Path]]) -> _Outcome:
            running: dict[Future[RocktopError | None], tuple[Path, Path]] = {
                pool.submit(_attempt, work, file, result): (file, result) for file, result in pairs
            }
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield (*running.pop(future), future.result())

        try:
            yield run
        except BrokenProcessPool as error:
            raise RocktopError(
                "a process died (out of memory?); run again, with fewer --jobs", stage="audio"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _attempt(work: Work, file: Path, result: Path) -> RocktopError | None:
    try:
        work(file, result)
    except RocktopError as error:
        return error
    return None


class _Journal:
    """The finished files of a target folder."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self._path = folder / JOURNAL
        self._settings = dict(settings)
        self._entries: dict[str, object] = {}
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lines = self._path.read_text("utf-8", errors="replace").splitlines() if self._path.exists() else []
        for line in lines:
            try:
                entry = json.loads(line)
                self._entries[entry["result"]] = entry
            except (ValueError, KeyError, TypeError):
                continue  # a line that a killed process did not finish

    def holds(self, file: Path, result: Path) -> bool:
        entry = self._entries.get(self._name(result))
        return entry is not None and result.is_file() and entry == self._entry(file, result)

    def note(self, file: Path, result: Path) -> None:
        line = json.dumps(self._entry(file, result)) + "\n"
        with storage_errors(self._path), self._path.open("a", encoding="utf-8") as stream:
            stream.write(line)

    def _name(self, result: Path) -> str:
        return result.relative_to(self._path.parent).as_posix()

    def _entry(self, file: Path, result: Path) -> dict[str, object]:
        with storage_errors(file):
            source, made = file.stat(), result.stat()
        return {
            "result": self._name(result),
            "settings": self._settings,
            "source": [str(file.resolve()), source.st_size, source.st_mtime_ns],
            "bytes": made.st_size,
        }
