"""What a recording is, and how large it may be."""

from __future__ import annotations

from dataclasses import dataclass

from rocktop_ray.errors import AudioLimitError


@dataclass(frozen=True)
class AudioInfo:
    """The facts of one audio stream, read from its headers."""

    rate: int
    """Samples per second."""
    channels: int
    frames: int | None
    """Samples per channel; None where the container does not say it exactly."""
    seconds: float | None
    """Length; None where it is not known before decoding."""
    codec: str
    """For instance ``pcm_16``, ``flac``, ``opus``, ``aac``."""
    container: str
    """For instance ``wav``, ``ogg``, ``mp4``."""


@dataclass(frozen=True)
class AudioLimits:
    """The largest recording that is accepted. All bounds are inclusive."""

    max_seconds: float = 4 * 3600.0
    max_channels: int = 32
    max_bytes: int = 4 * 1024**3
    """Size of the file as it lies on disk or comes in."""
    min_rate: int = 2_000
    max_rate: int = 768_000

    def check_bytes(self, name: str, size: int) -> None:
        """Raises AudioLimitError above ``max_bytes``."""
        if size > self.max_bytes:
            raise AudioLimitError(f"{name} has {size:,} bytes; the limit is {self.max_bytes:,}")

    def check_info(self, name: str, info: AudioInfo) -> None:
        """Raises AudioLimitError if the declared rate, channels or length are outside."""
        if info.channels > self.max_channels:
            raise AudioLimitError(f"{name} has {info.channels} channels; the limit is {self.max_channels}")
        if not self.min_rate <= info.rate <= self.max_rate:
            raise AudioLimitError(f"{name} has {info.rate} Hz; {self.min_rate} to {self.max_rate} Hz are accepted")
        if info.seconds is not None:
            self.check_seconds(name, info.seconds)

    def check_seconds(self, name: str, seconds: float) -> None:
        """Raises AudioLimitError above ``max_seconds``."""
        if seconds > self.max_seconds:
            raise AudioLimitError(f"{name} is longer than the limit of {self.max_seconds:g} s; cut it into parts")


DEFAULT_LIMITS = AudioLimits()
