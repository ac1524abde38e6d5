"""The command line as a user meets it: results, one clear line per error, exit codes."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import rocktop

from rocktop_ray.features.index import RetrievalIndex

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "assets" / "samples" / "vocadito_14.wav"


@pytest.fixture()
def take(tmp_path: Path) -> Path:
    """Two seconds of the sample recording."""
    audio, rate = soundfile.read(SAMPLE, start=44_100, frames=88_200)
    path = tmp_path / "take.wav"
    soundfile.write(path, audio, rate)
    return path


def test_convert_with_the_bundle(tmp_path: Path, take: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = rocktop(capsys, "convert", take, tmp_path / "out.wav", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["voice"] == "bundle" and facts["seconds"] == 2
    result, rate = soundfile.read(tmp_path / "out.wav")
    assert (len(result), rate) == (96_000, 48_000)
    assert 0.01 < np.abs(result).max() <= 10 ** (-1 / 20) + 1e-6
    assert rocktop(capsys, "convert", take, tmp_path / "again.wav")[0] == 0
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "out.wav").read_bytes()


def test_a_folder_keeps_its_tree_and_resumes(tmp_path: Path, take: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    take.rename(source / "deep" / "good.wav")
    (source / "bad.wav").write_text("no recording")
    code, out, err = rocktop(capsys, "convert", source, target, "--format", "flac")
    assert code == 65 and "bad.wav" in err and "good.flac" in out
    assert (target / "deep" / "good.flac").is_file() and not (target / "bad.flac").exists()
    code, out, _ = rocktop(capsys, "convert", source, target, "--format", "flac")
    assert code == 65 and "good.flac" not in out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--voice", "nobody"], 66, "nobody"),
        (["--voice", "nobody", "--library", "shelf"], 66, "library shelf"),
        (["--key", "99"], 64, "key must be between"),
        (["--index-rate", "nan"], 64, "index_rate"),
        (["--unvoiced", "hum"], 64, "zero, interpolate"),
        (["--speaker", "500"], 64, "speakers 0 to"),
        (["--pitch", "ears"], 64, "fcpe"),
        (["--device", "toaster"], 64, "device"),
        (["--format", "wav24", "--rate", "0"], 65, "Hz"),
        (["--format", "ogg", "--rate", "48000"], 64, "name it out.ogg"),
        (["--scale", "upside-down", "--autotune", "1"], 64, "scale"),
    ],
)
def test_wrong_words(
    tmp_path: Path, take: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    got, out, err = rocktop(capsys, "convert", take, tmp_path / "out.wav", *words)
    assert (got, out) == (code, "") and says in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(("words", "says"), [(["--rate", "44100"], "48000"), (["--bitrate", "999k"], "choose")])
def test_a_codecs_refusal_comes_before_work(
    tmp_path: Path, take: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    code, _, err = rocktop(capsys, "convert", take, tmp_path / "out.ogg", "--voice", "nobody", *words)
    assert code == 65 and says in err


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_hostile_and_foreign_files(tmp_path: Path, take: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"weight": Bomb(marker)}))
    (tmp_path / "text.pth").write_text("hello")
    narrow = tmp_path / "narrow.index"
    RetrievalIndex.build(np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)).save(narrow)
    cases: list[tuple[list[object], int, str]] = [
        (["--voice", tmp_path / "bomb.pth"], 65, "mkdir"),
        (["--voice", tmp_path / "text.pth"], 65, "text.pth"),
        (["--voice", tmp_path / "missing.pth"], 66, "missing.pth"),
        (["--index", narrow], 65, "8"),
        (["--index", tmp_path / "text.pth"], 65, "text.pth"),
        (["--f0-file", tmp_path / "text.pth"], 65, "line 1"),
    ]
    for words, code, says in cases:
        got, _, err = rocktop(capsys, "convert", take, tmp_path / "out.wav", *words)
        assert (got, len(err.strip().splitlines())) == (code, 1), err
        assert says in err
    assert not marker.exists() and not (tmp_path / "out.wav").exists()


def test_missing_models_say_how_to_get_them(
    tmp_path: Path, take: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    code, _, err = rocktop(capsys, "convert", take, tmp_path / "out.wav")
    assert code == 69 and "rocktop models fetch" in err


def test_a_melody_from_a_file(tmp_path: Path, take: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "melody.csv").write_text("0.0,330\n2.0,330\n")
    code, _, _ = rocktop(
        capsys, "convert", take, tmp_path / "out.wav", "--f0-file", tmp_path / "melody.csv", "--key", 0
    )
    assert code == 0
    audio, _ = soundfile.read(tmp_path / "out.wav")
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    hz = np.fft.rfftfreq(len(audio), 1 / 48_000)
    near = (hz > 250) & (hz < 450)
    assert abs(hz[near][spectrum[near].argmax()] - 330) < 3


def test_demo_writes_what_it_says(tmp_path: Path, take: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = rocktop(capsys, "demo", take, "--out", tmp_path / "demo")
    assert code == 0 and "real-time factor" in out
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["report"]["length_drift"] == 0
    assert report["report"]["f0"]["correlation"] > 0.97
    assert (tmp_path / "demo" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_letters_that_the_terminal_lacks_do_not_stop_a_listing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "voices"
    bundle = ROOT / "rocktop_ray" / "bundle" / "bundle.safetensors"
    assert rocktop(capsys, "voices", "import", bundle, "--name", "歌手", "--library", shelf)[0] == 0
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert rocktop(capsys, "voices", "list", "--library", shelf)[0] == 0
    assert rb"\u6b4c\u624b" in written.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_standard_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(full, write_through=True))
        code, _, err = rocktop(capsys, "models", "list")
        monkeypatch.undo()
    assert code == 74 and "No space left" in err
