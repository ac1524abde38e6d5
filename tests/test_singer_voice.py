import dataclasses

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import SettingsError, VoiceFormatError, VoiceNotFoundError
from rocktop_ray.models.singer import SingerConfig, SingerNet, SingerVoice
from rocktop_ray.models.singer.about import SingerAbout
from rocktop_ray.noise import SeededNoise
from rocktop_ray.protocols import VoiceModel
from rocktop_ray.voices.singer_format import load_singer, read_singer, write_singer

CONFIG = SingerConfig(content_dim=16, width=24, dilations=(1, 2), speakers=2)
ABOUT = SingerAbout(
    sample_rate=48_000,
    encoder="whisper-base",
    speakers=("one", "two"),
    defaults={"index_rate": 0.2},
    median_f0=200.0,
)


def random_net(seed: int = 0) -> SingerNet:
    torch.manual_seed(seed)
    net = SingerNet(CONFIG)
    with torch.no_grad():
        net.head.weight.normal_(std=0.3)
        net.head.bias.fill_(-1.5)
    return net


@pytest.fixture(scope="module")
def voice() -> SingerVoice:
    return SingerVoice(random_net(), ABOUT)


def take(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    f0 = random.uniform(90, 500, frames).astype(np.float32)
    f0[random.random(frames) < 0.2] = 0
    return random.normal(size=(frames, 16)).astype(np.float32), f0


def test_it_is_a_voice_model(voice):
    assert isinstance(voice, VoiceModel)
    assert (voice.spec.sample_rate, voice.spec.hop, voice.spec.speakers) == (48_000, 480, 2)
    assert voice.spec.content.name == "whisper-base"


def test_shapes_and_finiteness(voice):
    units, f0 = take(37)
    latent = voice.latent(units, f0)
    assert latent.shape == (voice.spec.latent_dim, 37) and latent.dtype == np.float32
    wave = voice.wave(latent, f0, noise=SeededNoise(1))
    assert wave.shape == (37 * 480,) and wave.dtype == np.float32
    assert np.isfinite(wave).all() and np.abs(wave).max() > 1e-3


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.data())
def test_any_part_equals_that_part_of_the_whole(voice, frames, data):
    start = data.draw(st.integers(0, frames))
    stop = data.draw(st.integers(start, frames))
    units, f0 = take(frames, frames)
    latent, noise = voice.latent(units, f0), SeededNoise(3)
    whole = voice.wave(latent, f0, noise=noise, frame_offset=7)
    part = voice.wave(latent, f0, noise=noise, frame_offset=7, start=start, stop=stop)
    assert part.shape == ((stop - start) * 480,)
    assert np.abs(part - whole[start * 480 : stop * 480]).max(initial=0) <= 1e-5 * np.abs(whole).max()


def test_long_takes_are_rendered_in_segments_without_seams(voice, monkeypatch):
    units, f0 = take(130)
    latent, noise = voice.latent(units, f0), SeededNoise(3)
    whole = voice.wave(latent, f0, noise=noise)
    monkeypatch.setattr("rocktop_ray.models.singer.voice.SEGMENT", 17)
    assert np.abs(voice.wave(latent, f0, noise=noise) - whole).max() <= 1e-5 * np.abs(whole).max()


def test_noise_is_the_callers(voice):
    units, f0 = take(20)
    latent = voice.latent(units, f0)
    first = voice.wave(latent, f0, noise=SeededNoise(1))
    assert np.array_equal(first, voice.wave(latent, f0, noise=SeededNoise(1)))
    assert not np.allclose(first, voice.wave(latent, f0, noise=SeededNoise(2)))
    assert not np.allclose(first, voice.wave(latent, f0))


def test_the_melody_is_sung(voice):
    frames = 100
    latent = np.full((voice.spec.latent_dim, frames), -16, np.float32)
    latent[: CONFIG.harmonic_bands] = -2
    wave = voice.wave(latent, np.full(frames, 250, np.float32))
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    strong = np.flatnonzero(spectrum > 0.3 * spectrum.max())
    assert np.all(np.abs(strong - np.round(strong / 250) * 250) <= 2) and len(strong) > 30


def test_speakers_differ_and_others_are_refused(voice):
    units, f0 = take(10)
    assert not np.allclose(voice.latent(units, f0), voice.latent(units, f0, speaker=1))
    with pytest.raises(SettingsError, match="0 to 1, not 2"):
        voice.latent(units, f0, speaker=2)


@pytest.mark.parametrize("units, f0", [((5, 15), 5), ((5, 16), 6), ((5, 16), None)])
def test_shapes_that_do_not_fit_are_refused(voice, units, f0):
    with pytest.raises(SettingsError):
        voice.latent(np.zeros(units, np.float32), None if f0 is None else np.zeros(f0, np.float32))


def test_frames_outside_the_latent_are_refused(voice):
    with pytest.raises(SettingsError, match="inside"):
        voice.wave(np.zeros((voice.spec.latent_dim, 5), np.float32), np.zeros(5, np.float32), start=2, stop=6)


def test_a_file_holds_the_voice(tmp_path):
    net = random_net(4)
    write_singer(tmp_path / "v.safetensors", net, ABOUT)
    again, about = read_singer(tmp_path / "v.safetensors")
    assert about == ABOUT and again.config == CONFIG
    for name, value in net.state_dict().items():
        assert torch.allclose(again.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    units, f0 = take(12)
    voice = load_singer(tmp_path / "v.safetensors")
    assert np.abs(voice.latent(units, f0) - SingerVoice(net, ABOUT).latent(units, f0)).max() < 0.05


def rewritten(path, change_tensors=None, change_metadata=None):
    with safetensors.safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if change_tensors:
        change_tensors(tensors)
    if change_metadata:
        change_metadata(metadata)
    safetensors.torch.save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize(
    "tensors, metadata, words",
    [
        (lambda t: t.pop("head.bias"), None, "missing head.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), None, "unknown extra"),
        (lambda t: t.update({"head.bias": torch.zeros(3)}), None, "expected .112,., found .3,."),
        (lambda t: t["head.bias"].fill_(float("nan")), None, "head.bias: not finite"),
        (None, lambda m: m.update(format="other"), "expected format rocktop-singer 1, found other 1"),
        (None, lambda m: m.update(config="{"), "damaged"),
        (None, lambda m: m.update(config=m["config"].replace('"width": 24', '"width": 10000000')), "width 10000000"),
        (None, lambda m: m.update(sample_rate="44100"), "44100"),
        (None, lambda m: m.pop("encoder"), "damaged"),
        (None, lambda m: m.update(speakers='["one"]'), "expected 2 speaker names, found 1"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_a_report(tmp_path, tensors, metadata, words):
    path = tmp_path / "v.safetensors"
    write_singer(path, random_net(), ABOUT)
    with pytest.raises(VoiceFormatError, match=words):
        load_singer(rewritten(path, tensors, metadata))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "v.safetensors"
    with pytest.raises(VoiceNotFoundError):
        load_singer(path)
    write_singer(path, random_net(), ABOUT)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VoiceFormatError, match="not a readable"):
        load_singer(path)
    path.write_bytes(b"text")
    with pytest.raises(VoiceFormatError, match="not a readable"):
        load_singer(path)


def test_configs_are_checked(tmp_path):
    write_singer(tmp_path / "v.safetensors", random_net(), ABOUT)

    def even(metadata):
        metadata["config"] = metadata["config"].replace('"kernel": 7', '"kernel": 6')

    with pytest.raises(VoiceFormatError, match="kernel 6"):
        load_singer(rewritten(tmp_path / "v.safetensors", None, even))
    assert dataclasses.replace(CONFIG, high_bands=3).latent_dim == CONFIG.core_dim + 3
