"""What torch writes is read; what runs code is refused."""

from __future__ import annotations

import argparse
import io
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from weight_files import MARK, Runs, equal, put, sample, saved, zip_of

from rocktop_ray.errors import UnsafeFileError, VoiceFormatError
from rocktop_ray.voices.safe_load import Inert, load_pickle_tensors


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
