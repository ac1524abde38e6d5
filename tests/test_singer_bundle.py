from pathlib import Path

import numpy as np
import pytest
import soundfile

import rocktop_ray.bundle
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.models.singer import SingerVoice
from rocktop_ray.noise import SeededNoise
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.voices.singer_format import load_singer

FOLDER = Path(rocktop_ray.bundle.__file__).parent


@pytest.fixture(scope="module")
def voice() -> SingerVoice:
    return load_singer(FOLDER / "bundle.safetensors")


def test_the_bundle_is_small_and_describes_itself(voice):
    assert (FOLDER / "bundle.safetensors").stat().st_size <= 12_000_000
    about = voice.about
    assert about.encoder == "whisper-base" and voice.spec.content.dim == 512
    assert len(about.speakers) == voice.spec.speakers
    assert len(about.training_data) == 64 and about.recipe["seed"]
    assert about.licence and "CC BY 3.0" in about.credits
    assert 120 < about.median_f0 < 300
    ConvertSettings.from_mapping(about.defaults)


def test_the_index_fits(voice):
    index = RetrievalIndex.read(FOLDER / "bundle.index", dim=voice.spec.content.dim)
    assert 500 <= index.count <= 5000


def test_the_target_clip_is_there():
    info = soundfile.info(FOLDER / "target.flac")
    assert 5 < info.duration < 20 and info.channels == 1


def test_it_sings_the_melody_and_stays_quiet_enough(voice):
    index = RetrievalIndex.read(FOLDER / "bundle.index")
    units = index.arrays.vectors[:50].repeat(4, 0)
    f0 = np.full(200, 300, np.float32)
    wave = voice.wave(voice.latent(units, f0), f0, noise=SeededNoise(0))
    assert np.isfinite(wave).all() and 0.005 < np.abs(wave).max() < 1.5
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / 48_000)
    low = (hertz > 150) & (hertz < 1000)
    harmonic = np.abs(hertz / 300 - np.round(hertz / 300)) * 300 < 15
    assert spectrum[low & harmonic].sum() > 0.9 * spectrum[low].sum()


def test_the_melody_decides_the_pitch_not_the_units(voice):
    random = np.random.default_rng(0)
    units = random.normal(size=(120, 512)).astype(np.float32)
    f0 = np.where(np.arange(120) < 60, 150, 330).astype(np.float32)
    wave = voice.wave(voice.latent(units, f0), f0)
    for part, hertz in ((slice(10, 50), 150), (slice(70, 110), 330)):
        piece = wave[part.start * 480 : part.stop * 480]
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece))))
        peak = np.argmax(spectrum[2:]) + 2
        ratio = peak * 48_000 / len(piece) / hertz
        assert abs(ratio - round(ratio)) < 0.05
