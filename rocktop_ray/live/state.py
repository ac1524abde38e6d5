"""Stream states to bytes and back, so that a session can go on in another process.

A state is a tree of frozen dataclasses, tuples, tensors, arrays and plain numbers. The bytes hold its leaves only; the
shape of the tree, and what each leaf must look like, come from a fresh state of the same stream. So what is read can
neither run code nor be larger than what the stream itself would hold.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from rocktop_ray.errors import StreamStateError

State = TypeVar("State")

_MAGIC = b"rocktop-stream-1\n"
_MOST_HEADER = 1 << 20
_MOST_TEXT = 4096
_MOST_NUMBER = 2**53


def pack(state: object) -> bytes:
    """The state as bytes: a line that names the format, the leaves as JSON, then the arrays' values."""
    header: list[Any] = []
    values: list[bytes | memoryview] = []
    for leaf in _leaves(state):
        if isinstance(leaf, np.ndarray):
            header.append({"type": leaf.dtype.str, "shape": leaf.shape})
            values.append(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        else:
            header.append(leaf)
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    return b"".join([_MAGIC, struct.pack("<I", len(text)), text, *values])


def unpack(data: bytes, like: State) -> State:
    """The state in ``data``, for the stream that ``like`` is a state of. Raises StreamStateError if it does not fit."""
    if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + 4:
        raise StreamStateError("these bytes are not the state of a stream, or of another version")
    (size,) = struct.unpack_from("<I", data, len(_MAGIC))
    start = len(_MAGIC) + 4 + size
    if size > _MOST_HEADER or start > len(data):
        raise StreamStateError("the state of the stream is cut short or damaged")
    try:
        header = json.loads(data[len(_MAGIC) + 4 : start])
    except (ValueError, RecursionError) as error:
        raise StreamStateError("the state of the stream is damaged") from error
    expected = list(_leaves(like))
    if not isinstance(header, list) or len(header) != len(expected):
        raise StreamStateError("the state is one of another kind of stream: start the stream anew")
    leaves: list[object] = []
    for found, leaf in zip(header, expected, strict=True):
        if isinstance(leaf, np.ndarray):
            if found != {"type": leaf.dtype.str, "shape": list(leaf.shape)}:
                raise StreamStateError(
                    f"the state holds {found!r:.80} where this stream has {leaf.dtype} of shape {list(leaf.shape)}"
                )
            end = start + leaf.nbytes
            if end > len(data):
                raise StreamStateError("the state of the stream is cut short")
            array = np.frombuffer(data, leaf.dtype, leaf.size, start).reshape(leaf.shape).copy()
            if leaf.dtype.kind == "f" and not np.isfinite(array).all():
                raise StreamStateError("the state of the stream holds values that are not numbers")
            leaves.append(array)
            start = end
        else:
            leaves.append(_plain(found, leaf))
    if start != len(data):
        raise StreamStateError("the state of the stream is longer than it should be")
    return _rebuilt(like, iter(leaves))


def join(parts: Sequence[bytes]) -> bytes:
    """Parts of a larger state, behind each other."""
    return b"".join(piece for part in parts for piece in (struct.pack("<I", len(part)), part))


def split(data: bytes) -> list[bytes]:
    """What ``join`` joined, at least one part. Raises StreamStateError."""
    parts: list[bytes] = []
    at = 0
    while at < len(data) or not parts:
        size = struct.unpack_from("<I", data, at)[0] if at + 4 <= len(data) else len(data)
        if at + 4 + size > len(data):
            raise StreamStateError("the state of the stream is cut short or damaged")
        parts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return parts


def _plain(found: object, like: object) -> object:
    """A number, flag or text of the type that is expected."""
    if type(found) is not type(like):
        raise StreamStateError(f"the state holds {found!r:.80} where this stream has a {type(like).__name__}")
    if isinstance(found, str) and len(found) > _MOST_TEXT:
        raise StreamStateError("the state of the stream holds a text that is too long")
    if isinstance(found, int | float) and not (math.isfinite(found) and abs(found) <= _MOST_NUMBER):
        raise StreamStateError("the state of the stream holds a number out of range")
    return found


def _leaves(state: object) -> Iterator[Any]:
    """Arrays and plain values in the order of the fields."""
    if is_dataclass(state) and not isinstance(state, type):
        for field in fields(state):
            yield from _leaves(getattr(state, field.name))
    elif isinstance(state, tuple):
        for part in state:
            yield from _leaves(part)
    elif isinstance(state, torch.Tensor):
        yield state.numpy()
    elif isinstance(state, np.ndarray | bool | int | float | str):
        yield state
    elif state is not None:
        raise TypeError(f"a stream state cannot hold a {type(state).__name__}")


def _rebuilt(like: Any, leaves: Iterator[Any]) -> Any:
    if is_dataclass(like) and not isinstance(like, type):
        return type(like)(**{field.name: _rebuilt(getattr(like, field.name), leaves) for field in fields(like)})
    if isinstance(like, tuple):
        return tuple(_rebuilt(part, leaves) for part in like)
    if isinstance(like, torch.Tensor):
        return torch.from_numpy(next(leaves))
    return None if like is None else next(leaves)
