"""One take: checked, measured and read at the voice's rate, block by block."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from scipy import signal

from rocktop_ray.audio.decode import open_reader
from rocktop_ray.audio.highpass import CUTOFF
from rocktop_ray.audio.level import from_db, to_db
from rocktop_ray.audio.meter import CLIPPED
from rocktop_ray.audio.mono import MonoMeter, to_mono
from rocktop_ray.audio.resample import StreamResampler
from rocktop_ray.errors import AudioError
from rocktop_ray.protocols import Array
from rocktop_ray.store.local import LocalStorage
from rocktop_ray.store.storage import Storage
from train_loops.dataset.config import DatasetConfig
from train_loops.dataset.slices import FrameLevels, Span, plan_slices


class RejectedTakeError(AudioError):
    """A recording that can be read, but not learned from; ``reason`` is one of REASONS."""

    code = "rejected_take"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


REASONS = ("unreadable", "low_rate", "too_short", "silent", "clipped", "no_slices", "duplicate")
"""Why a take is not in a dataset."""


@dataclass(frozen=True)
class TakeFacts:
    """What a dataset knows of a take that it keeps."""

    content: str
    """SHA-256 of the decoded take, mono at the voice's rate: two files of the same sound have the same."""
    seconds: float
    rate: int
    """Hz of the recording."""
    channels: int
    channel: int | None
    """The channel that was taken; None for the mean (see ``audio.mono``)."""
    samples: int
    """At the voice's rate."""
    peak_dbfs: float
    level_dbfs: float
    """RMS of what sounds."""
    clipped: int
    """Samples within runs of three or more at full scale."""
    spans: list[Span]
    """The slices, in samples at the voice's rate."""
    short: int
    silent: int
    """Slices that were left out, see ``slices.Slices``."""
    notes: list[str]
    """What is not wrong, but worth a look."""


def scan_take(file: Path, config: DatasetConfig) -> TakeFacts:
    """Reads a recording once (twice with several channels), in bounded memory.

    Raises AudioError if it cannot be read, RejectedTakeError if it should not be learned from.
    """
    with open_reader(file) as reader:
        info = reader.info
        if info.rate < config.min_rate:
            raise RejectedTakeError(
                "low_rate", f"{file.name} was recorded at {info.rate} Hz; at least {config.min_rate} are wanted"
            )
        meter = MonoMeter(info.channels)
        if info.channels > 1:
            for block in reader:
                meter.add(block)
    sha, levels, clipping = hashlib.sha256(), FrameLevels(config.rate), _Clipping()
    highpass = Highpass(config.rate) if config.highpass else None
    peak = 0.0
    for block in raw_blocks(file, config.rate, meter.channel, clipping):
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        sha.update(block.astype("<f4").tobytes())
        levels.add(highpass(block) if highpass else block)
    samples, seconds = levels.samples, levels.samples / config.rate
    if seconds < config.min_seconds:
        raise RejectedTakeError("too_short", f"{file.name} has {seconds:.2f} s; at least {config.min_seconds:g} wanted")
    if clipping.count > config.max_clipped * clipping.total:
        share = clipping.count / clipping.total
        raise RejectedTakeError("clipped", f"{file.name} is clipped: {share:.2%} of its samples stand at full scale")
    frames = levels.levels()
    sounding = frames[frames >= from_db(config.threshold_db)]
    if not len(sounding):
        raise RejectedTakeError("silent", f"{file.name} is silent: nothing in it reaches {config.threshold_db:g} dBFS")
    slices = plan_slices(frames, samples, config)
    if not slices.spans:
        raise RejectedTakeError("no_slices", f"{file.name} has no slice of {config.min_slice_seconds:g} s that sounds")
    notes = []
    if info.rate < config.rate:
        notes.append(f"recorded at {info.rate} Hz: nothing above {info.rate // 2} Hz to learn from")
    if meter.channel is not None:
        notes.append(f"channels in opposite phase: only channel {meter.channel + 1} was taken")
    if peak > 1:
        notes.append(f"peaks at {to_db(peak):+.1f} dBFS")
    return TakeFacts(
        content=sha.hexdigest(),
        seconds=round(seconds, 4),
        rate=info.rate,
        channels=info.channels,
        channel=meter.channel,
        samples=samples,
        peak_dbfs=round(to_db(peak), 2),
        level_dbfs=round(to_db(float(np.sqrt(np.mean(sounding**2)))), 2),
        clipped=clipping.count,
        spans=slices.spans,
        short=slices.short,
        silent=slices.silent,
        notes=notes,
    )


