"""A session as bytes, so that it can go on at another gateway: the engine's state at one point of the stream, what was
answered shortly before it, and the blocks that came since.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rocktop_ray.errors import RocktopError, SessionGoneError, StreamStateError
from rocktop_ray.live.messages import Audio, Change, ChangeVoice, Flags, Format, Pace
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.session.tape import Block, How
from serve_apps.orders import VoiceRef

_MAGIC = b"rocktop-session-2\n"
Wish = Change | ChangeVoice
"""A change that is not ready yet."""


@dataclass(frozen=True)
class Head:
    """What stays the same in a session."""

    session: str
    owner: str | None
    """Name of the API key that made it."""
    rate: int
    format: Format
    block: int
    """Samples of the usual block."""
    grid: int
    """Samples that pieces are multiples of."""
    pace: Pace

    @property
    def live(self) -> bool:
        """Whether its blocks have deadlines."""
        return self.pace == "live"


@dataclass(frozen=True)
class Totals:
    """Blocks since the session began."""

    answered: int = 0
    late: int = 0
    lost: int = 0
    bypassed: int = 0


@dataclass(frozen=True)
class Save:
    """A session at a point of its stream: position ``fed``, where piece ``index`` begins."""

    head: Head
    how: How
    asked: dict[str, Any]
    """The settings that the client chose itself; the others are the voice's."""
    began: float
    """Where the stream's clock was 0: seconds since 1970 at which it would have begun, had its client kept to real time
    ever since. Tells on every connection how far ahead the client is, so gateways' clocks must agree to a second.
    """
    index: int
    fed: int
    state: bytes | None
    """Of the engine; None at the very beginning."""
    seq: int
    """Of the block that is wanted next: the first one that is not behind ``fed`` as a whole."""
    at: int
    """Where it begins."""
    dry: Array
    wet: Array
    """The converted from ``at`` to ``fed``."""
    share: float
    heard: Array
    """See ``concealment.Joiner``."""
    outputs: tuple[Audio, ...]
    """The last answers before ``seq``: the client may not have got them."""
    totals: Totals
    blocks: tuple[Block, ...] = ()
    """Those that came since, from ``seq`` on."""
    wishes: tuple[Wish, ...] = ()
    """Changes that were not ready: the client may not have them any more."""


def pack_save(save: Save) -> bytes:
    """The save as bytes."""
    hows: list[How] = [save.how]
    for block in save.blocks:
        if block.how != hows[-1]:
            hows.append(block.how)
    numbers: list[int] = []
    at = 0
    for block in save.blocks:
        at = hows.index(block.how, at)
        numbers.append(at)
    header = {
        "head": asdict(save.head),
        "hows": [_plain(how) for how in hows],
        "asked": save.asked,
        "numbers": [save.began, save.index, save.fed, save.seq, save.at, save.share],
        "totals": asdict(save.totals),
        "arrays": [len(save.dry), len(save.wet), len(save.heard)],
        "outputs": [[out.seq, out.position, int(out.flags), len(out.samples)] for out in save.outputs],
        "blocks": [[len(block.samples), number] for block, number in zip(save.blocks, numbers, strict=True)],
        "wishes": [wish.voice if isinstance(wish, ChangeVoice) else wish.settings for wish in save.wishes],
        "state": -1 if save.state is None else len(save.state),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    arrays = [save.dry, save.wet, save.heard, *(out.samples for out in save.outputs)]
    arrays += [block.samples for block in save.blocks]
    waves = [array.astype("<f4", copy=False).tobytes() for array in arrays]
    return b"".join([_MAGIC, struct.pack("<I", len(text)), text, *waves, save.state or b""])


def unpack_save(data: bytes) -> Save:
    """What ``pack_save`` made. Raises StreamStateError if it was made by another version, or is damaged."""
    try:
        if not data.startswith(_MAGIC):
            raise ValueError("made by another version")
        (size,) = struct.unpack_from("<I", data, len(_MAGIC))
        start = len(_MAGIC) + 4
        header = json.loads(data[start : start + size])
        waves = _Waves(data, start + size)
        hows = [_how(entry) for entry in header["hows"]]
        began, index, fed, seq, at, share = header["numbers"]
        dry, wet, heard = (waves.next(length) for length in header["arrays"])
        outputs = tuple(
            Audio(number, position, waves.next(length), Flags(flags))
            for number, position, flags, length in header["outputs"]
        )
        blocks, position = [], at
        for offset, (length, how) in enumerate(header["blocks"]):
            blocks.append(Block(seq + offset, position, waves.next(length), hows[how]))
            position += length
        state = None if header["state"] < 0 else waves.rest(header["state"])
        return Save(
            head=Head(**header["head"]),
            how=hows[0],
            asked=dict(header["asked"]),
            began=began,
            index=index,
            fed=fed,
            state=state,
            seq=seq,
            at=at,
            dry=dry,
            wet=wet,
            share=share,
            heard=heard,
            outputs=outputs,
            totals=Totals(**header["totals"]),
            blocks=tuple(blocks),
            wishes=tuple(_wish(entry) for entry in header.get("wishes", ())),
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error, RocktopError) as error:
        raise StreamStateError(f"the parked session cannot be read ({error}): begin a new one") from error


def resumed(save: Save, received: int, now: float) -> Save:
    """The save as a new connection goes on from it: what the client has needs no second answer.

    received: sequence number of the last answer that it got. now: for the blocks that came before. Raises
    SessionGoneError where an answer is missed that is not kept any more.
    """
    first = save.outputs[0].seq if save.outputs else save.seq
    if received + 1 < first:
        raise SessionGoneError(
            f"the answers from {received + 1} on are missed, and those before {first} are not kept any more: start "
            "anew and keep to the window"
        )
    blocks = [replace(block, known=block.seq <= received, arrived=now, due=math.inf) for block in save.blocks]
    return replace(save, blocks=tuple(blocks), outputs=tuple(out for out in save.outputs if out.seq > received))


def shortly(outputs: Sequence[Audio], before: int, samples: int) -> tuple[Audio, ...]:
    """The last answers before a sequence number: at least so many samples, if there are."""
    found: list[Audio] = []
    for out in reversed(outputs):
        if out.seq < before:
            if samples <= 0:
                break
            found.append(out)
            samples -= len(out.samples)
    return tuple(reversed(found))


class _Waves:
    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._at = data, start

    def next(self, length: int) -> Array:
        return np.frombuffer(self.rest(length * 4), "<f4").astype(np.float32)

    def rest(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        if length < 0 or len(found) != length:
            raise ValueError("cut short")
        self._at += length
        return found


def _plain(how: How) -> dict[str, Any]:
    return {"voice": [how.voice.id, how.voice.name], "settings": asdict(how.settings), "bypass": how.bypass}


def _how(values: dict[str, Any]) -> How:
    return How(VoiceRef(*values["voice"]), ConvertSettings.from_mapping(values["settings"]), values["bypass"])


def _wish(value: str | dict[str, Any]) -> Wish:
    return ChangeVoice(value) if isinstance(value, str) else Change(dict(value))
