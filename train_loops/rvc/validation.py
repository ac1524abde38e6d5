"""Judging a voice, while it learns, on takes that it does not learn from.

The score is a distance between conversion and recording: each held-out slice is sung in the generator's way of
conversion (prior encoder, flow backwards, decoder) from its own units and F0, and compared with what was recorded by
``evaluate.spectra.log_mel_distance``, in dB, averaged over frames. The losses do not decide. Those of networks that
play against each other tell who is ahead, not how good the voice is; the mel loss hears the posterior encoder, which
has seen the recording and takes no part in conversion. They are reported beside it.

Every validation of a run, resumed or not, hears the same slices with the same draws, so that two of them differ by the
weights only. Draws and temperature are those of a conversion with default settings.
"""

from __future__ import annotations

import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch

from rocktop_ray.config.training import ValidationConfig
from rocktop_ray.errors import AudioError, TrainingError, VoiceFormatError
from rocktop_ray.evaluate.instruments import Instruments, build_instruments
from rocktop_ray.evaluate.measures import values_of
from rocktop_ray.evaluate.pair import evaluate_pair
from rocktop_ray.evaluate.spectra import log_mel_distance
from rocktop_ray.features.pitch import curves
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.noise import SeededNoise
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from train_loops.dataset.reader import Dataset
from train_loops.rvc.batches import collate
from train_loops.rvc.callbacks import Sample, ValidationResult
from train_loops.rvc.examples import Preparation, Prepared, from_slice
from train_loops.rvc.export import trained_voice
from train_loops.rvc.held_out import choose
from train_loops.rvc.losses import Counts
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.step import AdversarialStep

METRICS = ("f0", "speaker", "mcd", "stft")
"""Of ``evaluate.choices``, on the samples."""

REPORTED = (
    "f0_rmse_cents",
    "f0_median_cents",
    "f0_correlation",
    "voicing_f1",
    "speaker_to_target",
    "mcd_db",
    "mr_stft",
    "loudness_change_lu",
)
"""Of ``evaluate.measures``: what they find, where they can."""

