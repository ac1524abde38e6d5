"""F0 from a text file, as pitch editors and annotation tools write it: lines of "time,Hz".

Times are seconds from the start of the take, ascending. Hz 0 means unvoiced. Fields are parted by a comma, semicolon,
tab or blanks. Empty lines, comments from ``#`` on and one heading line are passed over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rocktop_ray.errors import AudioError, storage_errors
from rocktop_ray.protocols import FRAME_RATE, Array

MAX_BYTES = 64 << 20
MAX_SECONDS = 24 * 3600
LOW_HZ, HIGH_HZ = 10.0, 8000.0


def read_f0_file(path: Path | str) -> Array:
    """The file's curve ``[frames]`` in Hz at 100/s, from the start of the take to the last time in the file.

    Raises AudioError with the line number for what cannot be understood, StorageError if the file cannot be read.
    """
    path = Path(path)
    with storage_errors(f"the F0 file {path}", "read", stage="pitch"), path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise AudioError(f"the F0 file {path.name} is larger than {MAX_BYTES >> 20} MiB", stage="pitch")
    try:
        return resample(*parse_f0(data.decode("utf-8-sig").splitlines()))
    except UnicodeDecodeError as error:
        raise AudioError(f"the F0 file {path.name} is not text", stage="pitch") from error
    except AudioError as error:
        raise AudioError(f"{path.name}: {error.message}", stage="pitch") from error


def parse_f0(lines: Iterable[str]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Lines of text -> times in seconds and F0 in Hz, both ``[points]``. Raises AudioError with the line number."""
    times: list[float] = []
    curve: list[float] = []
    heading = False
    for number, line in enumerate(lines, 1):
        fields = re.split(r"\s*[,;\t]\s*|\s+", line.partition("#")[0].strip())
        if fields == [""]:
            continue
        values = [_number(field) for field in fields]
        if not times and not heading and len(values) == 2 and values == [None, None]:
            heading = True
            continue
        problem = _problem(values, times[-1] if times else -math.inf)
        if problem:
            raise AudioError(f"line {number}, {line.strip()[:40]!r}: {problem}", stage="pitch")
        times.append(values[0] or 0.0)
        curve.append(values[1] or 0.0)
    if not times:
        raise AudioError("no line of time,Hz in it", stage="pitch")
    return np.array(times), np.array(curve)


def resample(times: npt.NDArray[np.float64], hz: npt.NDArray[np.float64]) -> Array:
    """Points (ascending times in seconds, Hz) -> ``[frames]`` at 100/s from time 0 to the last point.

    Between two voiced points the curve is a straight line. A frame whose nearest point is unvoiced is unvoiced; one
    between a voiced and an unvoiced point takes the value of the voiced one if that is nearer. Before the first point
    there is no voice.
    """
    at = np.arange(math.floor(times[-1] * FRAME_RATE + 1e-6) + 1) / FRAME_RATE
    after = np.clip(np.searchsorted(times, at), 0, len(times) - 1)
    before = np.clip(after - 1, 0, None)
    nearest = np.where(times[after] - at <= at - times[before], after, before)
    both = (hz[before] > 0) & (hz[after] > 0)
    result = np.where(both, np.interp(at, times, hz), hz[nearest])
    result[at < times[0] - 0.5 / FRAME_RATE] = 0
    return result.astype(np.float32)


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None


def _problem(values: list[float | None], last: float) -> str | None:
    if len(values) != 2:
        return f"expected two fields, time and Hz, found {len(values)}"
    time, hz = values
    if time is None or hz is None:
        return "expected numbers: time in seconds, F0 in Hz"
    if not 0 <= time <= MAX_SECONDS:
        return f"the time must be between 0 and {MAX_SECONDS} s"
    if time <= last:
        return f"times must ascend, the line before has {last:g}"
    if hz != 0 and not LOW_HZ <= hz <= HIGH_HZ:
        return f"F0 must be 0 (unvoiced) or between {LOW_HZ:g} and {HIGH_HZ:g} Hz"
    return None
