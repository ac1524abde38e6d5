"""What windows cost a stream, and what a hop costs: ``python -m benchmarks.live_windows {rvc,hubert,bundle,speed}``.

Seconds are processor seconds of one thread, so that a busy machine falsifies them less. Needs the models of the bundle
(``rocktop models fetch bundle``), ``speed`` does not; ``hubert`` also needs ``PYTHONPATH=tests``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import soundfile
import torch

from rocktop_ray.audio.mel import mel_filters
from rocktop_ray.audio.resample import resample
from rocktop_ray.engine import build_engine
from rocktop_ray.features.content.hubert import HubertEncoder
from rocktop_ray.features.content.whisper import WhisperEncoder
from rocktop_ray.live.acoustic import Draws, RvcAcoustic
from rocktop_ray.live.converter import LiveConverter, LiveLayout
from rocktop_ray.live.melody import Melody
from rocktop_ray.live.open import open_live
from rocktop_ray.live.stream import LiveStream, feed_many
from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.noise import SeededNoise
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("rvc", "hubert", "bundle", "speed"))
    parser.add_argument("--take", type=Path, default=Path("assets/samples/vocadito_10.wav"))
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    wave, rate = soundfile.read(given.take, dtype="float32", always_2d=True)
    audio = resample(wave.mean(1), rate, 48_000)[: round(given.seconds * 48_000)]
    {"rvc": rvc, "hubert": hubert, "bundle": bundle, "speed": speed}[given.what](audio)


def rvc(audio: Array) -> None:
    """Prior encoder and flow of the small pair that ships, over windows against the whole, on the same units."""
    engine = build_engine("bundle", device="cpu")
    voice = _small_voice()
    low = resample(audio, 48_000, 16_000)
    units = np.repeat(engine.converter.encoder.encode(low), 2, axis=0)
    assert engine.converter.extractor is not None
    f0 = engine.converter.extractor.f0(low)[: len(units)]
    units, noise = units[: len(f0)], SeededNoise(0)

    def latent(low: int, high: int, **draws: Any) -> Array:
        return voice.latent(units[low:high], f0[low:high], frame_offset=low, **draws)

    whole = latent(0, len(units), noise=noise)
    other = latent(0, len(units), noise=SeededNoise(1))
    spread = float(whole.std())
    print(f"latent: rms {spread:.3f}; other noise instead: {np.sqrt(np.mean((whole - other) ** 2)) / spread:.3f} of it")
    wave = voice.wave(whole, f0, noise=noise)
    for left, ahead in ((20, 4), (60, 4), (100, 4), (100, 8), (100, 12), (100, 24), (200, 12), (200, 50)):
        streamed = _latents(voice, units, f0, left, ahead)
        wrong = np.sqrt(np.mean((streamed - whole) ** 2)) / spread
        heard = voice.wave(streamed, f0, noise=noise)
        print(f"left {left:3} ahead {ahead:2}: latent {wrong:.4f} of its rms, mel {_mel_distance(heard, wave):.2f} dB")


def _latents(voice: RvcVoice, units: Array, f0: Array, left: int, ahead: int, hop: int = 16) -> Array:
    """The voice's acoustic model as a stream."""
    stream, noise = RvcAcoustic(voice, left), SeededNoise(0)
    states, parts = [stream.begin()], []
    for at in range(0, len(units), hop):
        heard, sung = units[at : at + hop + ahead], f0[at : at + hop + ahead]
        draws, count = [Draws(noise, at, 0.66666)], min(hop, len(units) - at)
        states, sounds = stream.step(states, [heard], [Melody(sung, sung)], count, [0], draws)
        parts.append(sounds[0].latent)
    return np.concatenate(parts, axis=1)


