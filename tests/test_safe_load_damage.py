"""Weight files that are damaged at random."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from weight_files import equal, put, sample, saved, zip_of

from rocktop_ray.errors import RocktopError, VoiceFormatError
from rocktop_ray.voices.safe_load import is_safetensors, load_metadata, load_pickle_tensors, load_safetensors
from rocktop_ray.voices.safetensors_file import safetensors_bytes

SMALL = {
    "weight": {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2).half()},
    "config": [1, "1", [2]],
    "f0": 1,
}
EDITS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6)


def mutated(data: bytes, edits, cut: int) -> bytes:
    changed = bytearray(data)
    for place, value in edits:
        changed[place % len(data)] = value
    return bytes(changed[: len(data) - cut % 8 if cut < 32 else None])


def loads_or_refuses(path: Path, load) -> None:
    try:
        load(path)
    except RocktopError as error:
        assert error.message and "\n" not in error.message


@settings(max_examples=400, deadline=None)
@given(
    edits=EDITS,
    cut=st.integers(0, 255),
    kind=st.sampled_from(["zip", "stream", "pickle"]),
    protocol=st.sampled_from([2, 4]),
)
def test_damage_is_told_not_raised(tmp_path_factory, edits, cut, kind, protocol):
    if kind == "pickle":  # damaged inside a sound zip, so that no checksum stops it
        with zipfile.ZipFile(io.BytesIO(saved(SMALL, protocol=protocol))) as archive:
            parts = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
        storages = {name[5:]: data for name, data in parts.items() if name.startswith("data/")}
        data = zip_of(mutated(parts["data.pkl"], edits, cut), storages)
    else:
        data = mutated(saved(SMALL, kind == "zip", protocol), edits, cut)
    loads_or_refuses(put(tmp_path_factory.getbasetemp(), data, "fuzz.pth"), load_pickle_tensors)


NAMES = [
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter",
    "torch FloatStorage",
    "torch float16",
    "torch Size",
    "torch device",
    "collections OrderedDict",
    "collections defaultdict",
    "builtins set",
    "builtins dict",
    "builtins list",
    "builtins int",
    "_codecs encode",
    "numpy dtype",
    "numpy.core.multiarray scalar",
    "numpy.ndarray x",
    "argparse Namespace",
    "fairseq.data.dictionary Dictionary",
]
STEPS = [
    *(f"c{name.replace(' ', chr(10), 1)}\n".encode() for name in NAMES),
    *(bytes([op]) for op in b"(}])NRbtaesu012ldQ\x85\x86\x87\x88\x89\x81\x8f\x90\x91\x94"),
    b"K\x00",
    b"K\x02",
    b"J\xff\xff\xff\xff",
    b"X\x01\x00\x00\x00a",
    b"X\x07\x00\x00\x00storage",
    b"X\x06\x00\x00\x00latin1",
    b"X\x02\x00\x00\x00f8",
    b"C\x08\x00\x00\x00\x00\x00\x00\xf0?",
    b"G?\xf0\x00\x00\x00\x00\x00\x00",
    b"q\x00",
    b"h\x00",
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=12), st.booleans())
def test_any_program_gives_plain_data_or_is_refused(tmp_path_factory, steps, inside):
    program = b"".join(steps)
    pickled = b"}K\x01" + program + b"s." if inside else program + b"."
    path = put(tmp_path_factory.getbasetemp(), zip_of(pickled, {"0": bytes(24)}), "program.pth")
    loads_or_refuses(path, load_pickle_tensors)


@settings(max_examples=200, deadline=None)
@given(edits=EDITS, cut=st.integers(0, 255))
def test_damaged_safetensors(tmp_path_factory, edits, cut):
    data = safetensors_bytes({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2).half()}, {"format": "x", "n": "1"})
    path = put(tmp_path_factory.getbasetemp(), mutated(data, edits, cut), "fuzz.safetensors")
    loads_or_refuses(path, load_safetensors)
    loads_or_refuses(path, is_safetensors)


def test_safetensors_both_ways(tmp_path):
    tensors = {name: value for name, value in sample().items() if isinstance(value, torch.Tensor)}
    path = put(tmp_path, safetensors_bytes(tensors, {"k": "ü"}), "x.safetensors")
    theirs = safetensors.torch.load_file(path)
    assert all(equal(tensors[name].detach(), theirs[name]) for name in tensors)
    plain = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    safetensors.torch.save_file(plain, path, {"k": "ü"})
    ours, metadata = load_safetensors(path)
    assert metadata == load_metadata(path) == {"k": "ü"} and is_safetensors(path)
    assert all(equal(plain[name], ours[name]) for name in plain)


def test_safetensors_headers_are_checked(tmp_path):
    def file(header, body=bytes(24), length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return put(tmp_path, struct.pack("<Q", len(text) if length is None else length) + text + body, "x.safetensors")

    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    assert load_safetensors(file({"a": entry}))[0]["a"].shape == (2, 3)
    bad = [
        {"a": {**entry, "data_offsets": [0, 28]}},
        {"a": {**entry, "data_offsets": [24, 0]}},
        {"a": {**entry, "data_offsets": [-24, 0]}},
        {"a": {**entry, "shape": [1 << 40, 1 << 40]}},
        {"a": {**entry, "shape": [2, 3.0]}},
        {"a": {**entry, "shape": None}},
        {"a": {**entry, "dtype": "OBJECT"}},
        {"a": entry, "b": entry},
        {"a": []},
        {"a": {}},
        {"__metadata__": {"k": 1}, "a": entry},
        {"__metadata__": [], "a": entry},
        [],
        b"{" * 100_000,
        b"[" * 100_000,
        b"\xff\xfe",
    ]
    for header in bad:
        with pytest.raises(VoiceFormatError, match=r"^x\.safetensors: "):
            load_safetensors(file(header))
    for length in (1 << 63, 1 << 20, 0):
        with pytest.raises(VoiceFormatError):
            load_safetensors(file({"a": entry}, length=length))
    with pytest.raises(VoiceFormatError, match="allowed"):
        load_safetensors(file({"a": entry}), max_bytes=10)
