"""Datasets from recordings: bad files, failures, full disks, kills and damage."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_parts import RATE, files, job, recordings, song, write
from dataset_runs import Counting, made_fixture, source_fixture  # noqa: F401

from rocktop_ray.errors import AudioError, ModelMissingError, SettingsError, StorageError, TrainingError
from train_loops.dataset.build import build_dataset
from train_loops.dataset.reader import Dataset
from train_loops.dataset.report import report_page
from train_loops.dataset.runners import LocalRunner
from train_loops.dataset.workers import FeatureWorker, ScanWorker


def bad_files(folder: Path) -> dict[str, str]:
    """The zoo: names with the reason that each should have."""
    tone = song(2.0)
    whole = write(folder / "good.wav", song(5, 1)).read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "words.mp3").write_text("these are words\n" * 100)
    (folder / "list.m4a").write_text("#EXTM3U\n#EXTINF:10,\ngood.wav\n")
    nan = tone.copy()
    nan[5_000] = np.nan
    write(folder / "nan.wav", nan)
    write(folder / "integers.wav", tone * 32_768)
    write(folder / "nothing.wav", np.zeros(0, np.float32))
    write(folder / "channels.wav", np.zeros((100, 60), np.float32))
    write(folder / "slow.wav", song(2.0, rate=8_000), 8_000)
    write(folder / "short.wav", tone[:3_000])
    write(folder / "silent.wav", np.full(2 * RATE, 1e-4, np.float32))
    write(folder / "clipped.wav", np.clip(8 * tone, -1, 1), subtype="PCM_16")
    write(folder / "good again.flac", song(5, 1), subtype="PCM_24")
    write(folder / "good copy.wav", song(5, 1))
    unreadable = ("cut.wav", "empty.wav", "words.mp3", "list.m4a", "nan.wav", "integers.wav", "nothing.wav")
    return {
        **dict.fromkeys([*unreadable, "channels.wav"], "unreadable"),
        "slow.wav": "low_rate",
        "short.wav": "too_short",
        "silent.wav": "silent",
        "clipped.wav": "clipped",
        "good.wav": "duplicate",
    }


def test_bad_files_cost_themselves_only(tmp_path):
    source = tmp_path / "in"
    expected = bad_files(source)
    manifest = build_dataset(job(source, tmp_path / "out"), LocalRunner())
    assert {entry.key: entry.reason for entry in manifest.rejected} == expected
    # The FLAC of 24 bits is another sound than the float; of the two that are equal the first by name stays.
    assert [take.key for take in manifest.takes] == ["good again.flac", "good copy.wav"]
    assert all(entry.message and str(tmp_path) not in entry.message for entry in manifest.rejected)
    page = report_page(manifest)
    assert all(name in page for name in expected)
    assert "data:image/png;base64," in page and "<script" not in page and "http" not in page
    runner = Counting()
    build_dataset(job(source, tmp_path / "out"), runner)
    assert runner.scanned == []


def test_names_are_escaped_in_the_report(tmp_path):
    write(tmp_path / "in" / "<b>&.wav", song(3))
    (tmp_path / "in" / "<script>.wav").write_bytes(b"no")
    page = report_page(build_dataset(job(tmp_path / "in", tmp_path / "out"), LocalRunner()))
    assert "&lt;script&gt;.wav" in page and "<script" not in page


def test_when_nothing_is_left(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"no")
    with pytest.raises(AudioError, match=r"none of 1 takes.*a\.wav"):
        build_dataset(job(tmp_path / "in", tmp_path / "out"), LocalRunner())
    with pytest.raises(TrainingError, match="no finished dataset"):
        Dataset.open(tmp_path / "out")
    with pytest.raises(SettingsError, match="must not lie in each other"):
        build_dataset(job(tmp_path / "in", tmp_path / "in" / "out"), LocalRunner())


def test_a_take_that_fails_is_tried_again(tmp_path, monkeypatch):
    source, out = recordings(tmp_path / "in"), tmp_path / "out"

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("train_loops.dataset.workers.scan_take", refuse)
    answer = ScanWorker(job(source, out))({"key": "anna/0.wav", "bytes": 1, "etag": "x"})
    assert "Permission denied" in answer["failed"]["message"]
    assert not (out / "takes").exists()
    monkeypatch.undo()

    class Failing(LocalRunner):
        def features(self, job, identity, tasks):
            for answer in super().features(job, identity, tasks):
                broken = answer["key"] == "anna/1.wav"
                yield {**answer, "failed": {"message": "it went wrong"}} if broken else answer

    manifest = build_dataset(job(source, out), Failing())
    assert [(entry.key, entry.message) for entry in manifest.failed] == [("anna/1.wav", "it went wrong")]
    assert len(manifest.takes) == 3
    assert len(build_dataset(job(source, out), LocalRunner()).takes) == 4


def test_a_full_disk_ends_the_run(tmp_path, monkeypatch):
    source, out = recordings(tmp_path / "in"), tmp_path / "out"
    made = job(source, out)

    def full(key, *_args, **_keywords):
        raise StorageError("no space left")

    monkeypatch.setattr(type(made.target), "write", lambda self, key, *a, **k: full(key))
    with pytest.raises(StorageError, match="no space"):
        build_dataset(made, LocalRunner())
    assert not (out / "manifest.json").exists()


def test_other_weights_on_a_worker_are_refused(source, tmp_path):
    made = job(source, tmp_path)
    identity = LocalRunner().identify(made)
    with pytest.raises(ModelMissingError, match="other weights"):
        FeatureWorker(made, replace(identity, encoder_weights="0" * 64))


SCRIPT = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from dataset_parts import extractor, job
from stand_ins import LevelEncoder
from train_loops.dataset.build import build_dataset
from train_loops.dataset.features import Builders
from train_loops.dataset.runners import LocalRunner

source, out, wanted, count = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def die_in_time():
    if len(list(out.glob(wanted))) >= count:
        os.kill(os.getpid(), signal.SIGKILL)

class Runner(LocalRunner):
    def scan(self, job, tasks):
        for answer in super().scan(job, tasks):
            die_in_time()
            yield answer

class Encoder(LevelEncoder):
    def encode(self, audio):
        die_in_time()
        return super().encode(audio)

builders = Builders(lambda name, *, device: Encoder(), extractor)
build_dataset(replace(job(source, out), builders=builders), Runner())
"""


