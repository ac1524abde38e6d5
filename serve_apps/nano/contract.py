"""RVC-Nano's API, generation v1: what a request holds, and the bodies of success and failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rocktop_ray.errors import SettingsError
from rocktop_ray.settings import ConvertSettings

FORMAT, RATE, BITRATE = "ogg", 48_000, 128_000
"""Of every result: Opus in Ogg, mono."""
MEDIA_TYPE = "audio/ogg"
F0_METHOD = "rmvpe"
"""The pitch extractor, where its weights are installed."""
FALLBACK_F0_METHOD = "fcpe"
"""The bundle's, elsewhere."""
TIMINGS = (
    *("download_vocal", "download_model", "download_index", "load_model"),
    *("pitch_extraction", "inference", "encoding", "upload"),
)
"""Keys of ``timing_details``, in seconds."""

_FIELDS = ("vocal_url", "model_url", "index_url", "f0_up_key", "index_rate", "tag")
_WHAT = {"vocal_url": "vocal audio file", "model_url": "RVC model (.pth)", "index_url": "index file (.index)"}
_MAX_URL = 8192
_SCHEMES = ("http://", "https://", "data:")


class InputError(SettingsError):
    """The input of a job breaks the contract; ``problems`` says how, a sentence for each fault."""

    code = "invalid_input"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class NanoInput:
    """A checked request. Defaults are the contract's."""

    vocal_url: str = field(repr=False)
    model_url: str = field(repr=False)
    index_url: str | None = field(default=None, repr=False)
    f0_up_key: int = 0
    index_rate: float = 0.75
    tag: str | None = None

    def settings(self) -> ConvertSettings:
        """The engine's settings: those of the request, and RVC-Nano's fixed ones.

        ``filter_radius`` 3 of the original smooths only the ``harvest`` method, which is not used: no median here.
        """
        return ConvertSettings(
            key=float(self.f0_up_key),
            index_rate=self.index_rate,
            protect=0.33,
            rms_mix=0.25,
            unvoiced="zero",
            median_radius=0,
        )


def read_input(data: object) -> NanoInput:
    """Check a job's ``input``: types as JSON has them (no coercion but whole number to number), ranges, no others.

    Raises InputError that names every fault; it repeats no address.
    """
    if not isinstance(data, Mapping):
        raise InputError([f"input should be an object with vocal_url and model_url, not {_kind(data)}."])
    problems = [
        f"Unexpected input. {str(name)[:64]!a} is not a valid input option; these are: {', '.join(_FIELDS)}."
        for name in data
        if name not in _FIELDS
    ]
    values: dict[str, Any] = {}
    for name in _FIELDS:
        if name not in data:
            if name in ("vocal_url", "model_url"):
                problems.append(f"{name} is a required input: the URL of the {_WHAT[name]}.")
            continue
        value = data[name]
        if value is None and name in ("index_url", "tag"):
            continue
        if problem := _problem(name, value):
            problems.append(problem)
        else:
            values[name] = value
    if problems:
        raise InputError(problems)
    values["index_rate"] = float(values.get("index_rate", NanoInput.index_rate))
    values["index_url"] = values.get("index_url") or None
    return NanoInput(**values)


def tag_of(data: object) -> str | None:
    """The tag of an input that may be wrong in everything else."""
    tag = data.get("tag") if isinstance(data, Mapping) else None
    return tag if isinstance(tag, str) else None


def success_body(
    request: NanoInput,
    request_id: str,
    *,
    audio_url: str | None,
    duration_seconds: float,
    file_size_bytes: int,
    processing_time_seconds: float,
    model_version: str,
    f0_method: str | None,
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """The reply to a request that was carried out. ``f0_method`` (not in v1) names the extractor that was used."""
    return _known(
        {
            "result": "success",
            "request_id": request_id,
            "tag": request.tag,
            "audio_url": audio_url,
            "sample_rate": RATE,
            "duration_seconds": round(duration_seconds, 3),
            "file_size_bytes": file_size_bytes,
            "format": FORMAT,
            "processing_time_seconds": round(processing_time_seconds, 3),
            "model_version": model_version,
            "f0_method": f0_method,
            "timing_details": {name: round(timings.get(name, 0.0), 3) for name in TIMINGS},
        }
    )


def failure_body(message: str, request_id: str, tag: str | None, *, refresh_worker: bool) -> dict[str, Any]:
    """The reply to a request that failed. ``refresh_worker``: the worker itself is broken and must be replaced."""
    return _known(
        {
            "result": "failure",
            "message": message,
            "request_id": request_id,
            "tag": tag,
            "refresh_worker": refresh_worker,
        }
    )


def _known(body: dict[str, Any]) -> dict[str, Any]:
    """As v1: what is not there is left out."""
    return {name: value for name, value in body.items() if value is not None}


def _problem(name: str, value: object) -> str | None:
    if name == "f0_up_key":
        if isinstance(value, bool) or not isinstance(value, int):
            return f"{name} should be a whole number, not {_kind(value)}."
        if not -24 <= value <= 24:
            return f"{name} does not meet the constraints: -24 to 24 semitones."
        return None
    if name == "index_rate":
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{name} should be a number, not {_kind(value)}."
        if not 0 <= value <= 1:  # False for NaN
            return f"{name} does not meet the constraints: 0.0 to 1.0."
        return None
    if not isinstance(value, str):
        return f"{name} should be a text, not {_kind(value)}."
    if name == "tag" or (name == "index_url" and not value):
        return None
    if not value.lower().startswith(_SCHEMES):
        return f"{name} does not meet the constraints: an http:// or https:// URL of the {_WHAT[name]}."
    if len(value) > _MAX_URL and value[:5].lower() != "data:":
        return f"{name} does not meet the constraints: at most {_MAX_URL} characters."
    return None


def _kind(value: object) -> str:
    """The type of a JSON value, in plain words."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
    return kinds.get(type(value), "an object" if isinstance(value, Mapping) else "a list")
