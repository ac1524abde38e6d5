"""Read ``.safetensors`` files with every declared size checked against the file first."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Mapping
from math import prod
from typing import IO, Any

import numpy as np
import torch

from rocktop_ray.errors import VoiceFormatError

MAX_HEADER = 16 << 20
"""Longest header in bytes."""
_DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "BOOL": torch.bool,
}


def read_safetensors(file: IO[bytes], max_bytes: int) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and string metadata. Raises VoiceFormatError, ValueError, KeyError, TypeError or EOFError if damaged."""
    header, metadata, start = _header(file)
    size = file.seek(0, io.SEEK_END)
    room = size - start
    if room > max_bytes:
        raise VoiceFormatError(f"{room} bytes of tensors, at most {max_bytes} are allowed")
    places = []
    for name, entry in header.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise VoiceFormatError(f"tensor {name!r} has type {entry['dtype']!r}, which is not supported")
        shape, (begin, end) = _ints(entry["shape"]), _ints(entry["data_offsets"])
        if not 0 <= begin <= end <= room or prod(shape) * dtype.itemsize != end - begin:
            raise VoiceFormatError(f"tensor {name!r} of shape {shape} does not fit its bytes: damaged or cut off")
        places.append((begin, end, name, dtype, shape))
    places.sort(key=lambda place: place[:2])
    for before, after in itertools.pairwise(places):
        if after[0] < before[1]:
            raise VoiceFormatError(f"tensors {before[2]!r} and {after[2]!r} overlap")
    tensors = {}
    for begin, end, name, dtype, shape in places:
        file.seek(start + begin)
        tensors[name] = read_bytes(file, end - begin).view(dtype).reshape(shape)
    return {name: tensors[name] for name in header}, metadata


def read_metadata(file: IO[bytes]) -> dict[str, str]:
    """Only the string metadata. Raises as ``read_safetensors``."""
    return _header(file)[1]


def _header(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, str], int]:
    """Tensor entries, metadata, and where the tensors' bytes start."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size < 8:
        raise VoiceFormatError("not a safetensors file: shorter than its header")
    length = int.from_bytes(file.read(8), "little")
    if length > min(MAX_HEADER, size - 8):
        raise VoiceFormatError(f"not a safetensors file, or cut off: header of {length} bytes in a file of {size}")
    header = json.loads(file.read(length).decode("utf-8"))
    if not isinstance(header, dict):
        raise VoiceFormatError("not a safetensors file: its header is no object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise VoiceFormatError("safetensors metadata must be strings")
    return header, metadata, 8 + length


def _ints(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(item) is int and 0 <= item < 1 << 48 for item in value):
        raise ValueError(f"expected a list of sizes, found {str(value)[:60]}")
    return value


def read_bytes(stream: IO[bytes], count: int) -> torch.Tensor:
    """``count`` bytes as a uint8 tensor that owns them."""
    buffer = torch.empty(count, dtype=torch.uint8)
    view = buffer.numpy()
    done = 0
    while done < count:
        piece = stream.read(min(count - done, 1 << 22))
        if not piece:
            raise EOFError("a tensor's bytes are missing")
        view[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    return buffer


def safetensors_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. Tensors keep their order, types and bits. Raises VoiceFormatError for other types."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, at = [], 0
    for name, tensor in tensors.items():
        if tensor.dtype not in names:
            raise VoiceFormatError(f"tensor {name!r} of type {tensor.dtype} cannot be written as safetensors")
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + len(data)],
        }
        parts.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])
