"""Metrics against closed forms and known cases."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rocktop_ray.audio.encode import write_take
from rocktop_ray.cli import app
from rocktop_ray.errors import AudioError, SettingsError
from rocktop_ray.evaluate import words
from rocktop_ray.evaluate.choices import CHEAP
from rocktop_ray.evaluate.instruments import Instruments
from rocktop_ray.evaluate.melody import best_key, f0_agreement
from rocktop_ray.evaluate.pair import evaluate_pair, length_drift
from rocktop_ray.evaluate.spectra import (
    log_spectral_distance,
    magnitudes,
    mel_cepstral_distortion,
    mel_cepstrum,
    multi_resolution_stft_distance,
)
from rocktop_ray.evaluate.warp import warping_path
from rocktop_ray.evaluate.words import split_words, word_errors

RATE = 16_000


def sung(seconds=1.0, hertz=220.0, seed=0):
    """Harmonics with a moving pitch and some breath."""
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * hertz * (time + 0.01 * np.sin(2 * np.pi * time))
    tone = sum(np.sin(phase * harmonic) / harmonic for harmonic in range(1, 12))
    return (0.2 * tone + 0.005 * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


def melody(frames=300):
    f0 = (220 * 2 ** (np.sin(np.arange(frames) / 20) / 4)).astype(np.float32)
    f0[100:130] = 0
    return f0


@settings(max_examples=30, deadline=None)
@given(st.floats(-24, 24), st.floats(-40, 40))
def test_a_shifted_melody(key, cents):
    f0 = melody()
    shifted = f0 * np.float32(2 ** ((key + cents / 100) / 12))
    result = f0_agreement(f0, shifted, key)
    assert result.correlation == pytest.approx(1.0, abs=1e-6)
    assert result.rmse_cents == pytest.approx(abs(cents), abs=0.01)
    assert result.median_cents == pytest.approx(abs(cents), abs=0.01)
    assert (result.voicing_f1, result.frames) == (1.0, 270)


def test_voicing_and_length():
    f0 = melody()
    heard = f0.copy()
    heard[:27] = 0  # a tenth of the voiced frames is lost
    result = f0_agreement(f0, np.append(heard, [100, 100]))
    assert result.voicing_f1 == pytest.approx(2 * 243 / (270 + 243))
    assert result.rmse_cents == 0
    assert best_key(f0, f0 * 2 ** (-5 / 12)) == -5


def test_melodies_that_cannot_be_compared():
    silent, flat = np.zeros(50, np.float32), np.full(50, 220, np.float32)
    assert f0_agreement(silent, silent).voicing_f1 is None
    nothing = f0_agreement(flat, silent)
    assert (nothing.correlation, nothing.rmse_cents, nothing.voicing_f1, nothing.frames) == (None, None, 0.0, 0)
    assert f0_agreement(flat, flat).correlation is None
    assert f0_agreement(flat, flat).rmse_cents == 0
    assert best_key(silent, flat) == 0


def test_magnitudes_are_those_of_torch():
    audio = torch.from_numpy(sung())
    window = torch.hann_window(600)
    theirs = torch.stft(audio, 1024, 240, 600, window, pad_mode="constant", return_complex=True).abs().T.numpy()
    assert np.abs(magnitudes(audio.numpy(), 1024, 240, 600) - theirs).max() < 1e-5 * theirs.max()


def test_equal_recordings_have_no_distance():
    audio = sung()
    assert log_spectral_distance(audio, audio) == 0
    assert multi_resolution_stft_distance(audio, audio) == 0
    assert mel_cepstral_distortion(audio, audio, RATE) == 0
    assert mel_cepstral_distortion(audio, audio, RATE, warp=True) == 0


def test_a_change_of_level():
    """6 dB everywhere: the log spectral distance is 6 dB, the cepstrum without its 0th coefficient does not see it."""
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    half = noise / 2
    assert log_spectral_distance(noise, half) == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert mel_cepstral_distortion(noise, half, RATE) == pytest.approx(0, abs=1e-4)
    assert multi_resolution_stft_distance(noise, half) == pytest.approx(0.5 + np.log(2), abs=1e-3)


def test_distortion_of_a_known_filter():
    """A gain of cos(m w) dB along the mel axis changes the m-th coefficient only: its RMS in dB is the distortion."""
    audio = sung()
    cepstrum, _ = mel_cepstrum(audio, RATE, 40)
    assert cepstrum.shape == (101, 40)
    # The series gives the log amplitudes back: the difference of two frames, up to their level, in dB.
    wide = np.random.default_rng(1).normal(0, 0.1, RATE).astype(np.float32)
    full, _ = mel_cepstrum(audio, RATE, 79)
    other, _ = mel_cepstrum(wide, RATE, 79)
    bands = (np.arange(80) + 0.5) / 80 * np.pi
    curve = (full - other) @ np.cos(np.outer(np.arange(1, 80), bands))
    spread = 20 / np.log(10) * np.sqrt(np.mean(curve**2, axis=1))
    assert mel_cepstral_distortion(audio, wide, RATE, order=79) == pytest.approx(float(spread.mean()), rel=0.02)


def test_more_noise_is_further_away():
    audio = sung()
    noise = np.random.default_rng(3).standard_normal(len(audio)).astype(np.float32)
    for distance in (
        log_spectral_distance,
        multi_resolution_stft_distance,
        lambda a, b: mel_cepstral_distortion(a, b, RATE),
    ):
        steps = [distance(audio, audio + noise * level) for level in (0.0, 0.003, 0.03, 0.3)]
        assert steps == sorted(steps) and steps[1] > 0


def test_warping_takes_off_a_change_of_tempo():
    slow = np.concatenate([sung(0.5, 220), sung(0.5, 330)])
    fast = np.concatenate([sung(0.3, 220), sung(0.7, 330)])
    assert mel_cepstral_distortion(slow, fast, RATE, warp=True) < 0.5 * mel_cepstral_distortion(slow, fast, RATE)
    with pytest.raises(SettingsError, match="10 min"):
        mel_cepstral_distortion(np.ones(601 * 800, np.float32), slow, 800, warp=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_the_path_is_the_cheapest(n, m, seed):
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 4, (n, 1)).astype(float), generator.integers(0, 4, (m, 1)).astype(float)
    rows, columns = warping_path(a, b)
    assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, n - 1, m - 1)
    steps = set(zip(np.diff(rows).tolist(), np.diff(columns).tolist(), strict=True))
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    best = np.full((n + 1, m + 1), np.inf)
    best[0, 0] = 0
    for i in range(n):
        for j in range(m):
            best[i + 1, j + 1] = abs(a[i, 0] - b[j, 0]) + min(best[i, j], best[i, j + 1], best[i + 1, j])
    assert np.abs(a[rows, 0] - b[columns, 0]).sum() == best[n, m]


def test_recordings_that_cannot_be_compared():
    with pytest.raises(AudioError, match="equally long"):
        log_spectral_distance(sung(), sung(0.5))
    with pytest.raises(AudioError, match="silent"):
        mel_cepstral_distortion(np.zeros(RATE, np.float32), sung(), RATE)
    with pytest.raises(AudioError, match="empty"):
        evaluate_pair(sung(), sung()[:0], RATE, metrics=CHEAP)


@pytest.mark.parametrize(
    ("reference", "heard", "counts"),
    [
        ("happy birthday to you", "Happy Birthday, to you!", (0, 0, 0)),
        ("happy birthday to you", "happy birth day to", (1, 1, 1)),
        ("one two three", "", (0, 3, 0)),
        ("one two", "zero one two three", (0, 0, 2)),
        ("don't", "dont", (1, 0, 0)),
    ],
)
def test_word_errors(reference, heard, counts):
    result = word_errors(reference, heard)
    assert result.words == len(split_words(reference))
    assert result.rate == pytest.approx(sum(counts) / result.words)
    assert result.substitutions + result.deletions + result.insertions == sum(counts)


def test_words_of_other_languages():
    assert split_words("Über allen Gipfeln – ist Ruh’.") == ["über", "allen", "gipfeln", "ist", "ruh"]
    assert word_errors("", "").rate == 0
    assert word_errors("", "la").rate == 1


class Constant:
    name = "constant"

    def f0(self, audio):
        return np.full(len(audio) // 160 + 1, 100, np.float32)

    def transcribe(self, audio):
        return "la la" if audio[0] >= 0 else "la"


def test_the_report():
    source = sung()
    tools = Instruments(pitch=Constant(), recogniser=Constant())
    report = evaluate_pair(source, source[:-7] * 0.5, RATE, instruments=tools, true_words="la la")
    assert report.length_drift == length_drift(source, source[:-7]) == -7
    assert report.f0.rmse_cents == 0 and report.f0.correlation is None
    assert report.similarity is None
    assert report.words.result.rate == 0
    assert report.result_levels.peak_dbfs == pytest.approx(report.source_levels.peak_dbfs - 6.02, abs=0.01)
    assert json.loads(json.dumps(report.as_dict()))["words"]["result"]["rate"] == 0
    names = [name for name, _ in report.rows()]
    assert "F0 RMSE" in names and "word error rate of result" in names
    silent = evaluate_pair(np.zeros(RATE, np.float32), np.zeros(RATE, np.float32), RATE, instruments=Instruments())
    assert silent.spectra is None and silent.si_sdr_db is None and silent.rows()
    assert "silent" in silent.left_out["mcd"]


def test_the_command(tmp_path, monkeypatch):
    """Without any weights or recogniser installed: the rest is measured, and a line says what is missing."""
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(words, "find_recogniser", lambda language: None)
    write_take(tmp_path / "source.wav", sung(), RATE)
    write_take(tmp_path / "result.flac", 0.5 * sung(hertz=440.0), RATE)
    command = [
        "evaluate",
        str(tmp_path / "source.wav"),
        str(tmp_path / "result.flac"),
        "--pitch",
        "pm",
        "--metrics",
        "f0,speaker,mcd,words",
    ]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.exception
    report = json.loads(done.stdout)
    assert report["length_drift"] == 0
    assert report["f0"]["key"] == 12 and report["f0"]["rmse_cents"] < 10
    assert report["similarity"] is None and report["words"] is None
    assert "models fetch resemblyzer" in done.stderr
    assert "F0 correlation" in CliRunner().invoke(app, command).stdout


def test_recognisers_are_found_by_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(words.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv(words.WHISPER_VARIABLE, str(tmp_path))
    assert words.find_recogniser() is None
    monkeypatch.setattr(words.importlib.util, "find_spec", lambda name: name == "pocketsphinx" or None)
    assert words.find_recogniser().name.startswith("pocketsphinx")
    assert words.find_recogniser("de") is None
