"""The WebSocket protocol of ``/v1/stream``, version 1: what ``docs/stream.md`` says, as code for both sides.

Text messages are JSON objects (``messages.py``); binary ones are audio behind a header of 16 bytes. What comes from the
other side is checked here and nowhere else: whatever it is, the only error is ProtocolError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from rocktop_ray.errors import ProtocolError
from rocktop_ray.live.members import Members, read_object
from rocktop_ray.live.messages import (
    FORMATS,
    HEADER,
    LEAST_RATE,
    MOST_BLOCK_SECONDS,
    MOST_POSITION,
    MOST_RATE,
    MOST_REASON,
    MOST_SEQ,
    MOST_TEXT,
    PACES,
    TYPES,
    VERSION,
    Applied,
    Audio,
    Bypass,
    Change,
    ChangeVoice,
    ClientMessage,
    End,
    Ended,
    Flags,
    Format,
    Notice,
    Ping,
    Pong,
    Problem,
    Resume,
    ServerMessage,
    Spread,
    Start,
    Started,
    Stats,
    TextMessage,
    Unknown,
)

_AUDIO = 1
_FLAGS = 15
SAMPLE_BYTES: dict[Format, int] = {"f32": 4, "s16": 2}
_MOST_NAME = 256
_MOST_SETTINGS = 32
_HUGE = 1e15


def pack(message: TextMessage) -> str:
    """A text message as JSON; what is None is left out."""
    values: dict[str, Any] = {"type": TYPES[type(message)]}
    if isinstance(message, Start | Resume):
        values["version"] = VERSION
    for entry in fields(message):
        value = getattr(message, entry.name)
        if value is not None:
            values[entry.name] = vars(value) if isinstance(value, Spread) else value
    return json.dumps(values, allow_nan=False)


def pack_audio(audio: Audio, format: Format = "f32") -> bytes:
    """A binary message. ``s16`` clips at full scale (full scale is 32768)."""
    samples = audio.samples
    if format == "s16":
        data = np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype("<i2").tobytes()
    else:
        data = samples.astype("<f4", copy=False).tobytes()
    return HEADER.pack(_AUDIO, int(audio.flags), 0, audio.seq, audio.position) + data


def close_reason(text: str) -> str:
    """``text`` on one line, cut to what a closing frame holds."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line.encode("utf-8", "replace")[:MOST_REASON].decode("utf-8", "ignore")


def parse_audio(data: bytes, format: Format = "f32", rate: int = MOST_RATE) -> Audio:
    """A binary message of a stream at ``rate`` Hz. Raises ProtocolError."""
    if len(data) <= HEADER.size:
        raise ProtocolError(
            f"a block has a header of {HEADER.size} bytes and at least one sample; got {len(data)} bytes"
        )
    kind, flags, reserved, seq, position = HEADER.unpack_from(data)
    if kind != _AUDIO or reserved:
        raise ProtocolError(f"a block begins with 1, flags, 0, 0; got {data[:4].hex(' ')}")
    if position > MOST_POSITION:
        raise ProtocolError(f"positions reach to {MOST_POSITION}")
    width = SAMPLE_BYTES[format]
    count, rest = divmod(len(data) - HEADER.size, width)
    if rest:
        raise ProtocolError(f"{len(data) - HEADER.size} bytes are no whole number of {format} samples")
    if count > rate * MOST_BLOCK_SECONDS:
        raise ProtocolError(f"a block has at most {int(rate * MOST_BLOCK_SECONDS)} samples, 1 s; this one has {count}")
    if format == "s16":
        samples = np.frombuffer(data, "<i2", offset=HEADER.size).astype(np.float32) / np.float32(32768)
    else:
        samples = np.frombuffer(data, "<f4", offset=HEADER.size).astype(np.float32)
        if not np.isfinite(samples).all():
            raise ProtocolError("the block holds samples that are not numbers")
    return Audio(seq, position, samples, Flags(flags & _FLAGS))


def parse_client(message: str | bytes, format: Format = "f32", rate: int = MOST_RATE) -> ClientMessage:
    """What a client sent: text, or bytes of audio of a stream of that format and rate. Raises ProtocolError."""
    if isinstance(message, bytes):
        audio = parse_audio(message, format, rate)
        if audio.flags or message[1]:
            raise ProtocolError("blocks of a client carry no flags")
        return audio
    members = Members(read_object(message, MOST_TEXT), "the message")
    kind = members.text("type", 64)
    members = Members(members.values, f"the {kind!r} message")
    if kind not in _CLIENT:
        raise ProtocolError(f"a client sends no {kind!r}; known: {', '.join(_CLIENT)}")
    made, known = _CLIENT[kind]
    members.only(("type", *known))
    return made(members)


