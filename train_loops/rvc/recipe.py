"""What a training run is made of: every setting of it, typed, with the stock values of RVC and Applio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from rocktop_ray.config.mapping import changed, listed, made
from rocktop_ray.errors import SettingsError, VoiceFormatError
from rocktop_ray.models.rvc.config import CONTENT_DIMS, SynthesizerConfig
from rocktop_ray.models.rvc.discriminator import PERIODS, DiscriminatorConfig

Precision = Literal["fp32", "bf16", "fp16"]
"""Arithmetic of the networks; weights, losses and optimizers stay float32. ``fp16`` scales its losses."""

_DILATIONS = ((1, 3, 5),) * 3
_STOCK: dict[str, tuple[int, int, int, int, tuple[int, ...], tuple[int, ...]]] = {
    # rate, window of the STFT, mel bands, segment frames, upsample rates, kernel sizes
    "v1-32k": (32_000, 1024, 80, 40, (10, 4, 2, 2, 2), (16, 16, 4, 4, 4)),
    "v1-40k": (40_000, 2048, 125, 32, (10, 10, 2, 2), (16, 16, 4, 4)),
    "v1-48k": (48_000, 2048, 128, 24, (10, 6, 2, 2, 2), (16, 16, 4, 4, 4)),
    "v2-24k": (24_000, 1024, 80, 36, (10, 6, 2, 2), (20, 12, 4, 4)),
    "v2-32k": (32_000, 1024, 80, 40, (10, 8, 2, 2), (20, 16, 4, 4)),
    "v2-40k": (40_000, 2048, 125, 32, (10, 10, 2, 2), (16, 16, 4, 4)),
    "v2-48k": (48_000, 2048, 128, 36, (12, 10, 2, 2), (24, 20, 4, 4)),
}
STOCK = tuple(_STOCK)
"""Names of the stock configurations; ``v2-24k`` is Applio's, the others RVC's (and Applio's for v2)."""


@dataclass(frozen=True)
class SpectrumConfig:
    """The spectrogram that the posterior encoder reads and the mel spectrogram that the loss compares."""

    n_fft: int = 2048
    """Samples of the Hann window and of the transform; the step is always 10 ms."""
    mel_bands: int = 128
    mel_low: float = 0.0
    """Hz at the lower edge of the lowest band."""
    mel_high: float | None = None
    """Hz at the upper edge of the highest band; none = half the rate."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, one for the generator and one for the discriminator."""

    learning_rate: float = 1e-4
    """Of the first epoch."""
    beta1: float = 0.8
    beta2: float = 0.99
    epsilon: float = 1e-9
    weight_decay: float = 0.01
    decay_per_epoch: float = 0.999875
    """Factor on the learning rate after each epoch."""


@dataclass(frozen=True)
class LossWeights:
    """Factors of the generator's losses."""

    adversarial: float = 1.0
    feature: float = 2.0
    """Of the distance between the discriminator's features."""
    mel: float = 45.0
    """Of the L1 distance between log-mel spectrograms."""
    kl: float = 1.0
    """Of the divergence between posterior and prior."""


@dataclass(frozen=True)
class Recipe:
    """A whole run. Raises SettingsError if a value is out of its range or does not go with the others."""

    synthesizer: SynthesizerConfig
    """The generator. Its ``segment_size`` is only what files say; ``segment_frames`` counts."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    spectrum: SpectrumConfig = field(default_factory=SpectrumConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    version: str = "v2"
    """RVC version, ``v1`` or ``v2``: what the exported voice says."""
    segment_frames: int = 36
    """Frames of 10 ms per example that are rendered and judged in a step."""
    max_frames: int = 900
    """Examples are cut after this many frames of 10 ms."""
    batch_size: int = 4
    """Examples per optimizer step, over all workers."""
    accumulation: int = 1
    """Parts that a worker's share of a batch is computed in, one after the other, to need less memory."""
    precision: Precision = "fp32"
    initial_scale: float = 65536.0
    """First factor on the losses of ``fp16``; it adapts itself."""
    seed: int = 1234
    """Of fresh weights, the order of examples, segments and noise."""

    def __post_init__(self) -> None:
        problems = [*self._problems()]
        if problems:
            raise SettingsError("the training recipe cannot be used: " + "; ".join(problems), stage="training")

    @property
    def hop(self) -> int:
        """Samples per frame of 10 ms."""
        return self.synthesizer.hop

    @property
    def segment_samples(self) -> int:
        """Samples per example that are rendered and judged in a step."""
        return self.segment_frames * self.hop

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return self.optimizer.learning_rate * self.optimizer.decay_per_epoch**epoch

    def as_mapping(self) -> dict[str, Any]:
        """Plain data from which ``from_mapping`` makes the same recipe."""
        return listed(asdict(self))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from plain data: the keys of this class, its parts as mappings of their own keys.

        With ``stock`` (one of ``STOCK``, ``small`` or ``tiny``), and ``f0`` and ``speakers`` if wanted, the rest
        changes that configuration; without it ``synthesizer`` must be whole. Raises SettingsError for unknown keys and
        wrong types.
        """
        values = dict(values)
        chosen = {key: values.pop(key) for key in ("stock", "f0", "speakers") if key in values}
        try:
            if "stock" not in chosen:
                if chosen:
                    raise SettingsError("f0 and speakers choose between stock configurations: give 'stock' too")
                return made(cls, values, "")
            name = chosen.pop("stock")
            if type(chosen.get("f0", True)) is not bool or type(chosen.get("speakers", 1)) is not int:
                raise SettingsError("f0 must be true or false, speakers a whole number")
            named = {"tiny": tiny, "small": small}
            base = named[name](**chosen) if name in named else stock(name, **chosen)
            return changed(base, values, "")
        except (SettingsError, VoiceFormatError) as error:
            raise SettingsError(error.message, stage="training") from error

    def _problems(self) -> list[str]:
        problems = []
        for name in ("segment_frames", "max_frames", "batch_size", "accumulation"):
            if not 1 <= getattr(self, name) <= 1_000_000:
                problems.append(f"{name} must be between 1 and 1000000, not {getattr(self, name)}")
        if self.max_frames < self.segment_frames:
            problems.append(f"max_frames {self.max_frames} is less than segment_frames {self.segment_frames}")
        if self.precision not in get_args(Precision):
            problems.append(f"precision must be one of {', '.join(get_args(Precision))}, not {self.precision!r}")
        if not 0 <= self.seed < 2**64:
            problems.append(f"seed must be between 0 and 2**64 - 1, not {self.seed}")
        if self.version not in CONTENT_DIMS:
            problems.append(f"version must be v1 or v2, not {self.version!r}")
        if self.synthesizer.decoder == "refinegan":
            problems.append("RefineGAN voices cannot be trained: choose hifigan or mrf-hifigan")
        if self.initial_scale <= 0:
            problems.append(f"initial_scale must be positive, not {self.initial_scale}")
        optimizer, spectrum, rate = self.optimizer, self.spectrum, self.synthesizer.sample_rate
        if not 0 < optimizer.learning_rate <= 1 or not 0 < optimizer.decay_per_epoch <= 1 or optimizer.epsilon <= 0:
            problems.append("learning_rate and decay_per_epoch must be above 0 and at most 1, epsilon above 0")
        if not (0 <= optimizer.beta1 < 1 and 0 <= optimizer.beta2 < 1) or optimizer.weight_decay < 0:
            problems.append("beta1 and beta2 must be at least 0 and below 1, weight_decay not negative")
        if min(asdict(self.losses).values()) < 0:
            problems.append("the weights of losses must not be negative")
        if spectrum.n_fft < self.hop or (spectrum.n_fft - self.hop) % 2 or spectrum.n_fft > 1 << 16:
            problems.append(f"n_fft {spectrum.n_fft} must be at least the hop {self.hop}, and even beyond it")
        elif spectrum.n_fft // 2 + 1 != self.synthesizer.spec_channels:
            bins = spectrum.n_fft // 2 + 1
            problems.append(
                f"n_fft {spectrum.n_fft} makes {bins} bins, spec_channels is {self.synthesizer.spec_channels}"
            )
        if (spectrum.n_fft - self.hop) // 2 >= self.segment_samples:
            problems.append(f"a segment of {self.segment_samples} samples is too short for n_fft {spectrum.n_fft}")
        high = rate / 2 if spectrum.mel_high is None else spectrum.mel_high
        if spectrum.mel_bands < 1 or not 0 <= spectrum.mel_low < high <= rate / 2:
            problems.append(f"mel bands must lie between 0 and {rate / 2:g} Hz, at least one")
        return problems


def stock(name: str, *, f0: bool = True, speakers: int = 109) -> Recipe:
    """A stock configuration: ``v2-48k`` and its like (``STOCK``). Pretrained weights have 109 speakers.

    Raises SettingsError if there is none of that name.
    """
    if name not in _STOCK:
        raise SettingsError(
            f"no stock configuration {name!r}: choose {', '.join(STOCK)}, small or tiny", stage="training"
        )
    rate, n_fft, bands, segment, rates, kernels = _STOCK[name]
    version = name[:2]
    synthesizer = SynthesizerConfig(
        spec_channels=n_fft // 2 + 1,
        segment_size=32,  # what every voice file says
        inter_channels=192,
        hidden_channels=192,
        filter_channels=768,
        n_heads=2,
        n_layers=6,
        kernel_size=3,
        p_dropout=0,
        resblock="1",
        resblock_kernel_sizes=(3, 7, 11),
        resblock_dilation_sizes=_DILATIONS,
        upsample_rates=rates,
        upsample_initial_channel=512,
        upsample_kernel_sizes=kernels,
        speakers=speakers,
        gin_channels=256,
        sample_rate=rate,
        content_dim=CONTENT_DIMS[version],
        uses_f0=f0,
    )
    return Recipe(
        synthesizer=synthesizer,
        discriminator=DiscriminatorConfig(periods=PERIODS[version]),
        spectrum=SpectrumConfig(n_fft=n_fft, mel_bands=bands),
        version=version,
        segment_frames=segment,
    )


def small(*, f0: bool = True, speakers: int = 1) -> Recipe:
    """A v2 voice at 48 kHz that one thread of a CPU can train: 1.4 M weights, a light discriminator.

    Steps are fast on slices of about 1.6 s (``--set slice_seconds=1.6``). See docs/learning.md for how it was chosen.
    """
    base = stock("v2-48k", f0=f0, speakers=speakers)
    synthesizer = replace(
        base.synthesizer,
        inter_channels=48,
        hidden_channels=64,
        filter_channels=192,
        n_layers=3,
        resblock="2",
        resblock_kernel_sizes=(3, 7),
        resblock_dilation_sizes=((1, 3), (1, 3)),
        upsample_rates=(12, 10, 4),
        upsample_initial_channel=128,
        upsample_kernel_sizes=(24, 20, 8),
        gin_channels=32,
    )
    discriminator = DiscriminatorConfig(
        periods=(2, 3, 5, 7),
        period_channels=(4, 16, 32, 32, 32),
        scale_channels=(4, 8, 16, 32, 32, 32),
        scale_groups=(1, 2, 4, 4, 4, 1),
    )
    # at a constant rate the two networks do not settle: docs/learning.md
    optimizer = replace(base.optimizer, learning_rate=1e-3, decay_per_epoch=0.97)
    return replace(base, synthesizer=synthesizer, discriminator=discriminator, optimizer=optimizer, segment_frames=20)


def tiny(name: str = "v2-48k", *, f0: bool = True, speakers: int = 2) -> Recipe:
    """A stock configuration with very narrow networks: for tests, and for showing on a CPU that training works."""
    base = stock(name, f0=f0, speakers=speakers)
    synthesizer = replace(
        base.synthesizer,
        inter_channels=16,
        hidden_channels=16,
        filter_channels=32,
        n_layers=2,
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1, 3),),
        upsample_initial_channel=64,
        gin_channels=8,
    )
    discriminator = replace(
        base.discriminator,
        period_channels=(4, 8, 16, 16, 16),
        scale_channels=(4, 8, 16, 16, 16, 16),
        scale_groups=(1, 2, 4, 4, 4, 1),
    )
    optimizer = replace(base.optimizer, learning_rate=1e-3)
    return replace(base, synthesizer=synthesizer, discriminator=discriminator, optimizer=optimizer)
