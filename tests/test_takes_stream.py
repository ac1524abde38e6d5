"""Results sent while they are made: the samples of the file, the level held, errors that reach the caller."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import numpy as np
import pytest
import soundfile
from stand_ins import converter, tone

from rocktop_ray.audio.decode import open_reader, probe
from rocktop_ray.audio.encode import write_take
from rocktop_ray.audio.formats import check_output
from rocktop_ray.audio.level import from_db
from rocktop_ray.convert import Progress
from rocktop_ray.errors import AudioError, AudioFormatError, CancelledError
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.takes import FileConversion, convert_file, convert_stream

QUIET = ConvertSettings(temperature=0, rms_mix=1)
NOISY = ConvertSettings(temperature=2, rms_mix=1)


def wav(path: Path, seconds: float = 1.0, rate: int = 44_100) -> Path:
    soundfile.write(path, tone(seconds, rate), rate, subtype="FLOAT")
    return path


def samples(data: bytes | Path) -> np.ndarray:
    with open_reader(data) as reader:
        return np.concatenate(list(reader))[:, 0]


def streamed(source: Path, name: str, rate: int, settings: ConvertSettings) -> tuple[bytes, FileConversion]:
    pieces: list[bytes] = []
    done = convert_stream(converter(), source, pieces.append, settings, check_output(name, rate))
    return b"".join(pieces), done


@pytest.mark.parametrize("name", ["wav", "wav16", "wav24", "flac", "flac16", "ogg", "webm", "mp3"])
@pytest.mark.parametrize("rates", [(48_000, 48_000), (44_100, 48_000), (8_000, 16_000), (22_050, 44_100)])
def test_the_samples_are_those_of_the_file(tmp_path: Path, name: str, rates: tuple[int, int]) -> None:
    source, rate = wav(tmp_path / "in.wav", 1.7331, rates[0]), rates[1]
    if name in ("ogg", "webm") and rate == 44_100:
        rate = 48_000
    target = tmp_path / f"out.{name.rstrip('0123456789')}"
    whole = convert_file(converter(), source, target, QUIET, check_output(name, rate))
    data, done = streamed(source, name, rate, QUIET)
    assert np.array_equal(samples(data), samples(target))
    assert (done.seconds, done.gain_db, done.peak_dbfs) == (whole.seconds, 0, whole.peak_dbfs)
    assert np.array_equal(done.f0, whole.f0) and np.array_equal(done.f0_source, whole.f0_source)
    assert set(done.stages) == set(whole.stages) >= {"decode", "pitch", "content", "vocoder", "encode"}
    assert probe(data).seconds == pytest.approx(done.seconds, abs=0.06)
    if name in ("wav", "wav16", "wav24", "ogg"):
        assert data == target.read_bytes()


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "webm"])
def test_a_source_that_does_not_tell_its_length(tmp_path: Path, name: str) -> None:
    write_take(tmp_path / "in.mp3", tone(2.3), format="mp3")
    assert probe(tmp_path / "in.mp3").frames is None
    convert_file(converter(), tmp_path / "in.mp3", tmp_path / f"out.{name}", QUIET)
    data, _ = streamed(tmp_path / "in.mp3", name, 48_000, QUIET)
    assert np.array_equal(samples(data), samples(tmp_path / f"out.{name}"))


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_a_loud_result_is_held_at_the_ceiling(tmp_path: Path, rate: int) -> None:
    source = wav(tmp_path / "in.wav", 1.0)
    data, done = streamed(source, "wav", rate, NOISY)
    whole = convert_file(converter(), source, tmp_path / "out.wav", NOISY, check_output("wav", rate))
    out, full = samples(data), samples(tmp_path / "out.wav") / from_db(whole.gain_db)
    assert len(out) == len(full) == rate
    assert np.abs(out).max() <= from_db(-1) and done.peak_dbfs == pytest.approx(-1, abs=0.01)
    assert done.gain_db < -3 and whole.gain_db < -3
    # It only turns down, and the loudest peak by what it needs.
    assert (np.abs(out) <= np.abs(full) + 1e-5).all()
    assert done.gain_db == pytest.approx(whole.gain_db, abs=0.5)


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "webm", "mp3"])
def test_audio_leaves_with_each_chunk(tmp_path: Path, name: str) -> None:
    """Of 130 s, cut in four: with every chunk all but the last 2.5 s of it have left, in pieces that fit a network."""
    source, sent, pieces = wav(tmp_path / "in.wav", 130.0, 16_000), [], list[int]()
    done = 0.0

    def note(progress: Progress) -> None:
        nonlocal done
        if progress.stage == "content":
            sent.append((done, sum(pieces)))
        done = progress.seconds_done

    convert_stream(
        converter(),
        source,
        lambda data: pieces.append(len(data)),
        QUIET,
        check_output(name, 48_000),
        on_progress=note,
    )
    assert len(sent) == 4 and sent[0][1] == 0 and max(pieces) <= 1 << 18
    for seconds, size in sent[1:]:
        assert size >= sum(pieces) * (seconds - 2.5) / 130 * (0.8 if name == "flac" else 0.97)


def test_m4a_is_refused_before_work(tmp_path: Path) -> None:
    pieces: list[bytes] = []
    with pytest.raises(AudioFormatError, match="m4a cannot be sent"):
        convert_stream(converter(), tmp_path / "missing.wav", pieces.append, output=check_output("m4a", 48_000))
    assert not pieces


def test_errors_reach_the_caller(tmp_path: Path) -> None:
    source, pieces, cancel = wav(tmp_path / "in.wav"), list[bytes](), Event()

    class GoneError(Exception):
        pass

    def gone(_: bytes) -> None:
        raise GoneError

    with pytest.raises(GoneError):
        convert_stream(converter(), source, gone, QUIET)
    cancel.set()
    with pytest.raises(CancelledError):
        convert_stream(converter(), source, pieces.append, QUIET, cancel=cancel)
    source.write_bytes(source.read_bytes()[:9_000])
    with pytest.raises(AudioError, match="cut off"):
        convert_stream(converter(), source, pieces.append, QUIET)
    assert not pieces
