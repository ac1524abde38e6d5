"""Reads the encoder out of a CTranslate2 Whisper ``model.bin`` and keeps it as safetensors.

Format (version 5 and later, little endian): u32 version, string spec name, u32 spec revision, u32 count, then per
tensor string name, u8 rank, u32 sizes, u8 type, u32 bytes, data; then aliases. A string is a u16 length (with the
closing zero) and its bytes. Nothing in the file is executed.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import BinaryIO

import torch

from rocktop_ray.errors import VoiceFormatError

FORMAT = "rocktop-whisper-encoder"
_TYPES = {0: torch.float32, 2: torch.int16, 3: torch.int32, 4: torch.float16, 5: torch.bfloat16}
_MAX_TENSORS = 10_000
_OUTER = {
    "encoder/conv1/": "conv1.",
    "encoder/conv2/": "conv2.",
    "encoder/layer_norm/": "norm.",
}
_INNER = {
    "self_attention/layer_norm/": "attention_norm.",
    "self_attention/linear_0/": "qkv.",
    "self_attention/linear_1/": "out.",
    "ffn/layer_norm/": "ffn_norm.",
    "ffn/linear_0/": "ffn_in.",
    "ffn/linear_1/": "ffn_out.",
}
_LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def convert_encoder(source: Path, target: Path, *, about: dict[str, str]) -> None:
    """Write the encoder of ``model.bin`` ``source`` to ``target``: float16 safetensors, sizes and ``about`` inside.

    Raises VoiceFormatError if ``source`` is no float Whisper model.
    """
    tensors = read_tensors(source, prefix="encoder/")
    state = {ours: tensors[theirs] for theirs in tensors if (ours := _our_name(theirs)) is not None}
    heads = tensors.get("encoder/num_heads")
    if (
        heads is None
        or heads.numel() != 1
        or "conv1.weight" not in state
        or any(not value.is_floating_point() for value in state.values())
    ):
        raise VoiceFormatError(f"{source.name}: no float Whisper encoder inside", stage="content")
    layers = 1 + max((int(name.split(".")[1]) for name in state if name.startswith("blocks.")), default=-1)
    config = {"width": state["conv1.weight"].shape[0], "heads": int(heads), "layers": layers}
    metadata = {"rocktop": json.dumps({"format": FORMAT, "version": 1, **config, **about}, sort_keys=True)}
    _write_half(state, metadata, target)


def read_tensors(path: Path, *, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a CTranslate2 ``model.bin`` whose names start with ``prefix``.

    Raises VoiceFormatError on anything that is no such file, or a truncated one.
    """
    with path.open("rb") as file:
        try:
            return _read(file, path.stat().st_size, prefix)
        except (struct.error, UnicodeDecodeError, KeyError, ValueError, RuntimeError) as error:
            raise VoiceFormatError(
                f"{path.name}: not a CTranslate2 model, or cut short ({error})", stage="content"
            ) from error


def _write_half(state: dict[str, torch.Tensor], metadata: dict[str, str], target: Path) -> None:
    """Float16 safetensors, tensors in order of name: written here, so that a model is the same bytes everywhere."""
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    for name, value in sorted(state.items()):
        size = 2 * value.numel()
        header[name] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, value in sorted(state.items()):
            file.write(value.half().contiguous().numpy().astype("<f2", copy=False).tobytes())


def _read(file: BinaryIO, size: int, prefix: str) -> dict[str, torch.Tensor]:
    (version,) = _unpack(file, "<I")
    if not 5 <= version <= 6:
        raise ValueError(f"binary version {version}, expected 5 or 6")
    _string(file)
    _, count = _unpack(file, "<II")
    if count > _MAX_TENSORS:
        raise ValueError(f"{count} tensors")
    tensors = {}
    for _ in range(count):
        name = _string(file)
        (rank,) = _unpack(file, "<B")
        shape = _unpack(file, f"<{rank}I")
        kind, length = _unpack(file, "<BI")
        if file.tell() + length > size:
            raise ValueError(f"{name} needs {length} bytes, the file ends before")
        if name.startswith(prefix):
            data = bytearray(file.read(length))
            tensors[name] = torch.frombuffer(data, dtype=_TYPES[kind]).reshape(shape)
        else:
            file.seek(length, 1)
    return tensors


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<H")
    return file.read(length).rstrip(b"\0").decode()


def _our_name(name: str) -> str | None:
    """``encoder/layer_3/ffn/linear_0/weight`` -> ``blocks.3.ffn_in.weight``; None for what is not kept."""
    stem, _, leaf = name.rpartition("/")
    stem += "/"
    if stem in _OUTER:
        return _OUTER[stem] + _LEAVES[leaf]
    if not stem.startswith("encoder/layer_"):
        return None
    layer, _, rest = stem.removeprefix("encoder/layer_").partition("/")
    return f"blocks.{int(layer)}.{_INNER[rest]}{_LEAVES[leaf]}" if rest in _INNER else None
