"""Distances between the spectra of two recordings of the same length and rate, as the literature defines them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from rocktop_ray.audio.level import from_db
from rocktop_ray.audio.mel import mel_filters
from rocktop_ray.errors import AudioError, SettingsError
from rocktop_ray.evaluate.warp import Path, warping_path
from rocktop_ray.protocols import Array

_Matrix = npt.NDArray[np.float64]
_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # FFT, hop, window
_FLOOR_DB = -80.0  # below the loudest bin of the reference
_HEARD_DB = -50.0  # below the loudest frame of the reference
_MEL_TOP_HZ = 16_000.0  # beyond it there is little to hear, and voices of 32 kHz have nothing
_LONGEST_WARP = 60_000  # frames: 10 min


def magnitudes(audio: Array, fft: int, hop: int, window: int | None = None) -> _Matrix:
    """Hann magnitude spectrogram ``[frames, fft // 2 + 1]``; frame i is centred on sample ``i * hop``."""
    window = window or fft
    shape = np.zeros(fft)
    shape[(fft - window) // 2 : (fft + window) // 2] = np.hanning(window + 1)[:-1]
    padded = np.pad(np.asarray(audio, np.float64), fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, fft)[::hop]
    # Some frames at a time: the windowed copies of a long take would fill the memory.
    parts = [np.abs(np.fft.rfft(frames[at : at + 2048] * shape, axis=1)) for at in range(0, len(frames), 2048)]
    return np.concatenate(parts)


def log_spectral_distance(a: Array, b: Array) -> float:
    """Mean over frames of the RMS over bins of the difference of the dB spectra (Gray and Markel 1976), in dB.

    Hann 2048, hop 512; both are floored 80 dB below the loudest bin of ``a``. Frames in which both lie at the floor do
    not count. Raises AudioError if the lengths differ or ``a`` is silent.
    """
    _check_pair(a, b)
    spectrum_a, spectrum_b = magnitudes(a, 2048, 512), magnitudes(b, 2048, 512)
    floor = spectrum_a.max() * from_db(_FLOOR_DB)
    heard = np.maximum(spectrum_a, spectrum_b).max(axis=1) > floor
    difference = 20 * np.log10(np.maximum(spectrum_a, floor) / np.maximum(spectrum_b, floor))[heard]
    return float(np.sqrt(np.mean(difference**2, axis=1)).mean())


def multi_resolution_stft_distance(a: Array, b: Array) -> float:
    """Spectral convergence plus L1 distance of log magnitudes, averaged over three STFTs (Yamamoto et al. 2020).

    The settings are those of Parallel WaveGAN: FFT 1024, 2048, 512; hop 120, 240, 50; Hann window 600, 1200, 240.
    ``a`` is the reference. Raises AudioError if the lengths differ or ``a`` is silent.
    """
    _check_pair(a, b)
    total = 0.0
    for fft, hop, window in _RESOLUTIONS:
        reference, other = magnitudes(a, fft, hop, window), magnitudes(b, fft, hop, window)
        convergence = np.linalg.norm(reference - other) / np.linalg.norm(reference)
        logs = np.abs(np.log(np.maximum(reference, 1e-7)) - np.log(np.maximum(other, 1e-7))).mean()
        total += float(convergence + logs)
    return total / len(_RESOLUTIONS)


def mel_cepstrum(audio: Array, rate: int, order: int = 13) -> tuple[_Matrix, _Matrix]:
    """Mel cepstrum ``[frames, order]`` (without the 0th) and level in dB ``[frames]``, 100 frames/s.

    The cosine series of the log amplitudes of 80 Slaney mel bands from 0 to 8 kHz (or half the rate), Hann window of
    about 46 ms: ``log A = c0 + sum of c_m cos(m w)``, the convention of the distortion's formula.
    """
    fft = _window(rate)
    spectrum = magnitudes(audio, fft, max(1, rate // 100))
    bands = mel_filters(rate, fft, 80, 0.0, min(8_000.0, rate / 2), htk=False).astype(np.float64)
    mel = spectrum @ bands.T
    cepstrum = dct(np.log(np.maximum(mel, 1e-9)), axis=1)[:, 1 : order + 1] / mel.shape[1]
    return cepstrum, 10 * np.log10(np.maximum(np.square(spectrum).sum(axis=1), 1e-20))


def log_mel_distance(a: Array, b: Array, rate: int) -> float:
    """Mean over frames and bands of the absolute difference of mel spectra in dB. Lower is better.

    The mel-spectrogram error by which vocoders are validated (Kong et al. 2020), in dB of amplitude: 80 Slaney bands
    from 0 to 16 kHz (or half the rate), Hann window of about 46 ms, 100 frames/s. Frame i is compared with frame i,
    level counts. Both are floored 80 dB below the loudest value of ``a``, so that silence is compared as one hears it.
    Raises AudioError if the lengths differ or ``a`` is silent.
    """
    _check_pair(a, b)
    fft = _window(rate)
    bands = mel_filters(rate, fft, 80, 0.0, min(_MEL_TOP_HZ, rate / 2), htk=False).astype(np.float64)
    first, second = (magnitudes(audio, fft, max(1, rate // 100)) @ bands.T for audio in (a, b))
    floor = first.max() * from_db(_FLOOR_DB)
    return float(np.abs(20 * np.log10(np.maximum(first, floor) / np.maximum(second, floor))).mean())


def align_takes(a: Array, b: Array, rate: int) -> Path:
    """Frames of ``a`` and ``b``, 100/s, that belong together: dynamic time warping of their mel cepstra.

    Raises AudioError if one is silent, SettingsError to warp more than 10 minutes.
    """
    for name, audio in (("reference", a), ("other", b)):
        if not np.any(audio):
            raise AudioError(f"the {name} is silent; there is nothing to align")
        if len(audio) > _LONGEST_WARP * rate // 100:
            raise SettingsError(f"time warping compares at most {_LONGEST_WARP // 6000} min; cut the takes")
    return warping_path(mel_cepstrum(a, rate)[0], mel_cepstrum(b, rate)[0])


def mel_cepstral_distortion(
    a: Array, b: Array, rate: int, *, warp: bool = False, path: Path | None = None, order: int = 13
) -> float:
    """Mel cepstral distortion in dB (Kubichek 1993). Lower is better.

    The mean over frames of ``10 / ln 10 * sqrt(2 * sum over d of (a_d - b_d)^2)``. The 0th coefficient, the level, is
    left out. Only frames of ``a`` within 50 dB of its loudest count.

    Args:
        a: the reference.
        b: the other.
        rate: Hz of both.
        warp: align the frames by dynamic time warping first (MCD-DTW); else frame i is compared with frame i.
        path: an alignment already made by ``align_takes``, in place of ``warp``.
        order: coefficients.

    Raises AudioError if ``a`` is silent, or the lengths differ and are not warped; SettingsError as ``align_takes``.
    """
    if warp and path is None:
        path = align_takes(a, b, rate)
    if path is None:
        _check_pair(a, b)
    elif not np.any(a):
        raise AudioError("the reference is silent; there is nothing to compare")
    first, level = mel_cepstrum(a, rate, order)
    second, _ = mel_cepstrum(b, rate, order)
    rows, columns = path if path is not None else (np.arange(len(first)), np.arange(len(first)))
    heard = level[rows] > level.max() + _HEARD_DB
    difference = first[rows[heard]] - second[columns[heard]]
    return float((10 / np.log(10) * np.sqrt(2 * np.sum(difference**2, axis=1))).mean())


def _window(rate: int) -> int:
    """The power of two next to 46 ms."""
    return 1 << round(np.log2(0.046 * rate))


def _check_pair(a: Array, b: Array) -> None:
    if a.ndim != 1 or a.shape != b.shape:
        raise AudioError(f"the two recordings must be mono and equally long, not {a.shape} and {b.shape}")
    if not np.any(a):
        raise AudioError("the reference is silent; there is nothing to compare")
