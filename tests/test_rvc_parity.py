"""The RVC synthesizer against the peer's arrays, stage by stage, each fed the peer's own input (goldens/README.md)."""

from __future__ import annotations

from functools import cache

import golden_data
import numpy as np
import pytest
import torch

from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.pitch_bins import coarse_pitch
from rocktop_ray.models.rvc.source import sine_source
from rocktop_ray.models.rvc.voice import RvcVoice

TOLERANCE = 1e-4  # of the stage's peak
DIALECTS = ("v2_48k_f0", "v2_48k_f0_classic")
PARTS = ((0, 40), (230, 270), (458, 498))  # both ends and the middle: a whole render takes a minute on a busy core
HOP = 480


@cache
def voice(layout: str) -> RvcVoice:
    data = golden_data.layouts()[layout]
    config = SynthesizerConfig.from_list(data["config"], version=data["version"], f0=bool(data["f0"]))
    return RvcVoice(config, golden_data.voice_state(data), content_name="hubert-v2")


@cache
def case(name: str) -> dict[str, np.ndarray]:
    return golden_data.case(name)


def unblended(name: str) -> np.ndarray:
    """Units of the cases without an index: the encoder's, each twice."""
    return np.repeat(case(name)["hubert"][0], 2, axis=0)


def melody(name: str) -> np.ndarray:
    return case(name)["f0_hz"].astype(np.float32)


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error <= TOLERANCE, f"{error:.2e} of the peak"


@pytest.mark.parametrize("name", DIALECTS)
def test_coarse_pitch(name: str) -> None:
    np.testing.assert_array_equal(coarse_pitch(melody(name)), case(name)["f0_coarse"])


@pytest.mark.parametrize("name", DIALECTS)
def test_prior(name: str) -> None:
    arrays = case(name)
    units = torch.from_numpy(arrays["synth_feats"])
    pitch = torch.from_numpy(arrays["f0_coarse"][None, : units.shape[1]]).long()
    with torch.inference_mode():
        mean, log_scale = voice("v2_48k_f0").model.enc_p(units, pitch)
    assert_close(mean[0].numpy(), arrays["m_p"])
    assert_close(log_scale[0].numpy(), arrays["logs_p"])


@pytest.mark.parametrize("name", DIALECTS)
def test_latent(name: str) -> None:
    arrays = case(name)
    assert_close(voice("v2_48k_f0").latent(arrays["synth_feats"][0], melody(name)), arrays["z"])


def test_latent_without_index() -> None:
    name = "v2_48k_f0_noindex_rms1"
    assert_close(voice("v2_48k_f0").latent(unblended(name), melody(name)), case(name)["z"])


def test_latent_without_f0() -> None:
    name = "v2_48k_nof0"
    singer = voice("v2_48k_nof0")
    with torch.inference_mode():
        mean, _ = singer.model.enc_p(torch.from_numpy(unblended(name))[None], None)
    assert_close(mean[0].numpy(), case(name)["m_p"])
    assert_close(singer.latent(unblended(name), None), case(name)["z"])


@pytest.mark.parametrize("name", DIALECTS)
def test_source(name: str) -> None:
    theirs = case(name)["har_source"]
    f0 = torch.from_numpy(melody(name)[None, : theirs.shape[1] // HOP])
    with torch.inference_mode():
        ours = voice("v2_48k_f0").model.dec.m_source(sine_source(f0, hop=HOP, sample_rate=48_000))
    assert_close(ours[0, 0].numpy(), theirs[0, :, 0])


@pytest.mark.parametrize("name", DIALECTS)
def test_wave(name: str) -> None:
    arrays = case(name)
    peak = np.abs(arrays["wave"]).max()
    for start, stop in PARTS:
        ours = voice("v2_48k_f0").wave(arrays["z"], melody(name), start=start, stop=stop)
        error = np.abs(ours - arrays["wave"][0, start * HOP : stop * HOP]).max() / peak
        assert error <= TOLERANCE, f"frames {start} to {stop}: {error:.2e} of the peak"


def test_wave_of_a_plain_output() -> None:
    """Without RMS mix the peer's output is the wave less one second of padding at each end."""
    arrays = case("v2_48k_f0_noindex_rms1")
    start, stop = 250, 290
    ours = voice("v2_48k_f0").wave(arrays["z"], melody("v2_48k_f0_noindex_rms1"), start=start, stop=stop)
    theirs = arrays["output"][(start - 100) * HOP : (stop - 100) * HOP]
    assert np.abs(ours - theirs).max() / np.abs(arrays["output"]).max() <= TOLERANCE