def hubert(audio: Array) -> None:
    """A stream's units against those of the whole take: HuBERT base with the weights of the golden tests, which are
    random, and Whisper, before it is normalised, with its own.
    """
    from golden_data import hubert_folder

    low = resample(audio, 48_000, 16_000)[: len(audio) // 3 // 5120 * 5120]
    ours = HubertEncoder.load(hubert_folder(), version="v2")
    whisper = build_engine("bundle", device="cpu").converter.encoder
    assert isinstance(whisper, WhisperEncoder)
    for left, ahead in ((50, 2), (50, 6), (50, 12), (50, 25), (25, 6), (100, 6), (150, 50)):
        print(f"left {left:3} ahead {ahead:2} units:", end="")
        for name, whole in (("HuBERT", ours.encode(low)), ("Whisper", whisper.features(low))):
            made = _streamed(ours.stream(left, ahead) if name == "HuBERT" else whisper.stream(left), low, ahead)
            first, last = 50 + ahead, min(len(made), len(whole))
            one, other = made[first:last], whole[first:last]
            wrong = 10 * np.log10(np.sum((one - other) ** 2) / np.sum((other - other.mean(0)) ** 2))
            alike = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
            print(f"  {name}: error {wrong:.1f} dB, cosine {alike.mean():.4f}", end="")
        print(flush=True)


def _streamed(stream: Any, low: Array, ahead: int, hop: int = 8) -> Array:
    """Final units of a take at 16 kHz, from its beginning on."""
    padded = np.concatenate([np.zeros(stream.needs + ahead * 320, np.float32), low, np.zeros(ahead * 320, np.float32)])
    states, parts = [stream.begin()], []
    for at in range(0, len(low) + ahead * 320 - hop * 320 + 1, hop * 320):
        window = padded[at:][: stream.needs + (hop + ahead) * 320]
        states, units = stream.step_many(states, torch.from_numpy(window)[None], hop, ahead)
        parts.append(units[0, :hop].numpy())
    return np.concatenate(parts)[ahead:]


def bundle(audio: Array) -> None:
    """The bundle's stream, by listener and over windows, against the offline result."""
    engine = build_engine("bundle", device="cpu")
    settings = ConvertSettings(index_rate=0.3)
    began = time.process_time()
    whole = engine.converter.convert(audio, settings).audio
    print(f"offline: {(time.process_time() - began) * 48_000 / len(audio):.3f} s per s")
    other = engine.converter.convert(audio, ConvertSettings(index_rate=0.3, seed=1)).audio
    print(f"offline, other noise: mel {_mel_distance(other[48_000:], whole[48_000:]):.2f} dB")
    ways = {
        "listener, 40 ms": open_live("bundle"),
        "windows, 100 ms, 100 ahead": LiveConverter(engine.converter, LiveLayout(hop=10, ahead=10)),
    }
    for name, live in ways.items():
        stream = LiveStream(live, settings, multiple=live.hop)
        padded = np.pad(audio, (0, -len(audio) % live.hop))
        began = time.process_time()
        out = np.concatenate([stream.feed(padded), stream.flush()])[stream.delay :][: len(audio)]
        spent = (time.process_time() - began) * 48_000 / len(out)
        mel = _mel_distance(out[48_000:], whole[48_000:])
        print(f"{name}: delay {stream.delay / 48:.0f} ms, {spent:.3f} s per s, mel {mel:.2f} dB", flush=True)


def speed(audio: Array) -> None:
    """One hop of the bundle: all of it, for several streams at once, and what is not a network."""
    live, settings = open_live("bundle"), ConvertSettings(index_rate=0.3)
    for count in (1, 2, 4, 8):
        streams = [LiveStream(live, settings, multiple=live.hop) for _ in range(count)]
        times = []
        for hop in range(30):
            blocks = [audio[(hop + 3 * number) * live.hop :][: live.hop] for number in range(count)]
            began = time.process_time()
            feed_many(streams, blocks)
            times.append(time.process_time() - began)
        print(f"{count} streams: {1000 * np.median(times[5:]):.2f} ms per hop", flush=True)
    stream = streams[0]
    state = stream.state()
    print(f"state: {len(state)} bytes, {1000 * _median(stream.state):.2f} ms; ", end="")
    print(f"restore {1000 * _median(lambda: stream.restore(state)):.2f} ms")
    for rate in (48_000, 44_100):
        dry, block = LiveStream(live, settings, rate=rate, multiple=rate // 25), audio[: rate // 25]
        dry.bypass = True
        dry.feed(audio[: rate // 25 * 10])
        seconds = _median(lambda dry=dry, block=block: dry.feed(block))
        print(f"bypass at {rate} Hz (resampling, high-pass): {1000 * seconds:.2f} ms")
    index = live.parts.index
    units = np.random.default_rng(0).standard_normal((live.layout.hop, 512)).astype(np.float32)
    if index is not None:
        print(f"retrieval: {1000 * _median(lambda: index.search_blend(units, 0.3)):.2f} ms")


def _median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(30):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return float(np.median(times[5:]))


def _mel_distance(ours: Array, theirs: Array) -> float:
    """Mean over 80 bands and frames of the difference of log-mel magnitudes in dB, 60 dB down at most."""
    window, bands = np.hanning(2048), mel_filters(48_000, 2048, 80, 40, 16_000, htk=False)
    levels = []
    for wave in (ours, theirs):
        heard = np.lib.stride_tricks.sliding_window_view(wave, 2048)[::480] * window
        levels.append(20 * np.log10(np.abs(np.fft.rfft(heard)) @ bands.T + 1e-9))
    floor = max(level.max() for level in levels) - 60
    return float(np.mean(np.abs(np.maximum(levels[0], floor) - np.maximum(levels[1], floor))))


def _small_voice() -> RvcVoice:
    """The synthesizer of the pretrained pair."""
    with safetensors.safe_open("rocktop_ray/bundle/pretrained.safetensors", framework="pt") as file:
        sizes, begins = json.loads(file.metadata()["recipe"])["synthesizer"], "generator.weight."
        names = [name for name in list(file.keys()) if name.startswith(begins) and ".enc_q." not in name]
        state = {name.removeprefix(begins): file.get_tensor(name) for name in names}
    lists = {name: _tuples(value) for name, value in sizes.items()}
    return RvcVoice(SynthesizerConfig(**lists), state, content_name="whisper-base")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
