import argparse
import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import RocktopError, StorageError, UnsafeFileError, VoiceFormatError, VoiceNotFoundError
from rocktop_ray.voices.safe_load import Inert, is_safetensors, load_metadata, load_pickle_tensors, load_safetensors
from rocktop_ray.voices.safetensors_file import safetensors_bytes

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


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_torch_writes(tmp_path, zipped, protocol):
    data = sample()
    assert equal(data, load_pickle_tensors(put(tmp_path, saved(data, zipped, protocol))))


def test_numpy_numbers_sizes_types_and_sets(tmp_path):
    data = {"n": np.float64(2.5), "i": np.int32(-3), "size": torch.Size([1, 2]), "set": {4}, "dtype": torch.float16}
    loaded = load_pickle_tensors(put(tmp_path, saved(data)))
    assert loaded == {"n": 2.5, "i": -3, "size": (1, 2), "set": [4], "dtype": torch.float16}


def test_skipped_keys_are_not_read(tmp_path):
    pickled = saved({"model": {"a": torch.ones(2)}, "optimizer": torch.zeros(1000)})
    loaded = load_pickle_tensors(put(tmp_path, pickled), skip=("optimizer",), max_bytes=len(pickled))
    assert list(loaded) == ["model"]


@pytest.mark.parametrize("zipped", [True, False])
def test_bookkeeping_objects_are_inert(tmp_path, monkeypatch, zipped):
    """A HuBERT checkpoint names fairseq's Dictionary: no such module is imported, its attributes are plain data."""
    module = types.ModuleType("fairseq.data.dictionary")
    kind = type("Dictionary", (), {"__module__": "fairseq.data.dictionary"})
    module.Dictionary = kind
    for name in ("fairseq", "fairseq.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "fairseq.data.dictionary", module)
    entry = kind()
    entry.symbols = ["a", "b"]
    data = {
        "args": argparse.Namespace(rate=16000),
        "task_state": {"dictionaries": [entry]},
        "model": {"w": torch.ones(2)},
    }
    path = put(tmp_path, saved(data, zipped))
    for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
        monkeypatch.delitem(sys.modules, name)
    loaded = load_pickle_tensors(path)
    assert loaded["task_state"]["dictionaries"] == [
        Inert("fairseq.data.dictionary.Dictionary", {"symbols": ["a", "b"]})
    ]
    assert loaded["args"] == Inert("argparse.Namespace", {"rate": 16000})
    assert torch.equal(loaded["model"]["w"], torch.ones(2))
    assert "fairseq" not in sys.modules


class Runs:
    """Pickles to a call that leaves a mark."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


CALLS = [
    (os.system, f"echo > {MARK}"),
    (exec, f"import os; os.environ[{MARK!r}] = '1'"),
    (eval, f"__import__('os').environ.__setitem__({MARK!r}, '1')"),
    (os.putenv, MARK, "1"),
    (__import__, "antigravity"),
    (getattr, {}, "__class__"),
    (torch.load, "other.pth"),
    (np.load, "x.npy"),
    (io.open, MARK, "w"),
    (types.SimpleNamespace,),
    (torch.nn.Linear, 1, 1),
]


@pytest.mark.parametrize("call", CALLS, ids=[getattr(call[0], "__name__", "?") for call in CALLS])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_refused_by_name(tmp_path, monkeypatch, call, zipped, protocol):
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, saved({"weight": {}, "x": Runs(*call)}, zipped, protocol))
    with pytest.raises(
        UnsafeFileError, match=r"x\.pth: asks for '.*\..*' *, which a file of weights never needs[^\n]*$"
    ):
        load_pickle_tensors(path)
    assert not Path(MARK).exists() and MARK not in os.environ


ATTACKS = {
    "inst": b"(S'echo'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'echo'\no.",
    "extension": b"\x82\x01.",
    "text persistent id": b"Pstorage\n.",
    "call of a value": b"}(}tR.",
    "call of a string": b"S'os.system'\n(tR.",
    "state of a class": b"ccollections\nOrderedDict\n}S'update'\nccollections\nOrderedDict\nsb.",
    "state of a list": b"]}b.",
    "dotted name": b"\x80\x04\x8c\x05torch\x8c\x12_utils.sys.modules\x93.",
    "known name from another module": b"cevil\nOrderedDict\n)R.",
    "prefix of an allowed package": b"cfairseqevil\nx\n)R.",
    "builder without tensor": b"ctorch._utils\n_rebuild_tensor_v2\n(}K\x00))t R.",
    "encode to another codec": b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00base64tR.",
    "numpy object array": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntRS'12345678'\ntR.",
    "unhashable key": b"}]K\x01s.",
    "contains itself": b"}q\x00S'a'\nh\x00s.",
    "deep": b"}S'a'\n" + b"(" * 5000 + b"t" * 5000 + b"s.",
    "underflow": b"0.",
    "huge memo number": b"}r\xff\xff\xff\x7f.",
    "huge string": b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "no end": b"}" * 10,
    "not a dictionary": b"]q\x00.",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_crafted_pickles_are_refused(tmp_path, name):
    pickled = ATTACKS[name]
    if name == "huge memo number":  # the machine's memo is a table by number: nothing large is made
        assert load_pickle_tensors(put(tmp_path, zip_of(pickled))) == {}
        return
    with pytest.raises((UnsafeFileError, VoiceFormatError)):
        load_pickle_tensors(put(tmp_path, zip_of(pickled)))


def tensor_pickle(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A dictionary with one float tensor that declares what is asked."""

    class Storage:
        pass

    class Pickler(pickle._Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(obj, Storage) else None

    stream = io.BytesIO()
    call = Runs(torch._utils._rebuild_tensor_v2, Storage(), offset, size, stride, False, OrderedDict())
    Pickler(stream, 2).dump({"w": call})
    return stream.getvalue()


def test_declared_sizes_are_held_against_the_data(tmp_path):
    good = zip_of(tensor_pickle(6, (2, 3), (3, 1)), {"0": bytes(24)})
    assert load_pickle_tensors(put(tmp_path, good))["w"].shape == (2, 3)
    for count, size, stride, offset in [
        (1 << 38, (1 << 38,), (1,), 0),  # a terabyte declared, 24 bytes there
        (6, (1 << 40,), (0,), 0),  # one number, repeated
        (6, (7,), (1,), 0),
        (6, (2, 3), (4, 1), 0),
        (6, (6,), (1,), 1),
        (6, (2,), (-1,), 1),
        (6, (2, 3), (3,), 0),
        (7, (7,), (1,), 0),
        (6, (1,) * 9, (1,) * 9, 0),
        (6, (True,), (1,), 0),
    ]:
        path = put(tmp_path, zip_of(tensor_pickle(count, size, stride, offset), {"0": bytes(24)}))
        with pytest.raises(VoiceFormatError):
            load_pickle_tensors(path)
    with pytest.raises(VoiceFormatError, match="missing"):
        load_pickle_tensors(put(tmp_path, zip_of(tensor_pickle(6, (6,), (1,)))))


def test_zip_tricks(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", tensor_pickle(1 << 24, (1 << 24,), (1,)))
        archive.writestr("x/data/0", bytes(1 << 26))
    bomb = put(tmp_path, stream.getvalue())
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(VoiceFormatError, match="allowed"):
        load_pickle_tensors(bomb, max_bytes=1 << 25)
    good = tensor_pickle(6, (6,), (1,))
    with pytest.raises(UnsafeFileError, match="TorchScript"):
        load_pickle_tensors(put(tmp_path, zip_of(good, {"0": bytes(24)}, **{"constants.pkl": b""})))
    with pytest.raises(VoiceFormatError, match="big-endian"):
        load_pickle_tensors(put(tmp_path, zip_of(good, {"0": bytes(24)}, byteorder=b"big")))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../x/data.pkl", good)
        archive.writestr("../../x/data/0", bytes(24))
    with pytest.raises(VoiceFormatError, match=r"no data\.pkl"):
        load_pickle_tensors(put(tmp_path, stream.getvalue()))


def test_many_views_of_one_storage_are_bounded(tmp_path):
    """Each view is free here, and a copy each later."""
    tensor = torch.zeros(1000)
    path = put(tmp_path, saved({str(n): tensor.view(1000) for n in range(100)}))
    assert path.stat().st_size < 50_000
    with pytest.raises(VoiceFormatError, match="allowed"):
        load_pickle_tensors(path, max_bytes=100_000)


def test_small_pickles_of_endless_data_are_refused(tmp_path):
    laughs = ["ha"]
    for _ in range(50):
        laughs = [laughs] * 10
    for number, data in enumerate(({"f0": laughs}, {"config": [1, {"deep": laughs}]})):
        with pytest.raises(VoiceFormatError, match="more than 1048576 values"):
            load_pickle_tensors(put(tmp_path, saved(data), f"{number}.pth"))
    shared = ["fine"] * 3
    assert load_pickle_tensors(put(tmp_path, saved({"a": [shared] * 4}))) == {"a": [["fine"] * 3] * 4}
    with pytest.raises(VoiceFormatError, match="5001 bits"):
        load_pickle_tensors(put(tmp_path, saved({"config": [1 << 5000]})))
    copies = b"\x80\x02](" + b"K\x01" * 100_000 + b"eq\x000" + b"c__builtin__\nset\nh\x00\x85R" * 100 + b"."
    with pytest.raises(VoiceFormatError, match="too long"):
        load_pickle_tensors(put(tmp_path, zip_of(copies)))


@pytest.mark.parametrize(
    "program", [b"h\x00h\x00\x93", b"cnumpy\ndtype\nh\x00\x85R", b"c_codecs\nencode\nh\x00h\x00\x86R"]
)
def test_names_are_texts(tmp_path, program):
    with pytest.raises((UnsafeFileError, VoiceFormatError), match=r"name|encoding"):
        load_pickle_tensors(put(tmp_path, zip_of(b"\x80\x04]q\x000" + program + b".")))


def test_what_is_no_weight_file(tmp_path):
    for data in (b"", b"\x80", b"PK", b"PK\x03\x04" + bytes(40), b"This is a text.\n", b"RIFF....WAVE", bytes(100)):
        with pytest.raises(VoiceFormatError, match=r"^x\.pth: "):
            load_pickle_tensors(put(tmp_path, data))
    with pytest.raises(VoiceFormatError, match="git lfs pull"):
        load_pickle_tensors(put(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"))
    with pytest.raises(VoiceFormatError, match="web page"):
        load_pickle_tensors(put(tmp_path, b"\n<!DOCTYPE html><html>"))
    with pytest.raises(VoiceFormatError, match="list"):
        load_pickle_tensors(put(tmp_path, saved([torch.ones(1)])))
    with pytest.raises(VoiceFormatError, match=r"torch\.save"):
        load_pickle_tensors(put(tmp_path, pickle.dumps({"a": 1})))
    with pytest.raises(VoiceFormatError, match="folder"):
        load_pickle_tensors(tmp_path)
    with pytest.raises(VoiceNotFoundError):
        load_pickle_tensors(tmp_path / "none.pth")
    with pytest.raises(VoiceNotFoundError):
        load_pickle_tensors("a\0b.pth")
    with pytest.raises((VoiceNotFoundError, StorageError)):
        load_pickle_tensors(tmp_path / ("n" * 5000))


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files(tmp_path, zipped):
    data = saved(sample(), zipped)
    for length in [*range(0, 200, 7), *range(200, len(data), max(1, len(data) // 60)), len(data) - 1]:
        with pytest.raises(VoiceFormatError):
            load_pickle_tensors(put(tmp_path, data[:length]))


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
