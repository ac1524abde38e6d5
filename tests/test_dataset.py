"""Datasets from recordings, in this process: what is kept, what is done again, what is said about the rest."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from dataset_parts import RATE, files, job, recordings, song, write
from scipy import signal

from rocktop_ray.errors import AudioError, ModelMissingError, SettingsError, StorageError, TrainingError
from rocktop_ray.store.storage import open_storage
from train_loops.dataset import build
from train_loops.dataset.build import build_dataset
from train_loops.dataset.layout import find_takes
from train_loops.dataset.manifest import Manifest
from train_loops.dataset.reader import Dataset
from train_loops.dataset.report import report_page
from train_loops.dataset.runners import LocalRunner
from train_loops.dataset.workers import FeatureWorker, ScanWorker
from train_loops.preprocess import main, read_config


class Counting(LocalRunner):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        self.scanned: list[str] = []
        self.made: list[str] = []

    def scan(self, job, tasks):
        self.scanned += [task["key"] for task in tasks]
        return super().scan(job, tasks)

    def features(self, job, identity, tasks):
        self.made += [task["key"] for task in tasks]
        return super().features(job, identity, tasks)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return recordings(tmp_path_factory.mktemp("takes"))


@pytest.fixture(scope="module")
def made(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "set"
    build_dataset(job(source, out), LocalRunner())
    return out


def test_layouts(tmp_path, source):
    found = find_takes(open_storage(source))
    assert [(take.key, take.speaker) for take in found.takes] == [
        *((f"anna/{number}.wav", "anna") for number in range(3)),
        ("berta/long.wav", "berta"),
    ]
    assert found.speakers == ("anna", "berta")
    assert find_takes(open_storage(source), speaker="carla").speakers == ("carla",)
    for name in ("one.wav", "two.FLAC", "words.txt", ".hidden.wav"):
        (tmp_path / name).write_bytes(b"x")
    flat = find_takes(open_storage(tmp_path))
    assert flat.speakers == ("speaker",)
    assert [take.key for take in flat.takes] == ["one.wav", "two.FLAC"]
    assert flat.others == ("words.txt",)
    (tmp_path / "10").mkdir()
    (tmp_path / "10" / "deep").mkdir()
    (tmp_path / "9").mkdir()
    (tmp_path / "10" / "deep" / "a.wav").write_bytes(b"x")
    (tmp_path / "9" / "a.wav").write_bytes(b"x")
    with pytest.raises(SettingsError, match="beside folders"):
        find_takes(open_storage(tmp_path))
    (tmp_path / "one.wav").unlink()
    (tmp_path / "two.FLAC").unlink()
    numbered = find_takes(open_storage(tmp_path))
    assert numbered.speakers == ("9", "10")
    with pytest.raises(AudioError, match="no recordings"):
        find_takes(open_storage(tmp_path / "nothing"))


def test_the_examples_are_the_takes(made, source):
    dataset = Dataset.open(made)
    assert len(dataset) == len(dataset.frames) > 30
    audio, _ = soundfile.read(source / "berta" / "long.wav")
    audio = signal.lfilter(*signal.butter(5, 48, "high", fs=RATE), audio)  # as RVC writes it
    mine = dataset.of_speaker("berta")
    assert set(mine.speaker_numbers) == {1}
    for index in range(0, len(mine), 3):
        one = mine[index]
        assert one.frames == mine.frames[index] <= 400
        assert len(one.wave) == one.frames * RATE // 100
        assert one.f0 is not None and one.f0.shape == (one.frames,)
        assert one.units.shape == (one.frames // 2, 1)
        piece = audio[one.start : one.start + len(one.wave)]
        assert np.abs(one.wave - piece * (0.675 / np.abs(piece).max() + 0.25)).max() < 1e-5
        assert np.abs(one.wave).max() <= 0.99
    dataset.verify()


def test_units_and_f0_lie_where_the_wave_does(tmp_path):
    """The level encoder gives the mean of every 20 ms: with an offset that moves, place and wave are compared."""
    ramp = np.linspace(0.1, 0.6, 8 * RATE, dtype=np.float32)
    write(tmp_path / "in" / "ramp.wav", ramp)
    build_dataset(job(tmp_path / "in", tmp_path / "out", highpass=False, level="none", slicing="fixed"), LocalRunner())
    dataset = Dataset.open(tmp_path / "out")
    assert len(dataset) == 3
    for index in range(len(dataset)):
        one = dataset[index]
        assert np.abs(one.wave - ramp[one.start : one.start + len(one.wave)]).max() < 1e-6
        means = one.wave.reshape(-1, RATE // 50).mean(axis=1)
        assert np.abs(one.units[:, 0] - means).max() < 1e-5
        frames = np.arange(one.frames) + one.start * 100 // RATE + 100  # of the part, which has 1 s of context
        assert np.array_equal(one.f0, np.where(frames % 50 < 40, 200.0, 0.0).astype(np.float32))


def test_a_second_run_does_nothing(made, source):
    before, runner = files(made), Counting()
    build_dataset(job(source, made), runner)
    assert (runner.scanned, runner.made) == ([], [])
    assert files(made) == before


def test_the_same_bytes_by_any_way(made, source, tmp_path):
    """Another order of work, and names that sort in another way, change neither parts nor fingerprint."""

    class Backwards(LocalRunner):
        def scan(self, job, tasks):
            return super().scan(job, tasks[::-1])

        def features(self, job, identity, tasks):
            return super().features(job, identity, tasks[::-1])

    build_dataset(job(source, tmp_path / "out"), Backwards())
    assert files(tmp_path / "out") == files(made)
    renamed = tmp_path / "renamed"
    for number, path in enumerate(sorted(source.rglob("*.wav"), reverse=True)):
        write(renamed / path.parent.name / f"take {number}.wav", soundfile.read(path, dtype="float32")[0])
    again = build_dataset(job(renamed, tmp_path / "out2"), LocalRunner())
    assert again.fingerprint == Manifest.read(open_storage(made)).fingerprint
    for name, content in files(tmp_path / "out2").items():
        if name.startswith("parts/"):
            assert content == files(made)[name]


def test_only_what_changed_is_done(tmp_path):
    source, out = recordings(tmp_path / "in"), tmp_path / "out"
    first = build_dataset(job(source, out), LocalRunner())
    write(source / "anna" / "1.wav", song(6, 30))
    (source / "anna" / "2.wav").rename(source / "anna" / "two.wav")
    (source / "anna" / "0.wav").unlink()
    write(source / "clara" / "new.flac", song(4, 40), subtype="PCM_24")
    runner = Counting()
    second = build_dataset(job(source, out), runner)
    assert set(runner.scanned) == {"anna/1.wav", "anna/two.wav", "clara/new.flac"}
    assert set(runner.made) == {"anna/1.wav", "clara/new.flac"}
    assert [take.key for take in second.takes] == ["anna/1.wav", "anna/two.wav", "berta/long.wav", "clara/new.flac"]
    assert second.fingerprint != first.fingerprint
    assert second.speakers == ["anna", "berta", "clara"]
    Dataset.open(out).verify()
    # With other networks only the features are made again; with another slicing all is looked at.
    runner = Counting()
    build_dataset(job(source, out, pitch="none"), runner)
    assert (len(runner.scanned), len(runner.made)) == (0, 4)
    assert Dataset.open(out)[0].f0 is None
    runner = Counting()
    third = build_dataset(job(source, out), runner, prune=True)
    assert (runner.scanned, runner.made) == ([], [])
    needed = {part["key"] for take in third.takes for part in take.parts}
    assert {name for name in files(out) if name.startswith("parts/")} == needed
    assert len([name for name in files(out) if name.startswith("takes/")]) == 4
    fresh = tmp_path / "fresh"
    build_dataset(job(source, fresh), LocalRunner())
    assert files(fresh) == files(out)


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


def test_the_held_out_takes(made, tmp_path):
    dataset = Dataset.open(made, held_out=0.3)
    out, kept = dataset.held_out, dataset.training
    assert len(out) + len(kept) == len(dataset)
    takes_out = {out[index].take for index in range(len(out))}
    anna = [one for one in takes_out if one.startswith("anna")]
    assert 1 <= len(anna) <= 2
    assert not set(anna) & {kept[index].take for index in range(len(kept))}
    # Of the one long take it is the last part.
    last = [out[index].start for index in range(len(out)) if out[index].take.startswith("berta")]
    assert min(last) >= max(kept[i].start for i in range(len(kept)) if kept[i].take.startswith("berta"))
    assert list(Dataset.open(made, held_out=0.3).held_out.frames) == list(out.frames)
    assert len(Dataset.open(made, held_out=0).held_out) == 0
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(copy[3].wave, dataset[3].wave)
    assert len(dataset[2:5]) == 3
    with pytest.raises(SettingsError, match="no speaker"):
        dataset.of_speaker("nobody")
    with pytest.raises(SettingsError, match=r"0 to 0\.5"):
        Dataset.open(made, held_out=0.9)


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


def test_long_takes_are_shared_between_workers(source, tmp_path, made, monkeypatch):
    monkeypatch.setattr(build, "RUN_PARTS", 1)
    runner = Counting()
    build_dataset(job(source, tmp_path / "out"), runner)
    assert runner.made.count("berta/long.wav") >= 4
    mine = {name: data for name, data in files(tmp_path / "out").items() if name.startswith("parts/")}
    assert mine == {name: data for name, data in files(made).items() if name.startswith("parts/")}


def test_the_command_line(tmp_path, source, capsys, monkeypatch):
    """Options over ``--set`` over the file; what is wrong is one line and an exit status."""
    file = tmp_path / "set.json"
    file.write_text('{"rate": 32000, "overlap": 0.5, "min_rate": 8000}')
    made = read_config(file, ["overlap=0.4", "slicing=pauses"], {"rate": 40_000})
    assert (made.rate, made.overlap, made.min_rate, made.slicing) == (40_000, 0.4, 8_000, "pauses")
    for assignments in (["overlaps=1"], ["overlap"], ["overlap=wide"]):
        with pytest.raises(SettingsError):
            read_config(None, assignments, {})
    file.write_text("[1")
    with pytest.raises(SettingsError, match="not JSON"):
        read_config(file, [], {})
    monkeypatch.setattr(sys, "argv", ["preprocess", str(source), "--out", str(tmp_path / "out"), "--local"])
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == ModelMissingError.exit_code
    assert "error:" in capsys.readouterr().err
