"""Formant shift of a take: another vocal tract under the same melody.

The spectral envelope comes from WORLD's CheapTrick (Morise 2015), which adapts its smoothing to F0 and so does not
follow single harmonics. A short-time Fourier filter then multiplies every frame by the ratio of the stretched envelope
to the original one. Phases and harmonics stay where they are: F0 and timing are those of the take.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyworld

from rocktop_ray.errors import AudioError, SettingsError
from rocktop_ray.protocols import Array

MAX_SEMITONES = 24.0
_HOP_SECONDS = 0.005
_WINDOW_HOPS = 6
_BATCH = 256
_F0_FLOOR, _F0_CEILING = 60.0, 1100.0
_MAX_GAIN = 10 ** (30 / 20)
_SILENCE = 1e-12


def shift(audio: npt.ArrayLike, rate: int, semitones: float, *, last: int | None = None) -> Array:
    """Audio ``[samples]`` at ``rate`` Hz with its formants moved by ``semitones`` -> ``[samples]``; where ``last`` is
    given only so many at the end, for which less has to be computed.

    A formant at f Hz moves to f * 2 ** (semitones / 12); positive is a smaller vocal tract. 0 returns the audio as it
    is. No frequency is raised by more than 30 dB, so that noise above the voice stays low.

    Raises AudioError for audio that is empty, not one channel or not finite; SettingsError beyond +-24 semitones.
    """
    wave = np.ascontiguousarray(audio, np.float64)
    if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all():
        raise AudioError("a formant shift needs one channel of finite audio, [samples]")
    if not abs(semitones) <= MAX_SEMITONES:
        raise SettingsError(f"a formant shift is at most {MAX_SEMITONES:g} semitones, not {semitones}")
    wanted = len(wave) if last is None else min(last, len(wave))
    skipped = len(wave) - wanted
    if semitones == 0:
        return wave[skipped:].astype(np.float32)
    hop = round(rate * _HOP_SECONDS)
    # Frames before this one do not reach the wanted samples, nor do those whose windows lack what lies before it.
    reach = pyworld.get_cheaptrick_fft_size(rate, _F0_FLOOR) // 2
    first = max(0, (skipped - reach) // hop - _WINDOW_HOPS // 2)
    envelope = _envelope(wave, rate, hop, first)
    gain = _stretched(envelope, 2.0 ** (semitones / 12)) / envelope
    return _filtered(wave[first * hop :], np.minimum(np.sqrt(gain), _MAX_GAIN), hop)[skipped - first * hop :]


def _envelope(wave: npt.NDArray[np.float64], rate: int, hop: int, first: int) -> npt.NDArray[np.float64]:
    """Power envelope ``[samples // hop + 1 - first, bins]``; frame i is at (first + i) * hop."""
    padded = np.pad(wave, (0, max(0, rate // 10 - len(wave)) + hop))
    f0, times = pyworld.dio(
        padded,
        rate,
        f0_floor=_F0_FLOOR,
        f0_ceil=_F0_CEILING,
        frame_period=1000 * hop / rate,
        speed=max(1, rate // 8000),
    )
    f0, times = f0[first : len(wave) // hop + 1], times[first : len(wave) // hop + 1]
    envelope = pyworld.cheaptrick(padded, pyworld.stonemask(padded, f0, times, rate), times, rate, f0_floor=_F0_FLOOR)
    return np.asarray(np.maximum(envelope, _SILENCE))


def _stretched(envelope: npt.NDArray[np.float64], ratio: float) -> npt.NDArray[np.float64]:
    """Each frame read at f / ratio instead of f, between bins in log power; beyond the last bin its value holds."""
    bins = envelope.shape[1]
    at = np.minimum(np.arange(bins) / ratio, bins - 1)
    below = np.minimum(at.astype(int), bins - 2)
    share = at - below
    log = np.log(envelope)
    return np.exp(log[:, below] * (1 - share) + log[:, below + 1] * share)


def _filtered(wave: npt.NDArray[np.float64], gain: npt.NDArray[np.float64], hop: int) -> Array:
    """The sum over frames of the windowed wave around i * hop, filtered (zero phase) by ``gain[i]``."""
    length = _WINDOW_HOPS * hop
    n_fft = 2 * (gain.shape[1] - 1)
    half, margin = length // 2, (n_fft - length) // 2
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    window = np.pad(hann * 2 / _WINDOW_HOPS, (margin, n_fft - length - margin))
    gain = np.pad(gain, ((_WINDOW_HOPS // 2, _WINDOW_HOPS // 2 + 1), (0, 0)), mode="edge")  # windows that reach in
    padded = np.pad(wave, (2 * half + margin, 2 * length + n_fft))
    out = np.zeros(len(padded))
    for first in range(0, len(gain), _BATCH):
        response = gain[first : first + _BATCH]
        starts = (first + np.arange(len(response))) * hop
        pieces = np.stack([padded[start : start + n_fft] for start in starts]) * window
        for start, piece in zip(starts, np.fft.irfft(np.fft.rfft(pieces) * response, n_fft), strict=True):
            out[start : start + n_fft] += piece
    return out[2 * half + margin :][: len(wave)].astype(np.float32)
