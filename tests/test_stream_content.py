"""The Whisper encoder over a stream: what is kept is what the whole would compute, as far as it may look."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rocktop_ray.features.content.whisper import WhisperEncoder
from rocktop_ray.live.content import ContentWindow, NormState, _heard
from rocktop_ray.live.state import pack, unpack
from rocktop_ray.models import whisper_stream
from rocktop_ray.models.fcpe import FCPE
from rocktop_ray.models.whisper import WhisperConfig, WhisperEncoderNet


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    torch.manual_seed(0)
    return WhisperEncoder(WhisperEncoderNet(WhisperConfig(16, 2, 2)), name="test")


def audio(units: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.1, units * 320).astype(np.float32)


def streamed(encoder: WhisperEncoder, wave: np.ndarray, left: int, fresh: int, ahead: int) -> np.ndarray:
    """Final features of all units but the last ``ahead``."""
    stream = encoder.stream(left)
    assert stream is not None
    state, parts = stream.begin(), []
    padded = np.concatenate([np.zeros(stream.needs, np.float32), wave])
    for unit in range(0, len(wave) // 320 - ahead, fresh):
        window = padded[unit * 320 :][: stream.needs + (fresh + ahead) * 320]
        state, features = stream.step(unpack(pack(state), stream.begin()), torch.from_numpy(window), fresh, ahead)
        assert features.shape[0] == fresh + ahead
        parts.append(features[:fresh].numpy())
    return np.concatenate(parts)


def test_all_ahead_at_once_is_the_whole(encoder: WhisperEncoder) -> None:
    """With nothing held back, a first block is the encoder itself. Offline the convolutions are padded with 0, which
    is not the spectrum of silence, so the first units differ, and a little the others, which hear them.
    """
    wave = audio(60)
    wave[: 4 * 160] = 0
    ours = streamed(encoder, wave, left=20, fresh=60, ahead=0)
    assert np.abs(ours - encoder.features(wave))[5:].mean() < 0.02


def test_more_look_ahead_is_nearer_to_the_whole(encoder: WhisperEncoder) -> None:
    wave = audio(202)
    whole = encoder.features(wave)
    errors = []
    for ahead in (2, 50, 150):
        ours = streamed(encoder, wave, left=200, fresh=2, ahead=ahead)
        errors.append(float(np.abs(ours[:50] - whole[:50]).mean()))
    assert errors[0] > errors[1] > errors[2]


def test_positions_start_again_before_they_run_out(encoder: WhisperEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = audio(200)
    endless = streamed(encoder, wave, left=20, fresh=4, ahead=4)
    monkeypatch.setattr(whisper_stream, "MAX_FRAMES", 64)
    short = streamed(encoder, wave, left=20, fresh=4, ahead=4)
    assert short.shape == endless.shape
    assert np.isfinite(short).all()
    assert np.array_equal(short[:56], endless[:56])


def test_mean_and_variance_run_over_the_stream() -> None:
    units = np.random.default_rng(0).normal(3, 2, (900, 5)).astype(np.float32)
    state = NormState(0.0, np.zeros(5), np.zeros(5))
    for start in range(0, 900, 7):
        state = _heard(state, units[start : start + 7])
    assert np.allclose(state.mean, units.mean(0), atol=1e-4)
    assert np.allclose(state.variance, units.var(0), atol=1e-3)


def test_units_come_out_normalised(encoder: WhisperEncoder) -> None:
    """The first block by its own mean and variance, as there is nothing else."""
    window = ContentWindow(encoder, 20, 4)
    heard = np.concatenate([np.zeros(window.needs, np.float32), audio(24)])
    _, (units,) = window.step([window.begin()], heard[None], 20)
    assert np.abs(units.mean(0)).max() < 1e-5
    assert np.abs(units.std(0) - 1).max() < 1e-3


def test_several_streams_through_the_encoder_are_as_one_by_one(
    encoder: WhisperEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of different ages: one has no context yet, one runs out of positions."""
    monkeypatch.setattr(whisper_stream, "MAX_FRAMES", 40)
    stream = encoder.stream(20)
    assert stream is not None
    states = []
    for age in (0, 3, 8):
        state = stream.begin()
        for turn in range(age):
            state, _ = stream.step(state, torch.from_numpy(audio(40)[turn * 320 :][: stream.needs + 6 * 320]), 4, 2)
        states.append(state)
    heard = torch.from_numpy(np.stack([audio(40)[at:][: stream.needs + 6 * 320] for at in (0, 500, 900)]))
    for _ in range(4):
        alone = [stream.step(state, each, 4, 2) for state, each in zip(states, heard, strict=True)]
        states, together = stream.step_many(states, heard, 4, 2)
        for (state, features), row, after in zip(alone, together, states, strict=True):
            assert (features - row).abs().max() <= 1e-5
            assert (state.position, state.known) == (after.position, after.known)
            assert (state.keys - after.keys).abs().max() <= 1e-5


def test_several_takes_through_fcpe_are_as_one_by_one() -> None:
    torch.manual_seed(0)
    network = FCPE(mels=8, dim=16, layers=2, bins=12).eval()
    mels = torch.randn(3, 8, 34)
    with torch.inference_mode():
        for row, mel in zip(network.together(mels), mels, strict=True):
            assert (row - network(mel)).abs().max() <= 1e-5