def test_killed_and_resumed(made, source, tmp_path):
    """SIGKILL when the first record, and when the second part is there: then as if nothing had happened."""
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    for wanted, count in (("takes/*.json", 1), ("parts/*/*/*.parquet", 2)):
        command = [sys.executable, "-c", SCRIPT, str(source), str(out), wanted, str(count)]
        assert subprocess.run(command, env=environment, cwd=Path(__file__).parent.parent).returncode == -9
        assert not (out / "manifest.json").exists()
    runner = Counting()
    build_dataset(job(source, out), runner)
    assert len(runner.scanned) < 4
    whole = {name: data for name, data in files(out).items() if not Path(name).name.startswith(".")}
    assert whole == files(made)


def test_damage_is_found(source, tmp_path):
    out = tmp_path / "out"
    build_dataset(job(source, out), LocalRunner())
    part = sorted(out.glob("parts/*/*/*.parquet"))[0]
    data = bytearray(part.read_bytes())
    data[100] ^= 255
    part.write_bytes(data)
    with pytest.raises(TrainingError, match="damaged"):
        Dataset.open(out).verify()
    part.write_bytes(b"")
    with pytest.raises(TrainingError, match="damaged"):
        dataset = Dataset.open(out)
        [dataset[index] for index in range(len(dataset))]
    text = json.loads((out / "manifest.json").read_text())
    for change in ({"kind": "x"}, {"format": 99}, {"takes": text["takes"][1:]}, {"takes": [{}]}, {"config": {"a": 1}}):
        (out / "manifest.json").write_text(json.dumps({**text, **change}))
        with pytest.raises((TrainingError, SettingsError)):
            Dataset.open(out)
