"""One training example: what a shard of a dataset holds of it, and the tensors that a step needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rocktop_ray.errors import TrainingError
from rocktop_ray.models.rvc.pitch_bins import coarse_pitch
from rocktop_ray.protocols import Array
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.spectrogram import Spectra

if TYPE_CHECKING:
    from train_loops.dataset.reader import Example as Slice


@dataclass(frozen=True, eq=False)
class Example:
    """A slice of a take with its features."""

    units: Array
    """Content units ``[n, dim]``, 50/s, any float type."""
    wave: Array
    """``[samples]`` at the voice's rate, full scale ±1."""
    f0: Array | None = None
    """``[n]`` in Hz, 100/s, 0 = unvoiced; not needed for a voice without F0."""
    speaker: int = 0
    name: str = ""
    """For messages."""


def from_slice(example: Slice) -> Example:
    """A slice of a dataset as an example; nothing is copied."""
    return Example(example.units, example.wave, example.f0, example.speaker, example.name)


@dataclass(frozen=True, eq=False)
class Prepared:
    """An example as tensors of one length in frames of 10 ms."""

    units: Tensor
    """``[frames, dim]`` float32: each content unit twice."""
    spectrogram: Tensor
    """``[bins, frames]`` float32, linear magnitudes."""
    wave: Tensor
    """``[frames * hop]`` float32."""
    f0: Tensor | None
    """``[frames]`` float32, Hz."""
    pitch: Tensor | None
    """``[frames]`` int64, coarse pitch 1 to 255."""
    speaker: int

    @property
    def frames(self) -> int:
        """Length in frames of 10 ms."""
        return self.units.shape[0]


def frames_of(units: int, samples: int, f0: int | None, recipe: Recipe) -> int:
    """Frames of an example with so many units, samples and F0 values: of the shortest, at most ``max_frames``."""
    lengths = [2 * units, samples // recipe.hop, recipe.max_frames]
    if recipe.synthesizer.uses_f0:
        lengths.append(f0 or 0)
    return min(lengths)


class Preparation:
    """Turns examples into tensors for one recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._spectra = Spectra(recipe)

    def frames(self, example: Example) -> int:
        """Length of the example in frames of 10 ms, as ``prepare`` makes it."""
        count = None if example.f0 is None else len(example.f0)
        return frames_of(len(example.units), len(example.wave), count, self.recipe)

    @torch.no_grad()
    def prepare(self, example: Example) -> Prepared:
        """Repeat the units, quantise the pitch, take the spectrogram, and cut all to the common length.

        Raises TrainingError, with the example's name, if it does not fit the recipe or is shorter than a segment.
        """
        recipe, config = self.recipe, self.recipe.synthesizer
        units, wave, f0 = example.units, example.wave, example.f0
        if units.ndim != 2 or units.shape[1] != config.content_dim:
            raise _unfit(example, f"its units have shape {units.shape}, expected [n, {config.content_dim}]")
        if wave.ndim != 1 or (f0 is not None and f0.ndim != 1):
            raise _unfit(example, "its wave and F0 must have one dimension")
        if config.uses_f0 and f0 is None:
            raise _unfit(example, "it has no F0, which this voice needs")
        if not 0 <= example.speaker < config.speakers:
            raise _unfit(example, f"speaker {example.speaker} is not one of 0 to {config.speakers - 1}")
        frames = self.frames(example)
        if frames < recipe.segment_frames:
            raise _unfit(example, f"{frames} frames of 10 ms are less than a segment of {recipe.segment_frames}")
        samples = frames * recipe.hop
        seen = torch.from_numpy(np.ascontiguousarray(wave[: samples + recipe.spectrum.n_fft], np.float32))
        doubled = np.repeat(units[: (frames + 1) // 2], 2, axis=0)[:frames].astype(np.float32)
        melody = None if f0 is None or not config.uses_f0 else np.ascontiguousarray(f0[:frames], np.float32)
        for what, values in (("wave", seen.numpy()), ("units", doubled), ("F0", melody)):
            if values is not None and not np.isfinite(values).all():
                raise _unfit(example, f"its {what} holds values that are not finite numbers")
        return Prepared(
            units=torch.from_numpy(doubled),
            spectrogram=self._spectra.linear(seen[None])[0, :, :frames],
            wave=seen[:samples],
            f0=None if melody is None else torch.from_numpy(melody),
            pitch=None if melody is None else torch.from_numpy(coarse_pitch(melody)),
            speaker=example.speaker,
        )


def _unfit(example: Example, why: str) -> TrainingError:
    return TrainingError(f"example {example.name or '(no name)'} cannot be trained on: {why}")
