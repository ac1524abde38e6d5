"""A Whisper encoder's file, small and random."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

WIDTH, HEADS, LAYERS = 16, 4, 2


def model_bin(path: Path, *, width: int = WIDTH, layers: int = LAYERS, version: int = 6) -> dict[str, np.ndarray]:
    """A CTranslate2 Whisper file with random float16 weights, and those weights by their names in the file."""
    random = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "conv1/weight": (width, 80, 3),
        "conv1/bias": (width,),
        "conv2/weight": (width, width, 3),
        "conv2/bias": (width,),
        "layer_norm/gamma": (width,),
        "layer_norm/beta": (width,),
        "position_encodings/encodings": (1500, width),
    }
    for layer in range(layers):
        stem = f"layer_{layer}/"
        for norm in ("self_attention/layer_norm", "ffn/layer_norm"):
            shapes |= {f"{stem}{norm}/gamma": (width,), f"{stem}{norm}/beta": (width,)}
        for name, out, inside in (
            ("self_attention/linear_0", 3 * width, width),
            ("self_attention/linear_1", width, width),
            ("ffn/linear_0", 4 * width, width),
            ("ffn/linear_1", width, 4 * width),
        ):
            shapes |= {f"{stem}{name}/weight": (out, inside), f"{stem}{name}/bias": (out,)}
    tensors = {
        f"encoder/{name}": (0.3 * random.standard_normal(shape)).astype(np.float16) for name, shape in shapes.items()
    }
    for name in tensors:
        if name.endswith("gamma"):
            tensors[name] += np.float16(1)
    tensors["decoder/embeddings/weight"] = np.zeros((40, width), np.float16)

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors) + 1)
    data += text("encoder/num_heads") + struct.pack("<BBIh", 0, 2, 2, HEADS)
    for name, value in tensors.items():
        data += (
            text(name) + struct.pack(f"<B{value.ndim}IBI", value.ndim, *value.shape, 4, value.nbytes) + value.tobytes()
        )
    path.write_bytes(data + struct.pack("<I", 0))
    return tensors