def parse_server(message: str | bytes, format: Format = "f32", rate: int = MOST_RATE) -> ServerMessage:
    """What a server sent. Members that are new are passed over, types that are new give Unknown.

    Raises ProtocolError.
    """
    if isinstance(message, bytes):
        return parse_audio(message, format, rate)
    members = Members(read_object(message, MOST_TEXT), "the server's message")
    kind = members.text("type", 64)
    return _SERVER[kind](members) if kind in _SERVER else Unknown(kind)


def _version(members: Members) -> None:
    version = members.whole("version", 0, MOST_SEQ)
    if version != VERSION:
        raise ProtocolError(f"this side speaks version {VERSION} of the stream's protocol, not {version}")


def _start(members: Members) -> Start:
    _version(members)
    rate = members.whole("rate", LEAST_RATE, MOST_RATE)
    return Start(
        members.text("voice", _MOST_NAME),
        rate,
        members.choice("format", FORMATS, "f32"),
        members.whole("block", 1, int(rate * MOST_BLOCK_SECONDS), rate // 25),
        members.choice("pace", PACES, "live"),
        members.plain("settings", _MOST_SETTINGS, {}),
        members.flag("bypass", False),
        members.text("key", _MOST_NAME, None),
    )


def _resume(members: Members) -> Resume:
    _version(members)
    return Resume(
        members.text("session", _MOST_NAME),
        members.text("secret", _MOST_NAME),
        members.whole("received", -1, MOST_SEQ, -1),
        members.text("key", _MOST_NAME, None),
    )


def _started(members: Members) -> Started:
    return Started(
        members.text("session", _MOST_NAME),
        members.text("secret", _MOST_NAME),
        members.text("voice", _MOST_NAME),
        members.whole("rate", LEAST_RATE, MOST_RATE),
        members.whole("delay", 0, 60 * MOST_RATE),
        members.number("delay_ms", 0, _HUGE),
        members.number("window", 0, 3600),
        members.whole("next", 0, MOST_SEQ),
        members.plain("settings", _MOST_SETTINGS),
        members.flag("exact", False),
    )


def _applied(members: Members) -> Applied:
    return Applied(
        members.plain("settings", _MOST_SETTINGS),
        members.text("voice", _MOST_NAME),
        members.flag("bypass"),
        members.whole("seq", 0, MOST_SEQ),
        members.whole("delay", 0, 60 * MOST_RATE),
    )


def _stats(members: Members) -> Stats:
    compute = members.inner("compute_ms")
    return Stats(
        members.number("seconds", 0, _HUGE),
        members.whole("seq", -1, MOST_SEQ),
        members.whole("kept", -1, MOST_SEQ),
        Spread(*(compute.number(name, 0, _HUGE) for name in ("p50", "p95", "max"))),
        members.number("queue_ms", 0, _HUGE),
        members.number("lateness_ms", -_HUGE, _HUGE),
        members.whole("late", 0, MOST_POSITION),
        members.whole("lost", 0, MOST_POSITION),
        members.whole("bypassed", 0, MOST_POSITION),
        members.number("load", 0, _HUGE),
        members.whole("sessions", 0, MOST_POSITION),
    )


def _problem(members: Members) -> Problem:
    return Problem(
        members.text("code", 64, "internal_error"),
        members.text("title", _MOST_NAME, "Error"),
        members.prose("detail", ""),
        members.whole("status", 100, 599, 500),
        members.text("stage", 64, "live"),
        members.text("request_id", _MOST_NAME, None),
        members.number("retry_after", 0, _HUGE, None),
    )


def _notice(members: Members) -> Notice:
    return Notice(members.text("code", 64), members.prose("message", ""), members.number("seconds", 0, _HUGE, None))


def _ended(members: Members) -> Ended:
    return Ended(*(members.whole(name, 0, MOST_POSITION) for name in ("samples", "late", "lost")))


_CLIENT: dict[str, tuple[Callable[[Members], ClientMessage], tuple[str, ...]]] = {
    "start": (_start, ("version", *(entry.name for entry in fields(Start)))),
    "resume": (_resume, ("version", *(entry.name for entry in fields(Resume)))),
    "settings": (lambda members: Change(members.plain("settings", _MOST_SETTINGS)), ("settings",)),
    "voice": (lambda members: ChangeVoice(members.text("voice", _MOST_NAME)), ("voice",)),
    "bypass": (lambda members: Bypass(members.flag("on")), ("on",)),
    "ping": (lambda members: Ping(members.any("at")), ("at",)),
    "end": (lambda members: End(), ()),
}
_SERVER: dict[str, Callable[[Members], ServerMessage]] = {
    "started": _started,
    "applied": _applied,
    "pong": lambda members: Pong(members.any("at")),
    "stats": _stats,
    "notice": _notice,
    "error": _problem,
    "ended": _ended,
}
