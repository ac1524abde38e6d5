"""What an RVC synthesizer is made of: the ``config`` list of RVC and Applio files as a checked dataclass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from rocktop_ray.errors import VoiceFormatError

Decoder = Literal["hifigan", "mrf-hifigan", "refinegan"]
"""``hifigan`` is the decoder of RVC (with a sine source if the voice uses F0); the others are Applio's, F0 only."""

CONTENT_DIMS = {"v1": 256, "v2": 768}
"""Width of the content units by RVC version."""

REFINEGAN_STAGES = 4
REFINEGAN_INITIAL_CHANNEL = 512
REFINEGAN_GIN_CHANNELS = 256

_LISTED = 18
_LIMITS: dict[str, tuple[int, int]] = {
    "spec_channels": (1, 8193),
    "segment_size": (1, 1_000_000),
    "inter_channels": (2, 2048),
    "hidden_channels": (1, 2048),
    "filter_channels": (1, 8192),
    "n_heads": (1, 64),
    "n_layers": (1, 48),
    "kernel_size": (1, 31),
    "upsample_initial_channel": (2, 4096),
    "speakers": (1, 100_000),
    "gin_channels": (1, 4096),
    "sample_rate": (8_000, 192_000),
    "content_dim": (1, 8192),
}
_MAX_STAGES = 8
_MAX_UPSAMPLE_KERNEL = 1024
_MAX_RESBLOCK_KERNEL = 63
_MAX_RESBLOCK_DILATION = 243