_STEP = 0
"""Of the losses' draws."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Sung:
    """A slice as recorded and as converted."""

    prepared: Prepared
    wave: Array
    """``[frames * hop]``"""

    @property
    def target(self) -> Array:
        """The recording, of the same shape."""
        return self.prepared.wave.numpy()


class Validator:
    """Scores a voice on held-out slices; the same ones every time.

    Args:
        recipe: of the run.
        held_out: ``Dataset.held_out``.
        config: how many slices, and how many of them are kept as samples.
        content_name: name of the content units in the dataset.

    Raises TrainingError if the dataset does not fit the recipe or holds no slice that is long enough.
    """

    def __init__(self, recipe: Recipe, held_out: Dataset, config: ValidationConfig, *, content_name: str) -> None:
        rate = held_out.manifest.config.rate
        if rate != recipe.synthesizer.sample_rate:
            raise TrainingError(f"the dataset is at {rate} Hz, the voice at {recipe.synthesizer.sample_rate} Hz")
        self.recipe, self.config, self.content_name = recipe, config, content_name
        self._held_out, self._preparation = held_out, Preparation(recipe)
        self.slices = choose(held_out, config.slices, shortest=recipe.segment_frames)
        """Numbers of the slices in ``held_out``, in the order in which they are heard; samples come first."""
        if not self.slices:
            raise TrainingError(
                f"no held-out slice has {recipe.segment_frames} frames of 10 ms: nothing to validate on"
            )
        frames = np.minimum(held_out.frames[self.slices], recipe.max_frames)
        self._counts = Counts(len(frames), int(frames.sum()))
        self._names = [_file_name(number, held_out, index) for number, index in enumerate(self.slices, 1)]
        self._instruments: Instruments | None = None

    def run(self, step: AdversarialStep) -> ValidationResult:
        """Score the weights as they are now, one slice after the other; nothing of the run is changed by it.

        Metrics: ``validation/score``, ``validation/<loss>`` as ``AdversarialStep.measure`` names them over all
        slices, and the means of ``evaluate.measures`` over the samples. Numbers that are not finite are left out. Of
        several singers there is one more sample: another's slice, sung by the first one, transposed into that one's
        range.

        Raises TrainingError if the voice sings numbers that are not finite, or if a slice does not fit the recipe.
        """
        losses: dict[str, float] = defaultdict(float)
        distances: list[float] = []
        weights: list[int] = []
        kept: list[_Sung] = []
        with _undisturbed(step):
            voice = _voice(step, self.content_name)
            for number in range(len(self.slices)):
                prepared = self._prepared(number)
                for name, value in self._losses(step, prepared, number).items():
                    losses[name] += value
                f0 = None if prepared.f0 is None else prepared.f0.numpy()
                sung = _Sung(prepared, self._converted(voice, prepared, f0, prepared.speaker, number))
                try:
                    distances.append(log_mel_distance(sung.target, sung.wave, self._rate))
                    weights.append(prepared.frames)
                except AudioError:  # a recording of zeros: nothing to compare with
                    log.debug("%s is silent", self._names[number])
                if number < self.config.samples:
                    kept.append(sung)
            if not weights:
                raise TrainingError("every held-out slice is silent: nothing to validate on")
            score = float(np.average(distances, weights=weights))
            measured = self._measured(kept) if self.config.metrics else {}
            samples = [self._sample(name, sung) for name, sung in zip(self._names, kept, strict=False)]
            if samples:
                samples += self._across(voice)
        metrics = {
            "score": score,
            **{name: value for name, value in losses.items() if math.isfinite(value)},
            **measured,
        }
        return ValidationResult(score, {f"validation/{name}": value for name, value in metrics.items()}, tuple(samples))

    @property
    def _rate(self) -> int:
        return self.recipe.synthesizer.sample_rate

    def _prepared(self, number: int) -> Prepared:
        return self._preparation.prepare(from_slice(self._held_out[self.slices[number]]))

    def _losses(self, step: AdversarialStep, prepared: Prepared, number: int) -> dict[str, float]:
        """What a slice adds to the losses of one batch of all slices."""
        batch = collate([prepared], [number]).to(step.device)
        return step.measure([batch], step=_STEP, counts=self._counts)

    def _converted(self, voice: RvcVoice, prepared: Prepared, f0: Array | None, speaker: int, number: int) -> Array:
        """``[frames * hop]``, with default settings."""
        settings, units = ConvertSettings(), prepared.units.numpy()
        noise = SeededNoise(settings.seed)
        latent = voice.latent(units, f0, speaker=speaker, temperature=settings.temperature, noise=noise)
        wave = voice.wave(latent, f0, speaker=speaker, noise=noise)
        if not np.isfinite(wave).all():
            raise _diverged(f"the voice sings values that are not finite numbers ({self._names[number]})")
        return wave

    def _measured(self, kept: Sequence[_Sung]) -> dict[str, float]:
        """Objective metrics of conversion against recording, averaged over the samples that allow each."""
        if self._instruments is None:
            self._instruments = build_instruments(METRICS)
            for name, why in self._instruments.missing.items():
                log.info("validation leaves out %s: %s", name, why)
        found: dict[str, list[float]] = defaultdict(list)
        for sung in kept:
            report = evaluate_pair(
                sung.target,
                sung.wave,
                self._rate,
                metrics=METRICS,
                key=0.0,
                target=sung.target,
                instruments=self._instruments,
            )
            for name, value in values_of(report).items():
                if name in REPORTED:
                    found[name].append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _sample(self, name: str, sung: _Sung) -> Sample:
        f0 = sung.prepared.f0
        return Sample(name, self._rate, sung.wave, sung.target, None if f0 is None else f0.numpy())

    def _across(self, voice: RvcVoice) -> list[Sample]:
        """A slice of another singer, sung by the singer of the first slice; none if there is one singer only."""
        singers = self._held_out.speaker_numbers[self.slices]
        others = np.flatnonzero(singers != singers[0])
        if not others.size:
            return []
        number, singer = int(others[0]), int(singers[0])
        prepared, own = self._prepared(number), self._prepared(0)
        f0 = None
        if prepared.f0 is not None and own.f0 is not None:
            f0 = prepared.f0.numpy()
            voiced = own.f0.numpy()[own.f0.numpy() > 0]
            if voiced.size:
                f0 = curves.shift(f0, curves.suggest_key(f0, float(np.median(voiced))))
        wave = self._converted(voice, prepared, f0, singer, number)
        name = f"{self._names[number]}-by-{_plain(self._held_out.speakers[singer])}"
        return [Sample(name, self._rate, wave, prepared.wave.numpy(), f0)]


def validator_for(recipe: Recipe, dataset: Dataset, config: ValidationConfig, *, content_name: str) -> Validator | None:
    """A validator on what ``dataset`` holds out, None if the run goes without; the log says why.

    Without one the score of a run is unknown: it ends by its bounds, and its last weights are its best. Slices that the
    voice learns from are never a replacement: a voice that knows them by heart scores best on them.

    Raises TrainingError if the dataset does not fit the recipe.
    """
    held_out, why = dataset.held_out, ""
    if not config.every_steps:
        why = "validation.every_steps is 0"
    elif not len(held_out):
        why = "nothing is held out: " + (
            "validation.share is 0" if not config.share else "no singer has two takes, or one of more than a minute"
        )
    elif not choose(held_out, 1, shortest=recipe.segment_frames):
        why = f"no held-out slice has {recipe.segment_frames} frames of 10 ms"
    if not why:
        return Validator(recipe, held_out, config, content_name=content_name)
    log.warning("this run is not validated (%s): it has no early stop, and its last weights count as its best", why)
    return None


@contextmanager
def _undisturbed(step: AdversarialStep) -> Iterator[None]:
    """Networks judge instead of learning within, and torch's generators end as they were."""
    networks = (step.generator, step.discriminator)
    devices = [step.device] if step.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            for network in networks:
                network.eval()
            yield
        finally:
            for network in networks:
                network.train()


def _voice(step: AdversarialStep, content_name: str) -> RvcVoice:
    """The network that the exported voice will be, in memory."""
    file = trained_voice(step, epochs=0, content_name=content_name)
    try:
        return RvcVoice(file.config, file.state, content_name=file.content_name, device=step.device)
    except VoiceFormatError as error:  # weights that are not finite: all else is as the recipe has it
        raise _diverged(error.message) from error


def _diverged(what: str) -> TrainingError:
    return TrainingError(
        f"{what}: training diverged; go on from an earlier checkpoint with a smaller learning_rate, or look for broken "
        "examples"
    )


def _file_name(number: int, held_out: Dataset, index: int) -> str:
    singer = held_out.speakers[int(held_out.speaker_numbers[index])]
    take = PurePosixPath(held_out.takes[index]).stem
    return f"{number:02d}-{_plain(singer)}-{_plain(take)}"


def _plain(text: str) -> str:
    """At most 40 letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")[:40] or "x"
