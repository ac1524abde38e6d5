"""What every pitch extractor promises: shapes, errors, and the right pitch."""

from __future__ import annotations

from itertools import pairwise

import golden_data
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pitch_tones import sung, vibrato_glide

from rocktop_ray.errors import AudioError, ModelMissingError, SettingsError, VoiceFormatError
from rocktop_ray.features.pitch.checks import fit_length
from rocktop_ray.features.pitch.registry import EXTRACTORS, build_pitch_extractor, weights_of
from rocktop_ray.features.pitch.viterbi import best_path
from rocktop_ray.protocols import PitchExtractor
from rocktop_ray.store.catalogue import lookup
from rocktop_ray.store.fetch import verify

SLOW = {"crepe"}


@pytest.fixture(scope="module", params=EXTRACTORS)
def extractor(request) -> PitchExtractor:
    try:
        return build_pitch_extractor(request.param)
    except ModelMissingError as missing:
        if request.param == "rmvpe":
            return build_pitch_extractor("rmvpe", path=golden_data.rmvpe_file())
        pytest.skip(missing.message)


def need_trained(extractor: PitchExtractor) -> None:
    """Skip where the weights are the goldens', which are random."""
    name = weights_of(extractor.name)
    if name is not None and verify(lookup(name)) == "missing":
        pytest.skip(f"needs the real weights: rocktop models fetch {name}")


def test_names_and_roles(extractor):
    assert isinstance(extractor, PitchExtractor)
    assert extractor.name in EXTRACTORS


def test_a_vibrato_glide_within_20_cents(extractor):
    need_trained(extractor)
    seconds = 0.8 if extractor.name in SLOW else 3.0
    truth = vibrato_glide(seconds)
    f0 = extractor.f0(sung(truth))
    assert f0.shape == truth.shape and f0.dtype == np.float32
    both = (f0 > 0) & (truth > 0)
    assert both.sum() > 0.95 * (truth > 0).sum()
    assert (f0[truth == 0] > 0).sum() <= 6, "only the ends of the gap, where a window of 64 ms still hears the voice"
    error = np.abs(1200 * np.log2(f0[both] / truth[both]))
    assert np.median(error) < 20 and np.percentile(error, 95) < 30
    assert np.median(error) < 6, "measured: fcpe 1.2, crepe 3.7, crepe-tiny 4.1, pm 2.0, harvest 0.4"


def test_frames_are_where_they_should_be(extractor):
    need_trained(extractor)
    if extractor.name in SLOW:
        pytest.skip("crepe is crepe-tiny with more weights")
    t = np.arange(151) / 100
    curve = lambda t: 220 * 2 ** (np.sin(2 * np.pi * 5.5 * t) / 12)  # noqa: E731
    f0 = extractor.f0(sung(curve(t)))
    inner = (f0 > 0) & (t > 0.15) & (t < 1.35)
    errors = {
        offset: np.abs(np.log2(f0[inner] / curve(t[inner] + offset / 1000))).mean() for offset in (-5, -2, 0, 2, 5)
    }
    assert abs(min(errors, key=errors.__getitem__)) <= 2


@pytest.mark.parametrize("samples", [1, 159, 160, 400, 1600, 1601])
def test_short_takes(extractor, samples):
    take = sung(np.full(12, 220.0))[:samples]
    f0 = extractor.f0(take)
    assert f0.shape == (samples // 160 + 1,) and np.isfinite(f0).all() and (f0 >= 0).all()


def test_silence_is_unvoiced(extractor):
    assert not extractor.f0(np.zeros(8000, np.float32)).any()
    assert extractor.f0(np.full(1600, 1e-8, np.float32)).shape == (11,)


@pytest.mark.parametrize(
    "audio", [np.zeros(0), np.zeros((2, 1600)), np.array([0.1, np.nan] * 800), np.array([np.inf] * 800)]
)
def test_audio_that_cannot_be_used(extractor, audio):
    with pytest.raises(AudioError) as caught:
        extractor.f0(audio.astype(np.float32))
    assert caught.value.stage == "pitch"


def test_the_same_bytes_every_time_and_the_input_left_alone(extractor):
    take = sung(np.full(6 if extractor.name in SLOW else 31, 330.0))
    before = take.copy()
    assert np.array_equal(extractor.f0(take), extractor.f0(take))
    assert np.array_equal(take, before)


def test_unknown_names_list_the_known():
    with pytest.raises(SettingsError, match="rmvpe, fcpe, crepe, crepe-tiny, pm, harvest"):
        build_pitch_extractor("swift")
    with pytest.raises(SettingsError):
        weights_of("swift")
    assert weights_of("crepe") == "crepe-full" and weights_of("pm") is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pm", {"threshold": 1.5}),
        ("pm", {"threshold": float("nan")}),
        ("pm", {"median": 3}),
        ("pm", {"path": "weights.pt"}),
        ("harvest", {"median": 4}),
        ("harvest", {"threshold": 0.5}),
        ("crepe", {"size": 4}),
        ("fcpe", {"threshold": -0.1}),
        ("rmvpe", {"thresh": 0.1}),
    ],
)
def test_options_are_checked(name, options):
    with pytest.raises(SettingsError):
        build_pitch_extractor(name, **options)


def test_a_higher_threshold_voices_less():
    take = sung(vibrato_glide(1.0)) + np.random.default_rng(0).normal(0, 0.05, 16001).astype(np.float32)
    loose, strict = (build_pitch_extractor("pm", threshold=value).f0(take) for value in (0.3, 0.95))
    assert (strict > 0).sum() < (loose > 0).sum()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_viterbi_finds_the_best_path(frames, seed):
    """Against the exhaustive recursion on paths of few classes."""
    rng = np.random.default_rng(seed)
    salience = rng.random((frames, 30)).astype(np.float32)
    path = best_path(salience, 4, 24)
    assert path.shape == (frames,) and path.min() >= 4 and path.max() < 24
    assert (np.abs(np.diff(path)) < 12).all()
    assert score(salience, path) >= score(salience, salience[:, 4:24].argmax(axis=1) + 4) - 1e-6
    for _ in range(20):
        other = np.clip(path + rng.integers(-2, 3, frames), 4, 23)
        assert score(salience, path) >= score(salience, other) - 1e-6


def score(salience: np.ndarray, path: np.ndarray) -> float:
    """Log probability of a path, by its definition."""
    allowed = salience[:, 4:24].astype(np.float64)
    total = float((salience[np.arange(len(path)), path] - np.log(np.exp(allowed).sum(axis=1))).sum())
    for before, after in pairwise(path):
        weights = np.maximum(12 - np.abs(before - np.arange(salience.shape[1])), 0)
        total += np.log(weights[after] / weights.sum() + np.finfo(np.float32).tiny)
    return total


def test_curves_are_cut_or_continued():
    assert fit_length(np.array([1.0, 2.0], np.float32), 3) == pytest.approx([1, 2, 0])
    assert fit_length(np.array([1.0, 2.0], np.float32), 1) == pytest.approx([1])


def test_a_text_file_is_no_weights(tmp_path):
    path = tmp_path / "rmvpe.pt"
    path.write_text("not weights")
    with pytest.raises(VoiceFormatError):
        build_pitch_extractor("rmvpe", path=path)
