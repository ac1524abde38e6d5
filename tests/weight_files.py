"""Weight files as torch writes them, for tests."""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

MARK = "rocktop_test_was_run"


def saved(data, zipped=True, protocol=2) -> bytes:
    stream = io.BytesIO()
    torch.save(data, stream, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return stream.getvalue()


def put(tmp_path: Path, data: bytes, name="x.pth") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def zip_of(pickled: bytes, storages: dict[str, bytes] | None = None, **extra: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"x/data/{key}", data)
        for name, data in extra.items():
            archive.writestr(f"x/{name}", data)
    return stream.getvalue()


def sample() -> dict:
    shared = torch.arange(12.0)
    return {
        "f16": torch.randn(3, 4).half(),
        "bf16": torch.randn(2).bfloat16(),
        "f64": torch.randn(2).double(),
        "i64": torch.tensor([1, -2]),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "transposed": torch.randn(3, 4).t(),
        "view": shared[2:8:2],
        "same": shared,
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "module": torch.nn.Linear(2, 3).state_dict(),
        "ordered": OrderedDict([("a", 1), ("b", (1, 2.5, None, True))]),
        "text": "Grüße\n",
        "bytes": b"\x00\xff",
        "big": 2**80,
        "list": [[], {}, ()],
        3: -1,
    }


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b) and not b.requires_grad
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


class Runs:
    """Pickles to a call that leaves a mark."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments
