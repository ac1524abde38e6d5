"""The speaker encoder: shapes and refusals with random weights; Resemblyzer's own numbers with its weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rocktop_ray.audio.decode import read_take
from rocktop_ray.errors import AudioError, ModelMissingError, VoiceFormatError
from rocktop_ray.evaluate.speaker import SpeakerEncoder, partial_starts
from rocktop_ray.models.speaker import GE2E
from rocktop_ray.store.fetch import find

# What Resemblyzer 0.1.4 computes: the cosine of both samples, and the largest elements of each embedding.
BINS = [21, 48, 127, 142, 150, 160, 183, 224]
SIMILARITY = 0.673324
LOW = [0.169229, 0.142913, 0.132001, 0.165309, 0.201925, 0.116972, 0.119231, 0.103326]
HIGH = [0.104945, 0.153731, 0.136662, 0.180607, 0.089847, 0.16304, 0.174282, 0.216206]

SAMPLES = Path(__file__).parent.parent / "assets" / "samples"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("speaker") / "random.pt"
    torch.save({"step": 1, "model_state": GE2E().state_dict()}, path)
    return SpeakerEncoder(path)


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def test_embeddings_are_unit_vectors(encoder):
    for samples in (1, 399, 16_000, 200_000):
        embedding = encoder.embed(noise(samples))
        assert embedding.shape == (256,) and embedding.dtype == np.float32
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
        assert (embedding >= 0).all()
        assert encoder.similarity(embedding, embedding) == pytest.approx(1, abs=1e-5)


def test_batches_of_partials_do_not_matter(encoder, monkeypatch):
    from rocktop_ray.evaluate import speaker

    whole = encoder.embed(noise(160_000))
    monkeypatch.setattr(speaker, "_BATCH", 3)
    assert np.abs(encoder.embed(noise(160_000)) - whole).max() < 1e-6


def test_quiet_takes_are_raised(encoder):
    quiet = noise(32_000) * np.float32(0.001)
    assert encoder.similarity(encoder.embed(quiet), encoder.embed(quiet * np.float32(3))) == pytest.approx(1, abs=1e-5)
    with pytest.raises(AudioError, match="silent"):
        encoder.embed(np.zeros(16_000, np.float32))
    with pytest.raises(AudioError, match="silent"):
        encoder.embed(np.zeros(0, np.float32))


def test_partials_cover_the_take():
    assert partial_starts(100) == [0]
    assert partial_starts(16_000 * 3) == [0, 77, 154]
    for samples in (30_000, 77_777, 500_000):
        starts = partial_starts(samples)
        assert (starts[-1] + 160) * 160 > samples - 77 * 160
        assert samples - starts[-1] * 160 >= 0.75 * 160 * 160


def test_other_files_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(VoiceFormatError, match="model_state"):
        SpeakerEncoder(tmp_path / "other.pt")
    torch.save({"model_state": GE2E(mels=80).state_dict()}, tmp_path / "wide.pt")
    with pytest.raises(VoiceFormatError, match=r"lstm\.weight_ih_l0 \(1024, 40\), found \(1024, 80\)"):
        SpeakerEncoder(tmp_path / "wide.pt")


def test_the_numbers_of_resemblyzer():
    """Against Resemblyzer 0.1.4 (``embed_utterance`` of the two samples at 16 kHz)."""
    try:
        real = SpeakerEncoder(find("resemblyzer"))
    except ModelMissingError:
        pytest.skip("the weights of Resemblyzer are not installed")
    low, high = (real.embed(read_take(SAMPLES / f"vocadito_{number}.wav", rate=16_000)) for number in (10, 14))
    assert real.similarity(low, high) == pytest.approx(SIMILARITY, abs=1e-4)
    assert np.abs(low[BINS] - LOW).max() < 1e-4
    assert np.abs(high[BINS] - HIGH).max() < 1e-4
