"""Datasets from recordings, in this process: what is kept, what is done again, what is held out."""

import pickle
import sys

import numpy as np
import pytest
import soundfile
from dataset_parts import RATE, files, job, recordings, song, write
from dataset_runs import Counting, made_fixture, source_fixture  # noqa: F401
from scipy import signal

from rocktop_ray.errors import AudioError, ModelMissingError, SettingsError
from rocktop_ray.store.storage import open_storage
from train_loops.dataset import build
from train_loops.dataset.build import build_dataset
from train_loops.dataset.layout import find_takes
from train_loops.dataset.manifest import Manifest
from train_loops.dataset.reader import Dataset
from train_loops.dataset.runners import LocalRunner
from train_loops.preprocess import main, read_config


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
