"""The fields of a conversion as clients send them, whether as a form or as JSON: checked, and turned into an order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rocktop_ray.audio.formats import FORMATS, Output, check_output
from rocktop_ray.errors import SettingsError
from rocktop_ray.features.pitch.curves import SCALES
from rocktop_ray.features.pitch.registry import EXTRACTORS
from rocktop_ray.protocols import TAKE_RATE
from rocktop_ray.settings import ConvertSettings, Unvoiced
from rocktop_ray.voices.info import VoiceInfo
from rocktop_ray.voices.names import BUNDLE
from serve_apps.orders import Order, VoiceRef

DEFAULT_FORMAT = "flac"
SETTINGS = tuple(ConvertSettings.__dataclass_fields__)
"""Names of the fields that are settings of the engine."""

Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class FieldsError(SettingsError):
    """Fields of a request are unknown, missing, of the wrong type or out of range."""

    def __init__(self, problems: list[dict[str, str]]) -> None:
        """problems: ``field`` and ``message`` of each."""
        super().__init__("; ".join(f"{entry['field']}: {entry['message']}" for entry in problems[:8]))
        self.problems = problems

    @classmethod
    def one(cls, field: str, message: str) -> FieldsError:
        """A problem with a single field."""
        return cls([{"field": field, "message": message}])


class ConversionRequest(BaseModel):
    """What to convert, into which voice, and how. Fields left out keep the voice's own defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    voice: str = Field(BUNDLE, min_length=1, max_length=256, description="Name of a voice: see `GET /v1/voices`.")
    key: float | None = Field(None, ge=-36, le=36, allow_inf_nan=False, description="Transposition in semitones.")
    auto_key: bool | None = Field(
        None, description="Choose the key from the take's melody and the voice's range; `key` is added to it."
    )
    formant: float | None = Field(
        None, ge=-12, le=12, allow_inf_nan=False, description="Shift of the take's formants in semitones."
    )
    index_rate: Unit | None = Field(None, description="Share of units taken from the voice's index, 0 to 1.")
    protect: float | None = Field(
        None, ge=0, le=0.5, allow_inf_nan=False, description="Protection of consonants, 0 to 0.5; 0.5 is off."
    )
    rms_mix: Unit | None = Field(None, description="1 keeps the converted loudness, 0 follows the take's.")
    speaker: int | None = Field(None, ge=0, le=2**31 - 1, description="Speaker of a voice that has several, from 0.")
    temperature: float | None = Field(
        None, ge=0, le=2, allow_inf_nan=False, description="Scale of the random part, 0 to 2."
    )
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="The same seed gives the same bytes.")
    unvoiced: Unvoiced | None = Field(
        None, description="Melody of voiceless frames: `zero` (classic RVC) or `interpolate` (RVC of 2026)."
    )
    median_radius: int | None = Field(
        None, ge=0, le=50, description="Median filter of the melody, in frames of 10 ms to each side; 0 is off."
    )
    autotune: Unit | None = Field(None, description="Strength of snapping the melody to the scale; 0 is off.")
    scale: str | None = Field(
        None, max_length=64, description="Scale of `autotune`.", json_schema_extra={"enum": [*SCALES, None]}
    )
    root: str | None = Field(None, max_length=3, description="Tonic of the scale, `C` to `B`, with `#` or `b`.")
    pitch: str | None = Field(
        None,
        max_length=64,
        description="Pitch extractor (see `GET /v1/models`); left out, the voice chooses.",
        json_schema_extra={"enum": [*EXTRACTORS, None]},
    )
    format: str = Field(
        DEFAULT_FORMAT,
        max_length=16,
        description="Format of the result: see `GET /v1/formats`.",
        json_schema_extra={"enum": [*FORMATS]},
    )
    rate: int = Field(TAKE_RATE, ge=1, le=768_000, description="Sample rate of the result in Hz.")
    bitrate: int | str | None = Field(
        None,
        description="Bits per second of a lossy format, as a number or like `128k`.",
        union_mode="left_to_right",
    )
    normalise: bool = Field(False, description="Bring the peak to -1 dBFS also where it is lower.")
    stream: bool = Field(
        False, description="Send audio while it is made; its level is held by a limiter. Not with `m4a`, nor as JSON."
    )
    reply: Literal["audio", "json"] = Field(
        "audio", description="`audio`: the bytes of the result. `json`: a finished job, with a link to them."
    )
    take_url: str | None = Field(
        None,
        min_length=1,
        max_length=64 << 20,
        description="JSON only: address of the take (`http`, `https` or `data`).",
        repr=False,
        examples=["https://example.com/takes/verse.wav"],
    )
    take_urls: list[Annotated[str, Field(min_length=1, max_length=64 << 20)]] | None = Field(
        None, min_length=1, max_length=10_000, description="JSON only, of a batch: addresses of its takes.", repr=False
    )

    @classmethod
    def from_form(cls, fields: Iterable[tuple[str, str]]) -> ConversionRequest:
        """Texts of a form, checked; an empty one counts as left out (but not ``voice``). Raises as ``from_json``."""
        values: dict[str, str] = {}
        for name, text in fields:
            if name in ("take_url", "take_urls"):
                raise FieldsError.one(name, "addresses are sent as JSON; a form sends the file itself as 'take'")
            if name in values:
                raise FieldsError.one(name[:64], "given more than once")
            values[name] = text
        given = {name: text for name, text in values.items() if text or name == "voice"}
        return cls._checked(given, texts=True)

    @classmethod
    def from_json(cls, data: bytes) -> ConversionRequest:
        """A JSON object, checked. Raises FieldsError, AudioFormatError."""
        return cls._checked(parse_object(data))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ConversionRequest:
        """Plain data, e.g. what ``model_dump`` gave, checked. Raises FieldsError, AudioFormatError."""
        return cls._checked(dict(values))

    @classmethod
    def _checked(cls, values: dict[str, Any], *, texts: bool = False) -> ConversionRequest:
        try:
            request = cls.model_validate_strings(values) if texts else cls.model_validate(values)
        except ValidationError as error:
            raise FieldsError(field_problems(error, tuple(cls.model_fields))) from error
        request._check_words()
        return request

    def _check_words(self) -> None:
        """What needs no voice to be known as wrong, said before any upload is worked on."""
        try:
            ConvertSettings.from_mapping(self.given())
        except SettingsError as error:
            named = error.message.split(" ", 1)[0]
            raise FieldsError.one(named if named in SETTINGS else "root", error.message) from error
        self.output()
        if self.pitch is not None and self.pitch not in EXTRACTORS:
            raise FieldsError.one("pitch", f"unknown; choose one of {', '.join(EXTRACTORS)}")
        if self.stream and self.format.lower() == "m4a":
            raise FieldsError.one("stream", "m4a cannot be streamed; choose ogg, webm, mp3, flac or wav")
        if self.stream and self.reply == "json":
            raise FieldsError.one("stream", "a stream is audio: leave out reply=json")

    def given(self) -> dict[str, Any]:
        """The engine's settings that the client chose."""
        return {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}

    def settings(self, info: VoiceInfo) -> ConvertSettings:
        """What the client chose over the voice's own defaults over the engine's. Raises SettingsError."""
        return ConvertSettings.from_mapping({**info.defaults, **self.given()})

    def output(self) -> Output:
        """The checked format of the result, mono. Raises AudioFormatError."""
        return check_output(self.format, self.rate, self.bitrate)

    def order(
        self,
        *,
        request_id: str,
        voice: VoiceRef,
        info: VoiceInfo,
        source: str,
        target: str | None = None,
        max_seconds: float = 4 * 3600.0,
    ) -> Order:
        """The conversion to be done. Raises SettingsError, AudioFormatError.

        Args:
            source: key of the take in the spool.
            target: key of the result in the spool; None streams it.
            max_seconds: longer takes are refused.
        """
        return Order(
            request_id=request_id,
            voice=voice,
            source=source,
            output=self.output(),
            settings=self.settings(info),
            target=target,
            normalise=self.normalise,
            pitch=self.pitch,
            max_seconds=max_seconds,
        )


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object (RFC 8259). Raises FieldsError."""
    try:
        values = pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise FieldsError.one("body", f"not JSON: {str(error)[:200]}") from error
    if not isinstance(values, dict):
        raise FieldsError.one("body", "expected a JSON object")
    return values


def field_problems(error: ValidationError, known: tuple[str, ...] | type[BaseModel]) -> list[dict[str, str]]:
    """What pydantic found, as ``field`` and ``message``; values are not repeated: they may be secret, or long.

    known: the names that there are, or the model that has them, with its sections.
    """
    problems: dict[str, str] = {}
    for entry in error.errors(include_url=False, include_context=False, include_input=False)[:32]:
        name = ".".join(str(part) for part in entry["loc"] if part not in ("int", "str"))[:64] or "body"
        message = entry["msg"].removeprefix("Input ").removeprefix("Value error, ")
        if entry["type"] == "extra_forbidden":
            names = known if isinstance(known, tuple) else _names_beside(known, entry["loc"])
            message = f"unknown; known are {', '.join(names)}"
        problems.setdefault(name, message)
    return [{"field": name, "message": message} for name, message in problems.items()]


def _names_beside(model: type[BaseModel], place: tuple[int | str, ...]) -> Iterable[str]:
    """The names of the section in which ``place`` is."""
    for part in place[:-1]:
        section = model.model_fields[str(part)].annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            break
        model = section
    return model.model_fields
