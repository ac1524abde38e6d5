"""Folder trees: shape kept, resumed, one bad file does not stop the rest, exit codes; SoX as referee for levels."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from rocktop_ray.audio.batch import JOURNAL, plan, run_batch
from rocktop_ray.audio.decode import probe
from rocktop_ray.audio.encode import write_take
from rocktop_ray.audio.level import peak, to_db
from rocktop_ray.audio.transform import normalise_file, resample_file
from rocktop_ray.cli import app
from rocktop_ray.errors import AudioError, RocktopError, SettingsError

COMMAND = [sys.executable, "-c", "from rocktop_ray.cli import main; main()", "audio"]


def take(seconds=0.5, rate=44_100, level=0.25):
    generator = np.random.default_rng(7)
    return (level * generator.uniform(-1, 1, (round(seconds * rate), 2))).astype(np.float32)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "in"
    write_take(root / "a.wav", take(), 44_100)
    write_take(root / "sub" / "deep" / "b.flac", take(0.3), 44_100)
    write_take(root / "sub" / "c.mp3", take(0.2, 24_000), 24_000)
    (root / "notes.txt").write_text("words")
    (root / ".hidden.wav").write_text("not looked at")
    return root


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_tree_keeps_its_shape_and_resumes(tree, tmp_path):
    out = tmp_path / "out"
    work, settings = partial(resample_file, rate=48_000), {"rate": 48_000}
    seen = []
    report = run_batch(tree, out, work, settings, on_progress=lambda done, total, _: seen.append((done, total)))
    assert files(out) == [JOURNAL, "a.wav", "sub/c.wav", "sub/deep/b.wav"]
    assert [path.name for path in report.others] == ["notes.txt"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    info = probe(out / "a.wav")
    assert (info.rate, info.channels, info.frames, info.codec) == (48_000, 2, 24_000, "float")

    again = run_batch(tree, out, work, settings)
    assert (len(again.done), len(again.skipped)) == (0, 3)
    # A new source, a changed result, a lost line of the journal and other settings are each done again.
    write_take(tree / "a.wav", take(0.6), 44_100)
    (out / "sub" / "c.wav").write_bytes(b"short")
    with (out / JOURNAL).open("a") as journal:
        journal.write('{"result": "half a li')
    again = run_batch(tree, out, work, settings)
    assert [path.name for path in again.done] == ["a.wav", "c.mp3"]
    assert len(run_batch(tree, out, partial(resample_file, rate=16_000), {"rate": 16_000}).done) == 3
    assert probe(out / "sub" / "c.wav").rate == 16_000


def test_a_bad_file_does_not_stop_the_others(tree, tmp_path):
    data = (tree / "a.wav").read_bytes()
    (tree / "cut.wav").write_bytes(data[: len(data) // 2])
    report = run_batch(tree, tmp_path / "out", partial(normalise_file, dbfs=-1.0), {}, jobs=2)
    assert len(report.done) == 3
    assert [path.name for path, _ in report.failed] == ["cut.wav"]
    assert "cut off" in report.failed[0][1].message
    with pytest.raises(AudioError, match="1 of 4"):
        report.raise_for_failures()
    assert not (tmp_path / "out" / "cut.wav").exists()


def test_names_that_meet_and_places_that_overlap(tree, tmp_path):
    write_take(tree / "a.flac", take(), 44_100)
    pairs, _ = plan(tree, tmp_path / "out", ".wav")
    assert sorted(result.name for _, result in pairs) == ["a.flac.wav", "a.wav.wav", "b.wav", "c.wav"]
    inside = tree / "results"
    write_take(inside / "old.wav", take(), 44_100)
    assert len(plan(tree, inside, ".wav")[0]) == 4
    with pytest.raises(SettingsError, match="name another"):
        plan(tree, tree, ".wav")
    with pytest.raises(SettingsError, match="over itself"):
        plan(tree / "a.wav", tree, ".wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="no recordings"):
        plan(tmp_path / "empty", tmp_path / "out", ".wav")
    with pytest.raises(AudioError, match="no file or folder"):
        plan(tmp_path / "missing", tmp_path / "out", ".wav")


def test_one_file_leaves_no_journal(tree, tmp_path):
    run_batch(tree / "a.wav", tmp_path / "x.wav", partial(normalise_file, dbfs=-3.0), {})
    assert not (tmp_path / JOURNAL).exists()
    data, _ = soundfile.read(tmp_path / "x.wav", dtype="float32")
    assert to_db(peak(data)) == pytest.approx(-3.0, abs=1e-4)


def run(*words):
    """In this process: output, and the error if the command fails."""
    done = CliRunner().invoke(app, ["audio", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, RocktopError), done.exception
    return done.output, done.exception


def test_the_command_line(tree, tmp_path):
    out = tmp_path / "out"
    assert "3 written, 0 already there" in run("normalize", tree, out, "--peak", "-2")[0]
    assert "0 written, 3 already there" in run("normalize", tree, out, "--peak", "-2")[0]
    _, error = run("resample", tree, tmp_path / "bad", "--rate", "44100", "--format", "ogg")
    assert "8000, 12000" in error.message
    _, error = run("normalize", tree, tmp_path / "bad", "--peak", "3")
    assert "0 dBFS" in error.message
    assert not (tmp_path / "bad").exists()
    facts = json.loads(run("info", out / "a.wav", "--levels", "--json")[0])
    assert facts["rate"] == 44_100 and facts["peak_dbfs"] == pytest.approx(-2, abs=1e-3)
    assert "codec float" in run("info", out)[0]
    assert run("slice", out / "a.wav", tmp_path / "slices")[1] is None
    assert files(tmp_path / "slices") == ["a_0000.wav"]
    run("trim", out / "a.wav", tmp_path / "trimmed.flac", "--format", "flac")
    assert probe(tmp_path / "trimmed.flac").frames == 22_050


def test_exit_code_and_messages(tree, tmp_path):
    (tree / "words.wav").write_text("these are words")
    done = subprocess.run(
        [*COMMAND, "resample", tree, tmp_path / "low", "--rate", "16000"], capture_output=True, text=True, check=False
    )
    assert done.returncode == AudioError.exit_code
    assert "words.wav is not audio" in done.stderr and "1 of 4" in done.stderr and "notes.txt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("sox") is None, reason="SoX is not installed")
def test_sox_normalises_the_same(tree, tmp_path):
    ours, theirs = tmp_path / "ours.wav", tmp_path / "theirs.wav"
    normalise_file(tree / "a.wav", ours, -1.0)
    command = ["sox", "-D", tree / "a.wav", "-e", "float", "-b", "32", theirs, "norm", "-1"]
    subprocess.run(list(map(os.fspath, command)), check=True)
    a, _ = soundfile.read(ours, dtype="float32")
    b, _ = soundfile.read(theirs, dtype="float32")
    assert a.shape == b.shape
    assert np.abs(a - b).max() < 1e-4  # SoX works on 32-bit integers and rounds its gain
    assert to_db(peak(a)) == pytest.approx(-1.0, abs=1e-5)
