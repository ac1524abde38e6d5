"""Files in, files out: lengths, levels, formats refused before work, nothing half-written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import soundfile
from stand_ins import converter, tone

from rocktop_ray.audio import encode
from rocktop_ray.audio.decode import probe, read_take
from rocktop_ray.audio.formats import check_output
from rocktop_ray.errors import AudioError, AudioFormatError, CancelledError, StorageError
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.takes import convert_file

QUIET = ConvertSettings(temperature=0, rms_mix=1)


def wav(path: Path, seconds: float = 1.0, rate: int = 44_100, channels: int = 1, level: float = 1.0) -> Path:
    audio = np.repeat(tone(seconds, rate)[:, None] * level, channels, axis=1)
    soundfile.write(path, audio, rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("name", ["wav", "flac"])
def test_lossless_results_have_the_sources_samples(tmp_path: Path, rate: int, name: str) -> None:
    source = wav(tmp_path / "in.wav", 0.7331, rate)
    target = tmp_path / f"out.{name}"
    done = convert_file(converter(), source, target, QUIET, check_output(name, rate))
    assert soundfile.info(target).frames == soundfile.info(source).frames
    assert soundfile.info(target).samplerate == rate
    assert done.seconds == pytest.approx(0.7331, abs=2e-4)


@pytest.mark.parametrize(("rate", "samples", "wanted"), [(44_100, 54_441, 96_000), (11_025, 13_610, 88_200)])
def test_other_rates_last_the_sources_time_to_the_sample(tmp_path: Path, rate: int, samples: int, wanted: int) -> None:
    soundfile.write(tmp_path / "in.wav", np.resize(tone(0.5, rate), samples), rate, subtype="FLOAT")
    target = tmp_path / "out.wav"
    convert_file(converter(), tmp_path / "in.wav", target, QUIET, check_output("wav", wanted))
    assert abs(soundfile.info(target).frames * rate - samples * wanted) <= rate / 2


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_peaks_stay_below_the_ceiling_at_the_files_own_rate(tmp_path: Path, rate: int) -> None:
    noisy = ConvertSettings(temperature=2, rms_mix=1)
    source, target = wav(tmp_path / "in.wav", 1.0), tmp_path / "out.wav"
    done = convert_file(converter(), source, target, noisy, check_output("wav", rate), normalise=True)
    peak = np.abs(soundfile.read(target)[0]).max()
    assert 20 * np.log10(peak) == pytest.approx(-1, abs=1e-4)
    assert done.peak_dbfs == pytest.approx(-1, abs=1e-4)


def test_default_is_48_khz_in_the_targets_format(tmp_path: Path) -> None:
    source = wav(tmp_path / "in.wav", 1.0, 44_100, channels=2)
    convert_file(converter(40_000), source, tmp_path / "out.ogg", QUIET)
    info = probe(tmp_path / "out.ogg")
    assert (info.rate, info.channels, info.codec) == (48_000, 1, "opus")
    assert abs(len(read_take(tmp_path / "out.ogg")) - 48_000) <= 960


def test_peaks_stay_below_the_ceiling_and_rise_only_when_asked(tmp_path: Path) -> None:
    parts = converter()
    low = wav(tmp_path / "low.wav", level=0.1)
    kept = convert_file(parts, low, tmp_path / "kept.wav", QUIET)
    raised = convert_file(parts, low, tmp_path / "raised.wav", QUIET, normalise=True)
    assert kept.gain_db == 0
    assert raised.peak_dbfs == pytest.approx(-1, abs=1e-3)
    assert 20 * np.log10(np.abs(read_take(tmp_path / "raised.wav")).max()) == pytest.approx(-1, abs=1e-2)
    noisy = ConvertSettings(temperature=2, rms_mix=1)
    tamed = convert_file(parts, low, tmp_path / "tamed.wav", noisy)
    assert tamed.gain_db < 0 and tamed.peak_dbfs == pytest.approx(-1, abs=1e-3)


def test_what_a_codec_refuses_is_refused_before_work() -> None:
    with pytest.raises(AudioFormatError, match="48000"):
        check_output("ogg", 44_100)


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "missing", "folder", "nan", "many"])
def test_bad_files_leave_nothing_behind(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in.wav"
    if kind == "empty":
        source.write_bytes(b"")
    elif kind == "text":
        source.write_text("not a recording at all\n" * 50)
    elif kind == "cut":
        source.write_bytes(wav(tmp_path / "whole.wav").read_bytes()[:9_000])
        (tmp_path / "whole.wav").unlink()
    elif kind == "folder":
        source.mkdir()
    elif kind == "nan":
        soundfile.write(source, np.full(48_000, np.nan, np.float32), 48_000, subtype="FLOAT")
    elif kind == "many":
        wav(source, 0.1, channels=100)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(AudioError) as caught:
        convert_file(converter(), source, tmp_path / "out.wav", QUIET)
    assert "\n" not in caught.value.message and caught.value.exit_code == 65
    assert sorted(tmp_path.iterdir()) == before


def test_a_cancelled_conversion_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out.wav"
    target.write_text("old")
    cancel = Event()
    cancel.set()
    with pytest.raises(CancelledError):
        convert_file(converter(), wav(tmp_path / "in.wav"), target, QUIET, cancel=cancel)
    assert target.read_text() == "old"


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.wav"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encode.WavFile, "write", full)
    with pytest.raises(StorageError, match=r"no space left|full"):
        convert_file(converter(), wav(tmp_path / "in.wav"), target, QUIET)
    assert target.read_text() == "old"


def test_a_killed_conversion_leaves_the_old_file(tmp_path: Path) -> None:
    """SIGKILL while the result is being written: under its name there is the old file, or nothing."""
    wav(tmp_path / "in.wav", 2.0)
    (tmp_path / "out.wav").write_text("old")
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from stand_ins import converter
        from rocktop_ray import takes
        fitted = takes._fitted
        def slow(blocks, samples):
            for block in fitted(blocks, samples):
                yield block[: len(block) // 2]
                print("writing", flush=True)
                time.sleep(600)
        takes._fitted = slow
        takes.convert_file(converter(), Path(sys.argv[1]) / "in.wav", Path(sys.argv[1]) / "out.wav")
        """)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None and child.stdout.readline() == "writing\n"
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (tmp_path / "out.wav").read_text() == "old"


def test_the_same_take_gives_the_same_file(tmp_path: Path) -> None:
    source = wav(tmp_path / "in.wav")
    for name in ("a", "b"):
        convert_file(converter(), source, tmp_path / f"{name}.flac", ConvertSettings(seed=3))
    assert (tmp_path / "a.flac").read_bytes() == (tmp_path / "b.flac").read_bytes()
