"""The table of output formats, and what each refuses, known before any work starts.

The limits are those of the encoders (libopus, LAME, FFmpeg's AAC) and of the formats: RFC 6716 and RFC 7845 for Opus,
ISO 11172-3 and 13818-3 for MP3, ISO 14496-3 for AAC (6144 bits per channel and frame of 1024 samples), RFC 9639 for
FLAC.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rocktop_ray.errors import AudioFormatError

DEFAULT_BITRATE = 128_000
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
AAC_RATES = (7_350, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
_MPEG1_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


@dataclass(frozen=True)
class OutputFormat:
    """One way to write audio."""

    name: str
    suffix: str
    media_type: str
    codec: str
    """FFmpeg's name of the encoder; ``pcm`` for WAV, which is written here."""
    container: str
    """FFmpeg's name of the container."""
    bits: int = 0
    """Bits per sample of the integer formats, written with dither; 0 for float and lossy formats."""
    rates: tuple[int, ...] = ()
    """Sample rates in Hz; empty for any from 1 to ``max_rate``."""
    max_rate: int = 768_000
    max_channels: int = 2

    @property
    def lossless(self) -> bool:
        """True for wav and flac, which have no bitrate."""
        return self.codec in ("pcm", "flac")


FORMATS: dict[str, OutputFormat] = {
    entry.name: entry
    for entry in (
        OutputFormat("wav", ".wav", "audio/wav", "pcm", "wav", 0, max_channels=32),
        OutputFormat("wav16", ".wav", "audio/wav", "pcm", "wav", 16, max_channels=32),
        OutputFormat("wav24", ".wav", "audio/wav", "pcm", "wav", 24, max_channels=32),
        OutputFormat("flac", ".flac", "audio/flac", "flac", "flac", 24, max_rate=655_350, max_channels=8),
        OutputFormat("flac16", ".flac", "audio/flac", "flac", "flac", 16, max_rate=655_350, max_channels=8),
        OutputFormat("ogg", ".ogg", "audio/ogg", "libopus", "ogg", rates=OPUS_RATES),
        OutputFormat("webm", ".webm", "audio/webm", "libopus", "webm", rates=OPUS_RATES),
        OutputFormat("mp3", ".mp3", "audio/mpeg", "libmp3lame", "mp3", rates=MP3_RATES),
        OutputFormat("m4a", ".m4a", "audio/mp4", "aac", "ipod", rates=AAC_RATES),
    )
}
"""``wav`` is 32-bit float, ``flac`` 24 bit, ``ogg`` and ``webm`` hold Opus, ``m4a`` AAC."""

_SUFFIXES = {entry.suffix: name for name, entry in reversed(FORMATS.items())}
_SUFFIXES.update({".wav": "wav", ".flac": "flac", ".opus": "ogg", ".oga": "ogg", ".mp4": "m4a", ".wave": "wav"})


@dataclass(frozen=True)
class Output:
    """A checked choice."""

    format: OutputFormat
    rate: int
    channels: int
    bitrate: int | None
    """Bits per second; None for lossless formats."""


def format_for(path: str | os.PathLike[str]) -> str:
    """The name of the format that the ending of a file name asks for. Raises AudioFormatError."""
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        known = ", ".join(sorted(_SUFFIXES))
        raise AudioFormatError(f"no output format has the ending {suffix or '(none)'}; choose {known}", stage="output")
    return _SUFFIXES[suffix]


def bitrates(entry: OutputFormat, rate: int, channels: int = 1) -> tuple[int, ...] | range:
    """The bits per second that a lossy format takes at a rate: all in a range, or a list."""
    if entry.codec == "libopus":
        return range(500, 256_000 * channels + 1)
    if entry.codec == "aac":
        return range(8_000, min(6 * rate, 256_000) * channels + 1)
    kbps = _MPEG1_KBPS if rate >= 32_000 else _MPEG2_KBPS if rate >= 16_000 else _MPEG2_KBPS[:8]
    return tuple(1000 * value for value in kbps)


def check_output(name: str, rate: int, bitrate: int | str | None = None, channels: int = 1) -> Output:
    """Checks a choice of format before work starts.

    Args:
        name: a key of FORMATS (case does not matter).
        rate: sample rate in Hz.
        bitrate: bits per second, or text such as ``"128k"``; None for 128k or the most that the format takes at this
            rate. Lossless formats pass over it.
        channels: 1 for a converted take.

    Raises:
        AudioFormatError: the format, rate, bitrate or number of channels is refused; the message lists what is allowed.
    """
    entry = FORMATS.get(name.lower())
    if entry is None:
        raise _refusal(f"there is no output format {name!r}; choose {', '.join(FORMATS)}")
    if not 1 <= channels <= entry.max_channels:
        raise _refusal(f"{entry.name} takes 1 to {entry.max_channels} channels, not {channels}")
    if entry.rates and rate not in entry.rates:
        raise _refusal(f"{entry.name} cannot have {rate} Hz; choose {', '.join(map(str, entry.rates))}")
    if not 1 <= rate <= entry.max_rate:
        raise _refusal(f"{entry.name} takes 1 to {entry.max_rate} Hz, not {rate}")
    if entry.lossless:
        return Output(entry, rate, channels, None)
    allowed = bitrates(entry, rate, channels)
    if bitrate is None:
        return Output(entry, rate, channels, min(DEFAULT_BITRATE, allowed[-1]))
    bits = parse_bitrate(bitrate)
    if bits not in allowed:
        if isinstance(allowed, range):
            choice = f"{_kilo(allowed[0])} to {_kilo(allowed[-1])}"
        else:
            choice = ", ".join(_kilo(value) for value in allowed)
        what = f"{entry.name} at {rate} Hz with {channels} channel{'s' if channels > 1 else ''}"
        raise _refusal(f"{what} cannot have {_kilo(bits)} bits/s; choose {choice}")
    return Output(entry, rate, channels, bits)


def parse_bitrate(value: int | str) -> int:
    """``128000``, ``"128000"`` or ``"128k"`` -> 128000. Raises AudioFormatError."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*([kK]?)\s*", str(value))
    if match is None:
        raise _refusal(f"{value!r} is not a bitrate; write for instance 128k")
    return int(match[1]) * (1000 if match[2] else 1)


def _kilo(bits: int) -> str:
    return f"{bits / 1000:g}k"


def _refusal(message: str) -> AudioFormatError:
    return AudioFormatError(message, stage="output")
