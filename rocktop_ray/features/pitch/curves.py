"""Arithmetic on F0 curves. Every curve is ``[frames]`` in Hz, 0 = unvoiced, at 100 frames/s; none is changed in place.

Unvoiced frames stay unvoiced through all but :func:`interpolate_unvoiced`.
"""

from __future__ import annotations

import math
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import Array

MAX_KEY = 24
"""Largest suggested key shift, in semitones."""

SCALES = MappingProxyType(
    {
        "chromatic": tuple(range(12)),
        "major": (0, 2, 4, 5, 7, 9, 11),
        "minor": (0, 2, 3, 5, 7, 8, 10),
        "harmonic-minor": (0, 2, 3, 5, 7, 8, 11),
        "melodic-minor": (0, 2, 3, 5, 7, 9, 11),
        "dorian": (0, 2, 3, 5, 7, 9, 10),
        "phrygian": (0, 1, 3, 5, 7, 8, 10),
        "lydian": (0, 2, 4, 6, 7, 9, 11),
        "mixolydian": (0, 2, 4, 5, 7, 9, 10),
        "locrian": (0, 1, 3, 5, 6, 8, 10),
        "major-pentatonic": (0, 2, 4, 7, 9),
        "minor-pentatonic": (0, 3, 5, 7, 10),
        "blues": (0, 3, 5, 6, 7, 10),
        "whole-tone": (0, 2, 4, 6, 8, 10),
    }
)
"""Semitones above the root of each scale's notes."""

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_A4_MIDI = 69


def voiced(f0: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which frames are voiced: ``[frames]``. Raises SettingsError for NaN, infinite or negative values."""
    curve = np.asarray(f0)
    if curve.ndim != 1 or not np.isfinite(curve).all() or (curve < 0).any():
        raise SettingsError("an F0 curve is [frames] of finite Hz, 0 where unvoiced", stage="pitch")
    return curve > 0


def shift(f0: npt.ArrayLike, semitones: float) -> Array:
    """The curve moved by ``semitones`` (12 to the octave, fractions allowed)."""
    return _array(np.asarray(f0, np.float64) * 2.0 ** (semitones / 12))


def interpolate_unvoiced(f0: npt.ArrayLike) -> Array:
    """Unvoiced frames on straight lines in Hz between their voiced neighbours; the outermost voiced values hold on.

    This is the dialect of the RVC of 2026, whose voices never see an unvoiced frame. Without a voiced frame the curve
    stays zero.
    """
    curve, sung = np.asarray(f0, np.float64), voiced(f0)
    if not sung.any():
        return _array(curve)
    frames = np.arange(len(curve))
    return _array(np.interp(frames, frames[sung], curve[sung]))


def median_filter(f0: npt.ArrayLike, radius: int) -> Array:
    """Each voiced frame becomes the median of the voiced frames at most ``radius`` away; radius 0 changes nothing."""
    if radius < 0:
        raise SettingsError(f"the radius of a median filter is 0 or more, not {radius}", stage="pitch")
    curve, sung = np.asarray(f0, np.float64), voiced(f0)
    result = np.zeros_like(curve)
    if sung.any():
        holes = np.pad(np.where(sung, curve, np.nan), radius, constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(holes, 2 * radius + 1)
        result[sung] = np.nanmedian(windows[sung], axis=1)
    return _array(result)


def autotune(
    f0: npt.ArrayLike,
    *,
    scale: str = "chromatic",
    root: str = "C",
    strength: float = 1.0,
    tuning_hz: float = 440.0,
) -> Array:
    """Voiced frames drawn to the nearest note of a scale.

    Nearest is meant in cents; of two notes equally near the lower is taken. ``strength`` 1 lands on the note, 0.5 half
    way (in cents), 0 changes nothing. A key shift is a separate step (:func:`shift`), done before, so that the scale is
    that of the result.

    Args:
        f0: the curve.
        scale: a name in :data:`SCALES`.
        root: its tonic: ``C`` to ``B``, with ``#`` or ``b``.
        strength: 0..1.
        tuning_hz: pitch of the A above middle C, 380..500 Hz.

    Raises SettingsError for a setting that is unknown or out of range.
    """
    if scale not in SCALES:
        raise SettingsError(f"unknown scale {scale!r}: choose one of {', '.join(SCALES)}", stage="pitch")
    if not 0 <= strength <= 1:
        raise SettingsError(f"the strength of autotune is between 0 and 1, not {strength}", stage="pitch")
    if not 380 <= tuning_hz <= 500:
        raise SettingsError(f"the tuning is between 380 and 500 Hz, not {tuning_hz}", stage="pitch")
    notes = np.sort((np.array(SCALES[scale]) + note_class(root)) % 12)
    notes = np.concatenate([notes - 12, notes, notes + 12]).astype(np.float64)
    curve, sung = np.asarray(f0, np.float64), voiced(f0)
    result = np.zeros_like(curve)
    midi = _A4_MIDI + 12 * np.log2(curve[sung] / tuning_hz)
    within = midi % 12
    nearest = np.abs(within[:, None] - notes).argmin(axis=1)
    result[sung] = curve[sung] * 2.0 ** (strength * (notes[nearest] - within) / 12)
    return _array(result)


def note_class(name: str) -> int:
    """Semitones above C, 0..11, of a note name such as ``C``, ``F#`` or ``Bb``. Raises SettingsError."""
    letter, accidental = name[:1].upper(), name[1:].replace("♯", "#").replace("♭", "b")
    if letter not in _LETTERS or accidental not in ("", "#", "b"):
        raise SettingsError(f"unknown root note {name!r}: use C to B, with # or b", stage="pitch")
    return (_LETTERS[letter] + {"": 0, "#": 1, "b": -1}[accidental]) % 12


def voiced_median(f0: npt.ArrayLike) -> float | None:
    """Median of the voiced frames in Hz; None if there is none."""
    sung = voiced(f0)
    return float(np.median(np.asarray(f0, np.float64)[sung])) if sung.any() else None


def suggest_key(
    source_f0: npt.ArrayLike, voice: float | tuple[float, float], *, octaves: bool = True, limit: int = MAX_KEY
) -> int:
    """The key shift, in semitones, that brings a take to where a voice sings.

    The rule: the distance from the take's voiced median to the voice's median, rounded to whole octaves, so that the
    take stays in the key of its accompaniment (to semitones with ``octaves=False``), and kept within ``limit``. A voice
    may be given as its range (low, high) instead: its middle, in cents, stands for the median. A take without voiced
    frames gets 0.

    Args:
        source_f0: the take's curve.
        voice: the voice's median in Hz, or its lowest and highest F0 in Hz.
        octaves: whole octaves only.
        limit: largest shift either way.

    Raises SettingsError for a voice pitch that is not positive.
    """
    low, high = (voice, voice) if isinstance(voice, int | float) else voice
    if not (0 < low <= high and math.isfinite(high)):
        raise SettingsError(f"a voice's pitch is a positive number of Hz, or (low, high), not {voice}", stage="pitch")
    median = voiced_median(source_f0)
    if median is None:
        return 0
    step = 12 if octaves else 1
    distance = 12 * math.log2(math.sqrt(low * high) / median)
    bound = limit // step * step
    return max(-bound, min(bound, step * math.floor(distance / step + 0.5)))


def _array(values: npt.NDArray[np.float64]) -> Array:
    return values.astype(np.float32)
