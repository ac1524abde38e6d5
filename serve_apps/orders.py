"""What flows between gateway, jobs and stages: orders in, events out. Plain data that pickles."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol

from rocktop_ray.audio.formats import Output
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings


@dataclass(frozen=True)
class VoiceRef:
    """A voice, named so that any replica can open it, and so that a changed voice has another ``id``.

    Either ``url`` is empty and the voice lies in the library under ``name``, or it lies behind ``url``.
    """

    id: str
    """Changes with the content: the multiplexed model id, and the key of loaded voices. See ``voices.refer``."""
    name: str
    """What people call it; for logs and replies."""
    url: str = field(default="", repr=False)
    """Where a foreign voice file was found; may be signed."""
    index_url: str = field(default="", repr=False)
    sha256: str = ""
    """Of the voice file behind ``url``."""
    index_sha256: str = ""


@dataclass(frozen=True)
class Order:
    """One conversion to be done. The same order gives the same bytes, whoever carries it out."""

    request_id: str
    voice: VoiceRef
    source: str
    """Key of the take in the spool."""
    output: Output
    settings: ConvertSettings = field(default_factory=ConvertSettings)
    target: str | None = None
    """Key in the spool where the whole result goes; None streams it as ``AudioBytes`` while it is made."""
    normalise: bool = False
    pitch: str | None = None
    """Name of the pitch extractor; None leaves the choice to the voice."""
    max_seconds: float = 4 * 3600.0
    """Longer takes are refused."""


@dataclass(frozen=True)
class Started:
    """Work began."""

    seconds: float | None
    """Length of the take; None where its file does not say."""


@dataclass(frozen=True)
class Advanced:
    """A stage ended."""

    seconds_done: float
    """Seconds of the take that are converted."""
    stage: str


@dataclass(frozen=True)
class AudioBytes:
    """The next bytes of the encoded result."""

    data: bytes


@dataclass(frozen=True)
class Finished:
    """The result is complete."""

    report: Report


Event = Started | Advanced | AudioBytes | Finished


@dataclass(frozen=True)
class Report:
    """Facts of a finished conversion.

    Attributes:
        seconds: length of the take.
        bytes: of the encoded result.
        media_type: of the encoded result.
        facts: plain data for replies: see ``FileConversion.as_dict``, and ``voice`` (version, family, rate, uses_f0,
            loaded: seconds spent on loading it, 0 if it was loaded), ``pitch`` (the extractor, None without F0).
        f0_source, f0: melodies of the take and of the result, Hz at 100/s, 0 = unvoiced; empty for voices without F0.
    """

    seconds: float
    bytes: int
    media_type: str
    facts: dict[str, Any]
    f0_source: Array
    f0: Array


class Conversions(Protocol):
    """Whoever carries out orders: in this process (``conversions.LocalConversions``) or on Ray Serve (``graph``)."""

    def run(self, order: Order) -> AsyncGenerator[Event, None]:
        """``Started``, then ``Advanced`` and ``AudioBytes`` as they come, then ``Finished``.

        Closing the generator, or cancelling its task, stops the work. Raises RocktopError.
        """
        ...