class Highpass:
    """RVC's filter before training: Butterworth of order 5 at 48 Hz, causal, from silence; block by block."""

    def __init__(self, rate: int) -> None:
        # Sections, not one quotient: at 48 Hz its poles lie too close together.
        self._sections = signal.butter(5, CUTOFF, btype="high", fs=rate, output="sos")
        self._state = np.zeros((len(self._sections), 2))

    def __call__(self, block: Array) -> Array:
        """``[n]`` -> ``[n]``, float32."""
        if not len(block):  # the resampler keeps its first blocks; SciPy takes no empty ones
            return block
        filtered, self._state = signal.sosfilt(self._sections, block.astype(np.float64), zi=self._state)
        return np.asarray(filtered, np.float32)


class _Clipping:
    """Counts samples that stand, in a row of three or more, at full scale; of all channels."""

    def __init__(self) -> None:
        self.count = self.total = 0
        self._last: np.ndarray | None = None

    def add(self, block: Array) -> None:
        self.total += block.size
        full = np.abs(block) >= CLIPPED
        if self._last is not None:
            full = np.concatenate([self._last, full])
        self._last = full[-2:]
        if full.any():
            self.count += int((full[:-2] & full[1:-1] & full[2:]).sum())


def raw_blocks(file: Path, rate: int, channel: int | None, clipping: _Clipping | None = None) -> Iterator[Array]:
    """The take as mono blocks ``[n]`` at ``rate`` (soxr VHQ)."""
    with open_reader(file) as reader:
        resampler = StreamResampler(reader.info.rate, rate)
        for block in reader:
            if clipping is not None:
                clipping.add(block)
            yield resampler.push(to_mono(block, channel))
        yield resampler.finish()


class TakeWindow:
    """Stretches of a take at the voice's rate, filtered, in order: only what is asked for is held."""

    def __init__(self, file: Path, facts: TakeFacts, config: DatasetConfig) -> None:
        self._blocks = raw_blocks(file, config.rate, facts.channel)
        self._highpass = Highpass(config.rate) if config.highpass else None
        self._held: list[Array] = []
        self._begin = self._end = 0
        self._samples = facts.samples

    def read(self, start: int, stop: int) -> Array:
        """Samples ``start .. stop``; what lies before or after the take is mirrored at its ends.

        ``start`` must not be before that of the last call. Raises AudioError if the take ends too early.
        """
        first, last = max(start, 0), min(stop, self._samples)
        while self._end < last:
            block = next(self._blocks, None)
            if block is None:
                raise AudioError("the take became shorter while it was read; run again")
            # The filter has a memory: what is not needed goes through it, too.
            block = self._highpass(block) if self._highpass else block
            self._held.append(block)
            self._end += len(block)
            while self._held and self._begin + len(self._held[0]) <= first:
                self._begin += len(self._held.pop(0))
        audio = np.concatenate(self._held)[first - self._begin : last - self._begin]
        before, after = first - start, stop - last
        return np.pad(audio, (before, after), mode="reflect") if before or after else audio

    def close(self) -> None:
        """Let the file go."""
        self._blocks.close()  # type: ignore[attr-defined]


@contextmanager
def local_file(source: Storage, key: str) -> Iterator[Path]:
    """The recording as a file of this machine. Raises ObjectMissingError, StorageError."""
    if isinstance(source, LocalStorage):
        source.stat(key)  # it is there, and does not lead out of the folder
        yield source.root / key
        return
    with tempfile.TemporaryDirectory(prefix="rocktop-take-") as folder:
        path = Path(folder, PurePosixPath(key).name)
        source.get_file(key, path)
        yield path
