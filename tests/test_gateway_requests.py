"""Fields of a conversion, forms over the wire, and what problems may show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rocktop_ray.errors as errors
from rocktop_ray.errors import AudioFormatError, RocktopError
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.voices.info import VoiceInfo
from serve_apps.config import ServeConfig
from serve_apps.gateway.multipart import PartBegin, PartData, PartEnd, read_multipart
from serve_apps.gateway.problems import Veil, respond
from serve_apps.gateway.refusals import BadRequestError
from serve_apps.orders import VoiceRef
from serve_apps.requests import SETTINGS, ConversionRequest, FieldsError

FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "key": st.floats(-36, 36),
        "auto_key": st.booleans(),
        "index_rate": st.floats(0, 1),
        "protect": st.floats(0, 0.5),
        "speaker": st.integers(0, 2**31 - 1),
        "seed": st.integers(0, 2**63 - 1),
        "unvoiced": st.sampled_from(["zero", "interpolate"]),
        "median_radius": st.integers(0, 50),
        "scale": st.sampled_from(["minor", "blues"]),
        "root": st.sampled_from(["C", "F#", "Bb"]),
        "format": st.sampled_from(["wav", "flac16", "ogg"]),
        "normalise": st.booleans(),
    },
)


@settings(max_examples=60)
@given(FIELDS)
def test_a_form_and_json_mean_the_same(fields: dict[str, Any]) -> None:
    texts = [(name, json.dumps(value) if not isinstance(value, str) else value) for name, value in fields.items()]
    form = ConversionRequest.from_form(texts)
    assert form == ConversionRequest.from_json(json.dumps(fields).encode())
    assert form.given() == {name: value for name, value in fields.items() if name in SETTINGS}


def info(**defaults: Any) -> VoiceInfo:
    return VoiceInfo("anna", "rvc", 40_000, True, "hubert-v2", 768, 1, "hifigan", defaults=defaults)


def test_defaults_of_the_voice_lie_under_the_clients_choice() -> None:
    request = ConversionRequest.from_mapping({"key": 2, "rms_mix": 0.0})
    chosen = request.settings(info(key=-5, rms_mix=1.0, protect=0.1))
    assert chosen == ConvertSettings(key=2, rms_mix=0.0, protect=0.1)


def test_an_order_says_all() -> None:
    request = ConversionRequest.from_mapping({"voice": "anna", "format": "mp3", "bitrate": "192k", "pitch": "pm"})
    order = request.order(
        request_id="r", voice=VoiceRef("anna@1", "anna"), info=info(), source="takes/1", max_seconds=9.0
    )
    assert (order.output.format.name, order.output.bitrate, order.pitch) == ("mp3", 192_000, "pm")
    assert (order.source, order.target, order.max_seconds) == ("takes/1", None, 9.0)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"key": "3"}, "key"),
        ({"key": True}, "key"),
        ({"key": 36.1}, "key"),
        ({"speaker": 1.5}, "speaker"),
        ({"seed": 2**63}, "seed"),
        ({"normalise": 1}, "normalise"),
        ({"bitrate": True}, "bitrate"),
        ({"root": "H"}, "root"),
        ({"scale": "loud"}, "scale"),
        ({"pitch": "ear"}, "pitch"),
        ({"voice": ""}, "voice"),
        ({"colour": 1}, "colour"),
        ({"format": "m4a", "stream": True}, "stream"),
        ({"reply": "json", "stream": True}, "stream"),
    ],
)
def test_wrong_fields_are_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldsError) as refused:
        ConversionRequest.from_mapping(values)
    assert [problem["field"] for problem in refused.value.problems] == [field]


def test_formats_are_checked_at_once() -> None:
    for values in ({"format": "xyz"}, {"format": "ogg", "rate": 44_100}, {"format": "mp3", "bitrate": "5k"}):
        with pytest.raises(AudioFormatError):
            ConversionRequest.from_mapping(values)


def test_empty_fields_of_a_form_count_as_left_out() -> None:
    assert ConversionRequest.from_form([("key", ""), ("bitrate", "")]) == ConversionRequest()
    with pytest.raises(FieldsError):
        ConversionRequest.from_form([("voice", "")])


def pieces(body: bytes, size: int) -> list[tuple[str, str | None, bytes]]:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    async def read() -> list[tuple[str, str | None, bytes]]:
        found: list[tuple[str, str | None, bytes]] = []
        async for piece in read_multipart("multipart/form-data; boundary=xyz", chunks()):
            match piece:
                case PartBegin():
                    found.append((piece.name, piece.filename, b""))
                case PartData():
                    found[-1] = (*found[-1][:2], found[-1][2] + piece.data)
                case PartEnd():
                    pass
        return found

    return asyncio.run(read())


DATA = st.lists(st.sampled_from([b"a", b"\r\n", b"--", b"--xyz"[:4], b"\r\n--xy", b"\0", b"\r"]), max_size=20).map(
    b"".join
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["take", "key"]), st.sampled_from([None, "a.wav"]), DATA), max_size=4), st.data()
)
def test_forms_are_read_the_same_in_any_pieces(parts: list[tuple[str, str | None, bytes]], data: st.DataObject) -> None:
    body = b""
    for name, filename, content in parts:
        file = "" if filename is None else f'; filename="{filename}"'
        body += f'--xyz\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    body += b"--xyz--\r\n"
    assert pieces(body, data.draw(st.integers(1, len(body)))) == parts


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_damaged_forms_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        pieces(b"--xyz\r\n" + body.replace(b"--xyz--", b""), 7)


VEIL = Veil(ServeConfig(store="/srv/My Store", voices={"library": "/data/voices"}))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("/srv/My Store/takes/abc is not audio", "song.wav is not audio"),
        ("no space left for /srv/My Store/takes/.abc-12.part; free some", "no space left for song.wav; free some"),
        ("no voice 'x' in the library /data/voices: it is empty", "no voice 'x' in the voice library: it is empty"),
        ("cannot read /opt/secret/place/voice.pth: gone", "cannot read voice.pth: gone"),
        ("https://host.example/a/b.wav: nothing there", "https://host.example/a/b.wav: nothing there"),
        ("see GET /v1/voices/x", "see GET /v1/voices/x"),
        ("chromatic, 3/4/5 and/or", "chromatic, 3/4/5 and/or"),
    ],
)
def test_places_of_the_server_are_hidden(message: str, shown: str) -> None:
    assert VEIL.hide(message, {"takes/abc": "song.wav"}) == shown


def _all(kind: type[RocktopError]) -> list[type[RocktopError]]:
    return [kind, *(found for sub in kind.__subclasses__() for found in _all(sub))]


@pytest.mark.parametrize("kind", [k for k in _all(RocktopError) if k.__module__ == errors.__name__])
def test_every_error_becomes_a_problem(kind: type[RocktopError]) -> None:
    answer = respond(kind("what happened"), {"state": {"request_id": "id", "names": {}}}, VEIL)
    problem = json.loads(bytes(answer.body))
    assert answer.status_code == problem["status"] == kind.http_status
    assert answer.media_type == "application/problem+json"
    assert (problem["code"], problem["detail"], problem["request_id"]) == (kind.code, "what happened", "id")
    assert ("retry-after" in answer.headers) == (kind.http_status in (429, 503))
