"""The Whisper encoder: its front end and network against plain numpy, its windows, and the reader of model.bin."""

from __future__ import annotations

import json
import math
import struct
from itertools import pairwise
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper_files import HEADS, LAYERS, WIDTH, model_bin

from rocktop_ray.errors import AudioError, RocktopError, VoiceFormatError
from rocktop_ray.features.content.ctranslate2 import convert_encoder, read_tensors
from rocktop_ray.features.content.whisper import OVERLAP, WhisperEncoder, load_net, normalise, window_starts
from rocktop_ray.models.whisper import MAX_FRAMES, LogMel, WhisperConfig, WhisperEncoderNet, sinusoids
from rocktop_ray.protocols import ContentEncoder


def take(seconds: float, seed: int = 0) -> np.ndarray:
    """A gliding, breathing tone with noise, so that no two frames are alike."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    noise = np.random.default_rng(seed).standard_normal(len(time))
    tone = np.sin(2 * np.pi * (200 * time + 15 * np.sin(2 * np.pi * 0.7 * time)))
    return (0.3 * tone * (1.2 + np.sin(2 * np.pi * 1.3 * time)) + 0.02 * noise).astype(np.float32)


def reference(tensors: dict[str, np.ndarray], mel: np.ndarray) -> np.ndarray:
    """The encoder in float64 numpy, written from the paper's description and CTranslate2's names."""
    get = {name.removeprefix("encoder/"): value.astype(np.float64) for name, value in tensors.items()}

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    def conv(x: np.ndarray, name: str, stride: int) -> np.ndarray:
        padded = np.pad(x, ((0, 0), (1, 1)))
        frames = range(0, x.shape[1], stride)
        out = np.stack([np.einsum("oik,ik->o", get[f"{name}/weight"], padded[:, i : i + 3]) for i in frames], axis=1)
        return gelu(out + get[f"{name}/bias"][:, None])

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * get[f"{name}/gamma"] + get[f"{name}/beta"]
        )

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ get[f"{name}/weight"].T + get[f"{name}/bias"]

    x = conv(conv(mel, "conv1", 1), "conv2", 2).T
    width = x.shape[1]
    rates = np.exp(-math.log(10_000) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(len(x))[:, None] * rates
    x = x + np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float16)
    for layer in range(LAYERS):
        stem = f"layer_{layer}/"
        query, key, value = np.split(
            linear(norm(x, f"{stem}self_attention/layer_norm"), f"{stem}self_attention/linear_0"), 3, 1
        )
        heads = []
        for part in np.split(np.arange(width), HEADS):
            scores = query[:, part] @ key[:, part].T / math.sqrt(len(part))
            weights = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(weights / weights.sum(1, keepdims=True) @ value[:, part])
        x = x + linear(np.concatenate(heads, 1), f"{stem}self_attention/linear_1")
        x = x + linear(gelu(linear(norm(x, f"{stem}ffn/layer_norm"), f"{stem}ffn/linear_0")), f"{stem}ffn/linear_1")
    return norm(x, "layer_norm")


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    model_bin(folder / "model.bin")
    convert_encoder(folder / "model.bin", folder / "encoder.safetensors", about={"licence": "none"})
    return folder / "encoder.safetensors"


def random_encoder() -> WhisperEncoder:
    torch.manual_seed(0)
    return WhisperEncoder(WhisperEncoderNet(WhisperConfig(WIDTH, HEADS, LAYERS)), name="whisper-test")


def test_network_agrees_with_numpy(tmp_path: Path) -> None:
    tensors = model_bin(tmp_path / "model.bin")
    convert_encoder(tmp_path / "model.bin", tmp_path / "encoder.safetensors", about={})
    mel = np.random.default_rng(1).standard_normal((80, 41)).astype(np.float32)
    with torch.inference_mode():
        ours = load_net(tmp_path / "encoder.safetensors").eval()(torch.from_numpy(mel)[None])[0].numpy()
    theirs = reference(tensors, mel)
    assert ours.shape == theirs.shape == (21, WIDTH)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_log_mel_agrees_with_librosa() -> None:
    audio = take(1.0)
    power = librosa.feature.melspectrogram(
        y=audio, sr=16_000, n_fft=400, hop_length=160, n_mels=80, pad_mode="reflect"
    )[:, :-1]
    log = np.log10(np.maximum(power, 1e-10))
    expected = (np.maximum(log, log.max() - 8) + 4) / 4
    ours = LogMel()(torch.from_numpy(audio)).numpy()
    assert ours.shape == expected.shape == (80, 100)
    assert np.abs(ours - expected).max() < 1e-4


def test_positions_are_those_of_the_paper() -> None:
    table = sinusoids(4, 8).numpy()
    assert np.allclose(table[0], [0, 0, 0, 0, 1, 1, 1, 1])
    assert np.allclose(table[1, [0, 4]], [math.sin(1), math.cos(1)], atol=5e-4)
    assert np.array_equal(table, table.astype(np.float16).astype(np.float32))


def test_fills_the_role(encoder_file: Path) -> None:
    encoder = WhisperEncoder.load(encoder_file)
    assert isinstance(encoder, ContentEncoder)
    assert (encoder.spec.name, encoder.spec.dim) == ("whisper-base", WIDTH)


@pytest.mark.parametrize("samples", [400, 479, 480, 16_000, 16_159, 16_160])
def test_frame_count(samples: int) -> None:
    units = random_encoder().encode(take(2)[:samples])
    assert units.shape == ((samples // 160 + 1) // 2, WIDTH)
    assert units.dtype == np.float32


def test_units_are_normalised_and_repeatable() -> None:
    encoder = random_encoder()
    units = encoder.encode(take(3))
    assert np.abs(units.mean(0)).max() < 1e-5
    assert np.allclose(units.std(0), 1, atol=1e-4)
    assert np.array_equal(units, encoder.encode(take(3)))


def test_silence_gives_finite_units() -> None:
    assert np.isfinite(random_encoder().encode(np.zeros(8000, np.float32))).all()


@pytest.mark.parametrize(
    "audio", [np.zeros(399, np.float32), np.zeros((2, 800), np.float32), np.full(800, np.nan, np.float32)]
)
def test_bad_audio_is_refused(audio: np.ndarray) -> None:
    with pytest.raises(AudioError):
        random_encoder().encode(audio)


@given(st.integers(1, 50_000))
@settings(deadline=None, max_examples=60)
def test_windows_cover_the_take(frames: int) -> None:
    starts = window_starts(frames)
    assert starts[0] == 0
    assert starts[-1] + MAX_FRAMES >= frames
    assert all(a < b <= a + MAX_FRAMES - OVERLAP for a, b in pairwise(starts))
    assert len(starts) == 1 or starts[-1] + MAX_FRAMES == frames


def test_long_takes_equal_their_windows_away_from_the_seams() -> None:
    encoder = random_encoder()
    audio = take(40)
    whole = encoder.features(audio)
    assert len(whole) == 2000
    with torch.inference_mode():
        mel = encoder._mel(torch.from_numpy(audio))
        first = encoder._net(mel[None, :, : 2 * MAX_FRAMES])[0].numpy()
        last = encoder._net(mel[None, :, -2 * MAX_FRAMES :])[0].numpy()
    assert np.allclose(whole[:500], first[:500], atol=1e-6)
    assert np.allclose(whole[1500:], last[1000:], atol=1e-6)
    middle = whole[1000]
    assert np.allclose(middle, (first[1000] + last[500]) / 2, atol=1e-5)


def test_normalise_keeps_a_constant_dimension_at_zero() -> None:
    features = np.stack([np.full(10, 3.0), np.arange(10.0)], axis=1).astype(np.float32)
    units = normalise(features)
    assert np.array_equal(units[:, 0], np.zeros(10, np.float32))


def test_converted_file_is_the_same_bytes_and_says_what_it_is(tmp_path: Path) -> None:
    model_bin(tmp_path / "model.bin")
    for name in ("a", "b"):
        convert_encoder(tmp_path / "model.bin", tmp_path / name, about={"licence": "MIT", "model": "x"})
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    about = json.loads(header["__metadata__"]["rocktop"])
    assert about["licence"] == "MIT"
    assert (about["width"], about["heads"], about["layers"]) == (WIDTH, HEADS, LAYERS)
    assert not any("decoder" in name or "position" in name for name in header)


def test_reader_keeps_only_what_was_asked_for(tmp_path: Path) -> None:
    tensors = model_bin(tmp_path / "model.bin")
    kept = read_tensors(tmp_path / "model.bin", prefix="decoder/")
    assert list(kept) == ["decoder/embeddings/weight"]
    every = read_tensors(tmp_path / "model.bin")
    assert np.array_equal(every["encoder/conv1/weight"].numpy(), tensors["encoder/conv1/weight"])


def test_other_versions_are_refused(tmp_path: Path) -> None:
    model_bin(tmp_path / "model.bin", version=9)
    with pytest.raises(VoiceFormatError, match="version 9"):
        read_tensors(tmp_path / "model.bin")


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_broken_model_files_are_refused_or_read(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = folder / "whole.bin"
    if not whole.exists():
        model_bin(whole)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    broken = folder / "broken.bin"
    broken.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        convert_encoder(broken, folder / "out.safetensors", about={})
        load_net(folder / "out.safetensors")
    except RocktopError as error:
        assert error.message


@pytest.mark.parametrize("content", [b"", b"text that is no model", b"\x10\0\0\0\0\0\0\0{}" + b" " * 14])
def test_files_that_are_no_encoder_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(VoiceFormatError, match=r"x\.safetensors"):
        WhisperEncoder.load(path)


def test_wrong_sizes_are_refused(encoder_file: Path, tmp_path: Path) -> None:
    data = encoder_file.read_bytes().replace(b'\\"layers\\": 2', b'\\"layers\\": 3')
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(VoiceFormatError, match="do not fit"):
        WhisperEncoder.load(tmp_path / "x.safetensors")
