"""SI-SDR by hand; STOI, PESQ, ViSQOL and DNSMOS by what is known of them: identity, and the order of noise levels.

The real packages and weights: each test skips where they are not installed.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.audio.decode import read_take
from rocktop_ray.errors import AudioError, ModelMissingError, VoiceFormatError
from rocktop_ray.evaluate.intelligibility import intelligibility
from rocktop_ray.evaluate.naturalness import DnsmosRater
from rocktop_ray.evaluate.perceptual import Visqol, pesq_score
from rocktop_ray.evaluate.waveform import si_sdr
from rocktop_ray.evaluate.windows import sounding_windows

SAMPLES = Path(__file__).parent.parent / "assets" / "samples"
SUNG = SAMPLES / "vocadito_14.wav"

# What speechmos 0.0.1.1 computes of the two samples (``dnsmos.run`` at 16 kHz): SIG, BAK, OVRL, P.808.
RATED = {
    "vocadito_10": (3.4180392, 4.0003348, 3.1098083, 3.7262275),
    "vocadito_14": (3.6746264, 4.1741186, 3.4205994, 3.5386245),
}


def noisy(audio, snr_db, seed=0):
    noise = np.random.default_rng(seed).standard_normal(len(audio))
    noise *= np.sqrt(np.mean(np.square(audio, dtype=np.float64)) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    return (audio + noise).astype(np.float32)


@settings(max_examples=25)
@given(st.floats(-60, 60), st.floats(0.01, 100), st.floats(-0.5, 0.5), st.booleans())
def test_si_sdr_of_a_sine_with_an_orthogonal_one(ratio_db, gain, offset, turned):
    """The ratio is that of their energies, whatever the gain, the polarity and the mean."""
    time = np.arange(4800) / 4800
    wanted, other = np.sin(2 * np.pi * 10 * time), np.sin(2 * np.pi * 17 * time)
    result = gain * (-1 if turned else 1) * (wanted + 10 ** (-ratio_db / 20) * other) + offset
    assert si_sdr(wanted, result) == pytest.approx(ratio_db, abs=1e-6)


def test_si_sdr_at_its_ends():
    tone = np.sin(np.arange(1000) / 7).astype(np.float32)
    assert si_sdr(tone, tone) == si_sdr(tone, 0.25 * tone) == 100
    time = np.arange(4800) / 4800
    assert si_sdr(np.sin(2 * np.pi * 10 * time), np.cos(2 * np.pi * 10 * time)) == -100
    assert si_sdr(tone, np.zeros_like(tone)) == 0  # neither kept nor lost
    with pytest.raises(AudioError, match="silent"):
        si_sdr(np.full(100, 0.5, np.float32), tone[:100])
    with pytest.raises(AudioError, match="equally long"):
        si_sdr(tone, tone[:-1])


def test_windows_sound_and_cover():
    loud = np.ones(1000, np.float32)
    assert [(w.start, w.stop) for w in sounding_windows(loud, 300, 50)] == [
        (0, 300),
        (300, 600),
        (600, 900),
        (700, 1000),
    ]
    assert [(w.start, w.stop) for w in sounding_windows(loud[:930], 300, 50)] == [(0, 300), (300, 600), (600, 900)]
    assert [(w.start, w.stop) for w in sounding_windows(loud[:100], 300, 50)] == [(0, 100)]
    assert sounding_windows(loud[:40], 300, 50) == []
    loud[300:600] = 0
    assert [w.start for w in sounding_windows(loud, 300, 50)] == [0, 600, 700]


def test_stoi():
    pytest.importorskip("pystoi")
    take = read_take(SUNG, rate=16_000)
    same = intelligibility(take, take)
    assert same.stoi == pytest.approx(1, abs=1e-6) and same.estoi == pytest.approx(1, abs=1e-6)
    scores = [intelligibility(take, noisy(take, snr)) for snr in (30, 10, -10)]
    for name in ("stoi", "estoi"):
        found = [getattr(score, name) for score in scores]
        assert found == sorted(found, reverse=True) and 0 < found[-1] < 0.6 and found[0] > 0.9
    # Level does not count.
    assert intelligibility(take, 0.1 * take).stoi == pytest.approx(1, abs=1e-4)


def test_stoi_of_what_is_too_short():
    pytest.importorskip("pystoi")
    take = noisy(np.ones(16_000, np.float32), 0)
    for audio in (take[:4000], np.zeros(16_000, np.float32), np.concatenate([take[:3000], np.zeros(16_000)])):
        with pytest.raises(AudioError, match="half a second"):
            intelligibility(audio.astype(np.float32), audio.astype(np.float32))


def test_pesq():
    pytest.importorskip("pesq")
    take = read_take(SUNG, rate=16_000)[: 6 * 16_000]
    assert pesq_score(take, take) == pytest.approx(4.644, abs=0.001)  # the top of the wide-band mapping
    scores = [pesq_score(take, noisy(take, snr)) for snr in (40, 20, 0)]
    assert scores == sorted(scores, reverse=True) and scores[0] > 3 and scores[-1] < 1.2
    assert pesq_score(take, np.zeros_like(take)) == 1.04
    with pytest.raises(AudioError, match="too short or silent"):
        pesq_score(np.zeros_like(take), take)
    with pytest.raises(AudioError, match="too short"):
        pesq_score(take[:2000], take[:2000])


def test_pesq_of_a_long_take_is_the_mean_of_its_windows():
    pytest.importorskip("pesq")
    take = read_take(SUNG, rate=16_000)[: 10 * 16_000]
    worse = noisy(take, 20)
    both = pesq_score(np.concatenate([take, take]), np.concatenate([take, worse]))
    assert both == pytest.approx((pesq_score(take, take) + pesq_score(take, worse)) / 2, abs=1e-6)


def test_visqol():
    pytest.importorskip("visqol")
    pytest.importorskip("libsvm")
    take = read_take(SUNG)[48_000 : 3 * 48_000]
    rater = Visqol()
    assert rater.score(take, take) == pytest.approx(4.732, abs=0.002)  # what Google's ViSQOL says of equal recordings
    scores = [rater.score(take, noisy(take, snr)) for snr in (50, 30, 0)]
    assert scores == sorted(scores, reverse=True) and scores[0] < 4.7 and scores[-1] < 2
    assert rater.score(take, np.zeros_like(take)) == 1
    with pytest.raises(AudioError, match="too short or silent"):
        rater.score(take[:10_000], take[:10_000])


@pytest.fixture(scope="module")
def rater():
    pytest.importorskip("onnxruntime")
    try:
        return DnsmosRater()
    except ModelMissingError:
        pytest.skip("the weights of DNSMOS are not installed")


@pytest.mark.parametrize("name", RATED)
def test_the_numbers_of_dnsmos(rater, name):
    rated = rater.rate(read_take(SAMPLES / f"{name}.wav", rate=16_000))
    assert (rated.signal, rated.background, rated.overall, rated.p808) == pytest.approx(RATED[name], abs=1e-4)


def test_dnsmos_hears_noise_and_repeats_what_is_short(rater):
    take = read_take(SUNG, rate=16_000)[: 2 * 16_000]
    clean, worse = rater.rate(take), rater.rate(noisy(take, 0))
    assert worse.background < clean.background - 1 and worse.overall < clean.overall
    assert rater.rate(np.tile(take, 8)[:160_000]).overall == pytest.approx(clean.overall, abs=0.3)
    with pytest.raises(AudioError, match="silent"):
        rater.rate(np.zeros(16_000, np.float32))


def test_other_networks_are_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(VoiceFormatError, match="not an ONNX network"):
        DnsmosRater(tmp_path / "bad.onnx", tmp_path / "bad.onnx")
