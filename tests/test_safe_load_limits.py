"""Weight files whose sizes, names and forms cannot be trusted."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch
from weight_files import Runs, put, sample, saved, zip_of

from rocktop_ray.errors import StorageError, UnsafeFileError, VoiceFormatError, VoiceNotFoundError
from rocktop_ray.voices.safe_load import load_pickle_tensors


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
