"""A picture of a conversion: waveform and spectrogram of source and result, F0 of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from rocktop_ray.errors import storage_errors
from rocktop_ray.protocols import FRAME_RATE, Array

_FFT = 2048
_FLOOR_DB = -80.0


def spectrogram_db(audio: Array) -> Array:
    """Magnitude spectrogram ``[1025, frames]`` in dB below its own peak, Hann 2048, floor -80 dB."""
    hop = max(_FFT // 4, len(audio) // 1600)
    padded = np.pad(audio, (0, max(_FFT - len(audio), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::hop] * np.hanning(_FFT)
    magnitude = np.abs(np.fft.rfft(frames, axis=1)).T
    return np.maximum(20 * np.log10(magnitude / max(magnitude.max(), 1e-9) + 1e-9), _FLOOR_DB).astype(np.float32)


def draw_conversion(
    path: Path,
    source: Array,
    result: Array,
    rate: int,
    f0_source: Array | None,
    f0_result: Array | None,
    *,
    titles: tuple[str, str] = ("take", "converted"),
) -> None:
    """Write a PNG: the take on the left, the converted take on the right, both melodies below.

    Args:
        source, result: mono ``[samples]`` at ``rate``.
        f0_source, f0_result: Hz at 100/s, 0 = unvoiced, measured on each; None without the melodies.

    Raises StorageError if the picture cannot be written.
    """
    figure = Figure(figsize=(14, 9), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    melodies = f0_source is not None and f0_result is not None
    rows: Any = [["wave0", "wave1"], ["spec0", "spec1"], ["f0", "f0"]]
    shown = 3 if melodies else 2
    axes = figure.subplot_mosaic(rows[:shown], height_ratios=[1, 2.4, 1.8][:shown], sharex=True)
    for column, (title, audio) in enumerate(zip(titles, (source, result), strict=True)):
        seconds = len(audio) / rate
        step = max(1, len(audio) // 6000)
        wave = axes[f"wave{column}"]
        wave.plot(np.arange(0, len(audio), step) / rate, audio[::step], linewidth=0.4, color=f"C{column}")
        wave.set(title=title, ylim=(-1, 1), ylabel="amplitude")
        spec = axes[f"spec{column}"]
        image = spectrogram_db(audio)
        spec.imshow(image, origin="lower", aspect="auto", extent=(0, seconds, 0, rate / 2000), cmap="magma")
        spec.set(ylabel="kHz", ylim=(0, min(16, rate / 2000)))
    if f0_source is not None and f0_result is not None:
        _draw_melodies(axes["f0"], titles, f0_source, f0_result)
    with storage_errors(path):
        canvas.print_png(str(path))


def _draw_melodies(axis: Axes, titles: tuple[str, str], f0_source: Array, f0_result: Array) -> None:
    for name, f0, style in zip(titles, (f0_source, f0_result), ("C0", "C1"), strict=True):
        axis.plot(np.arange(len(f0)) / FRAME_RATE, np.where(f0 > 0, f0, np.nan), style, label=name, linewidth=1.2)
    axis.set(xlabel="seconds", ylabel="F0, Hz")
    if np.any(f0_source > 0) or np.any(f0_result > 0):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(ScalarFormatter())
        axis.yaxis.set_minor_formatter(ScalarFormatter())
    axis.legend(loc="upper right")
