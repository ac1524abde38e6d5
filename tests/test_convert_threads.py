"""One converter for many threads: four takes at once give the bytes that they give one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import TypeVar

import golden_data
import numpy as np
import pytest
import torch
from small_rvc import small, weights

from rocktop_ray.convert import Converter
from rocktop_ray.features import formant
from rocktop_ray.features.content.registry import build_content_encoder
from rocktop_ray.features.content.whisper import WhisperEncoder
from rocktop_ray.features.pitch.harvest import HarvestExtractor
from rocktop_ray.features.pitch.praat import PraatExtractor
from rocktop_ray.features.pitch.registry import build_pitch_extractor
from rocktop_ray.models.rvc.config import Decoder
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.models.singer import SingerConfig, SingerNet, SingerVoice
from rocktop_ray.models.singer.about import SingerAbout
from rocktop_ray.models.whisper import WhisperConfig, WhisperEncoderNet
from rocktop_ray.noise import SeededNoise
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.voices.open import open_voice

T = TypeVar("T")
THREADS = 4


@pytest.fixture(autouse=True)
def eager_switching() -> Iterator[None]:
    """Threads take turns a thousand times as often: what is shared without care shows."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.fixture(params=[1, 2])
def torch_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    usual = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(usual)


def at_once(work: Callable[[int], T]) -> list[T]:
    """``work(0)`` to ``work(3)``, begun at the same time in new threads."""
    ready = Barrier(THREADS)

    def run(number: int) -> T:
        ready.wait(60)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def sung(number: int, rate: int = 48_000) -> Array:
    """A fifth of a second and more, of another tune for each number."""
    at = np.arange(round((0.2 + 0.13 * number) * rate)) / rate
    noise = np.random.default_rng(number).standard_normal(len(at))
    tune = np.sin(2 * np.pi * (150 + 40 * number) * (at + 0.01 * np.sin(2 * np.pi * 3 * at)))
    return (0.3 * tune * (at % 0.2 < 0.17) + 0.01 * noise).astype(np.float32)


@cache
def rvc() -> Converter:
    voice = open_voice(golden_data.voice_file("v2_48k_f0"), index=golden_data.index_file())
    encoder = build_content_encoder("hubert-v2", path=golden_data.hubert_folder())
    rmvpe = build_pitch_extractor("rmvpe", path=golden_data.rmvpe_file())
    return Converter(encoder, rmvpe, voice.model, voice.index)


@cache
def singer() -> Converter:
    torch.manual_seed(0)
    encoder = WhisperEncoder(WhisperEncoderNet(WhisperConfig(16, 4, 2)))
    net = SingerNet(SingerConfig(content_dim=16, width=24, dilations=(1, 2)))
    about = SingerAbout(sample_rate=48_000, encoder="whisper-base", speakers=("one",), median_f0=200.0)
    return Converter(encoder, PraatExtractor(), SingerVoice(net, about))


@pytest.mark.parametrize(("make", "torch_threads"), [(rvc, 1), (singer, 2)], indirect=["torch_threads"])
def test_takes_at_once(make: Callable[[], Converter], torch_threads: int) -> None:
    parts = make()

    def convert(number: int) -> bytes:
        return parts.convert(sung(number), ConvertSettings(seed=number, key=number - 1)).audio.tobytes()

    one_by_one = [convert(number) for number in range(THREADS)]
    assert len(set(one_by_one)) == THREADS
    assert at_once(convert) == one_by_one


@pytest.mark.parametrize(
    ("decoder", "torch_threads"),
    [("hifigan", 1), ("hifigan", 2), ("mrf-hifigan", 2), ("refinegan", 1)],
    indirect=["torch_threads"],
)
def test_decoders_at_once(decoder: Decoder, torch_threads: int) -> None:
    config = small(decoder)
    voice = RvcVoice(config, weights(config), content_name="test")
    frames = 8 if decoder == "refinegan" else 230

    def render(number: int) -> bytes:
        latent = np.random.default_rng(number).standard_normal((config.inter_channels, frames + number), np.float32)
        f0 = np.full(frames + number, 200.0, np.float32)
        return voice.wave(latent, f0, noise=SeededNoise(number), frame_offset=17 * number).tobytes()

    one_by_one = [render(number) for number in range(THREADS)]
    for _ in range(1 if decoder == "refinegan" else 3):
        assert at_once(render) == one_by_one


@pytest.mark.parametrize("make", [PraatExtractor, HarvestExtractor])
def test_pitch_from_libraries_at_once(make: Callable[[], PraatExtractor | HarvestExtractor]) -> None:
    extractor = make()

    def melody(number: int) -> bytes:
        return extractor.f0(sung(number, 16_000)).tobytes()

    assert at_once(melody) == [melody(number) for number in range(THREADS)]


def test_formants_at_once() -> None:
    def shifted(number: int) -> bytes:
        return formant.shift(sung(number, 16_000), 16_000, 2.0 + number).tobytes()

    assert at_once(shifted) == [shifted(number) for number in range(THREADS)]