@dataclass(frozen=True)
class SynthesizerConfig:
    """Sizes of a synthesizer. The first 18 fields are RVC's ``config`` list, in its order.

    Raises VoiceFormatError if a value is not of its type, out of a sane range, or does not go with the others, so that
    a network of this configuration can be built: bounded in size, and ``sample_rate // 100`` samples long per frame.
    """

    spec_channels: int
    """Bins of the linear spectrogram that the posterior encoder (training only) takes."""
    segment_size: int
    """Training segment, in frames. Not used by inference."""
    inter_channels: int
    """Width of the latent frames."""
    hidden_channels: int
    """Width of the prior encoder and of the flow's layers."""
    filter_channels: int
    n_heads: int
    n_layers: int
    kernel_size: int
    """Kernel of the prior encoder's feed-forward layers."""
    p_dropout: float
    """Dropout of the prior encoder in training, 0 to 1."""
    resblock: str
    """``"1"`` (two convolutions per dilation) or ``"2"`` (one)."""
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    upsample_rates: tuple[int, ...]
    upsample_initial_channel: int
    upsample_kernel_sizes: tuple[int, ...]
    speakers: int
    """Rows of the speaker embedding."""
    gin_channels: int
    """Width of the speaker embedding."""
    sample_rate: int
    """Hz of the wave."""
    content_dim: int = 768
    """Width of the content units: 256 in v1, 768 in v2."""
    uses_f0: bool = True
    decoder: Decoder = "hifigan"

    @property
    def hop(self) -> int:
        """Samples per frame of 10 ms."""
        return math.prod(self.upsample_rates)

    @classmethod
    def from_list(
        cls,
        values: Sequence[Any],
        *,
        version: str,
        f0: bool,
        decoder: Decoder = "hifigan",
        content_dim: int | None = None,
    ) -> SynthesizerConfig:
        """From the 18 values of a file, its ``version`` ("v1" or "v2") and whether it uses F0.

        ``content_dim`` overrides the width that goes with the version. Raises VoiceFormatError.
        """
        if version not in CONTENT_DIMS:
            raise VoiceFormatError(
                f"unknown voice version {_short(version)}: expected one of {', '.join(CONTENT_DIMS)}"
            )
        if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != _LISTED:
            found = f"{len(values)} values" if isinstance(values, Sequence) else type(values).__name__
            raise VoiceFormatError(f"the voice's config must be a list of {_LISTED} values, not {found}")
        names = [field.name for field in fields(cls)][:_LISTED]
        listed = {name: _frozen(value) for name, value in zip(names, values, strict=True)}
        listed["resblock"] = str(listed["resblock"])
        dim = CONTENT_DIMS[version] if content_dim is None else content_dim
        return cls(**listed, content_dim=dim, uses_f0=bool(f0), decoder=decoder)

    def to_list(self) -> list[Any]:
        """The 18 values as RVC writes them."""
        values = [getattr(self, field.name) for field in fields(self)[:_LISTED]]
        return [_thawed(value) for value in values]

    def __post_init__(self) -> None:
        problems = [*self._bad_types()] or [*self._bad_ranges()] or [*self._bad_fits()]
        if problems:
            raise VoiceFormatError("the voice's config cannot be used: " + "; ".join(problems))

    def _bad_types(self) -> list[str]:
        problems = []
        for name in _LIMITS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                problems.append(f"{name} must be a whole number, not {_short(value)}")
        for name in ("resblock_kernel_sizes", "upsample_rates", "upsample_kernel_sizes"):
            if not _is_ints(getattr(self, name)):
                problems.append(f"{name} must be a list of whole numbers, not {_short(getattr(self, name))}")
        dilations = self.resblock_dilation_sizes
        if not isinstance(dilations, tuple) or not all(_is_ints(row) for row in dilations):
            problems.append(f"resblock_dilation_sizes must be lists of whole numbers, not {_short(dilations)}")
        if not isinstance(self.p_dropout, int | float) or not 0 <= self.p_dropout <= 1:
            problems.append(f"p_dropout must be between 0 and 1, not {_short(self.p_dropout)}")
        if self.resblock not in ("1", "2"):
            problems.append(f'resblock must be "1" or "2", not {_short(self.resblock)}')
        if self.decoder not in get_args(Decoder):
            problems.append(f"decoder must be one of {', '.join(get_args(Decoder))}, not {_short(self.decoder)}")
        return problems

    def _bad_ranges(self) -> list[str]:
        problems = []
        for name, (low, high) in _LIMITS.items():
            if not low <= getattr(self, name) <= high:
                problems.append(f"{name} must be between {low} and {high}, not {_short(getattr(self, name))}")
        for name, high in (
            ("resblock_kernel_sizes", _MAX_RESBLOCK_KERNEL),
            ("upsample_rates", _LIMITS["sample_rate"][1] // 100),
            ("upsample_kernel_sizes", _MAX_UPSAMPLE_KERNEL),
        ):
            values = getattr(self, name)
            if not 1 <= len(values) <= _MAX_STAGES or not all(1 <= value <= high for value in values):
                problems.append(f"{name} must be 1 to {_MAX_STAGES} numbers from 1 to {high}, not {_short(values)}")
        for row in self.resblock_dilation_sizes:
            if not 1 <= len(row) <= _MAX_STAGES or not all(1 <= value <= _MAX_RESBLOCK_DILATION for value in row):
                problems.append(f"a row of resblock_dilation_sizes is out of range: {_short(row)}")
        return problems

    def _bad_fits(self) -> list[str]:
        problems = []
        if self.hidden_channels % self.n_heads:
            problems.append(f"hidden_channels {self.hidden_channels} is not a multiple of n_heads {self.n_heads}")
        if self.inter_channels % 2:
            problems.append(f"inter_channels must be even, not {self.inter_channels}")
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            problems.append("resblock_kernel_sizes and resblock_dilation_sizes differ in length")
        if not all(size % 2 for size in self.resblock_kernel_sizes):
            problems.append(f"resblock_kernel_sizes must be odd, not {list(self.resblock_kernel_sizes)}")
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            problems.append("upsample_rates and upsample_kernel_sizes differ in length")
        if self.sample_rate % 100 or self.hop != self.sample_rate // 100:
            rates = list(self.upsample_rates)
            problems.append(
                f"upsample_rates {rates} do not multiply to a hundredth of the sample rate {self.sample_rate}"
            )
        if self.upsample_initial_channel < 2 ** len(self.upsample_rates):
            problems.append(f"upsample_initial_channel {self.upsample_initial_channel} is too small to halve per stage")
        for rate, size in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=False):
            if size < rate or ((size - rate) % 2 and (rate == 1 or not rate % 2)):
                problems.append(f"upsample kernel {size} does not go with rate {rate}")
        if self.decoder != "hifigan" and not self.uses_f0:
            problems.append(f"the {self.decoder} decoder needs F0")
        if self.decoder == "refinegan":
            needed = (REFINEGAN_STAGES, REFINEGAN_INITIAL_CHANNEL, REFINEGAN_GIN_CHANNELS)
            if (len(self.upsample_rates), self.upsample_initial_channel, self.gin_channels) != needed:
                problems.append(
                    "refinegan needs {} stages, upsample_initial_channel {}, gin_channels {}".format(*needed)
                )
        return problems


def _is_ints(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    return [_thawed(item) for item in value] if isinstance(value, tuple) else value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
