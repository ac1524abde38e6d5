"""Measures the students: ``python -m train_loops.bundle.live_evaluate --target FILE TAKE...``.

Each take is converted four ways: offline; with the listener in place of encoder and extractor; with the live net in
place of the whole network; with both, as a stream hears and sings. One JSON line for each, with the metrics of
``evaluate`` and the mel distance to the offline result (80 bands, mean of dB, after the first second; same noise).
``--hop`` adds what a hop costs on one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import logging
import time
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from scipy import signal

from rocktop_ray.audio.highpass import CUTOFF
from rocktop_ray.audio.resample import resample
from rocktop_ray.chunks import FRAME, PAD
from rocktop_ray.conversion import blend_protected
from rocktop_ray.convert import Converter
from rocktop_ray.evaluate.instruments import Instruments, default_speaker_encoder
from rocktop_ray.evaluate.melody import f0_agreement
from rocktop_ray.evaluate.pair import evaluate_pair
from rocktop_ray.evaluate.words import find_recogniser
from rocktop_ray.features.content.whisper import WhisperEncoder
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.features.pitch.fcpe import FcpeExtractor
from rocktop_ray.models.listener import ListenerStream
from rocktop_ray.models.singer.live_net import LiveNet
from rocktop_ray.models.singer.voice import SingerVoice
from rocktop_ray.noise import KeptNoise
from rocktop_ray.paths import models
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.voices.singer_format import load_singer
from rocktop_ray.voices.student_format import open_listener, open_live_net
from train_loops.bundle.evaluate import WORDS, Naturalness, read
from train_loops.bundle.live_set import smooth
from train_loops.bundle.live_singing import held_on

log = logging.getLogger("live_evaluate")


def as_heard_live(take: Array) -> Array:
    """A take at 48 kHz -> what a stream's networks hear of it: 16 kHz, high-passed forwards."""
    sections = signal.butter(5, CUTOFF, btype="high", fs=ENCODER_RATE, output="sos")
    low = signal.sosfilt(sections, resample(take, TAKE_RATE, ENCODER_RATE))
    return np.asarray(low[: len(low) // FRAME * FRAME], np.float32)


def listen(stream: ListenerStream, audio: Array) -> tuple[Array, Array]:
    """Audio at 16 kHz -> units ``[frames, dim]`` and F0 ``[frames]``, in hops of four frames, the lag taken off."""
    padded = np.pad(audio, (0, (stream.lag + 4) * FRAME))
    states, units, f0 = [stream.begin()], [], []
    for start in range(0, len(padded) // (4 * FRAME) * 4 * FRAME, 4 * FRAME):
        states, u, p = stream.step(states, torch.from_numpy(padded[None, start : start + 4 * FRAME]))
        units.append(u[0].numpy())
        f0.append(p[0].numpy())
    rows = slice(stream.lag, stream.lag + len(audio) // FRAME)
    return np.concatenate(units)[rows], np.concatenate(f0)[rows]


def live_latent(net: LiveNet, units: Array, f0: Array) -> Array:
    """Units and F0 at 100/s -> latent ``[latent_dim, frames]``, the lag taken off."""
    ahead = ((0, net.lag), (0, 0))
    filled = np.pad(held_on(f0), ahead[0], "edge").astype(np.float32)
    voiced = np.pad((f0 > 0).astype(np.float32), ahead[0])
    heard, hertz, sung = (torch.from_numpy(x[None]) for x in (np.pad(units, ahead, "edge"), filled, voiced))
    made: Array = net.step([net.begin()], heard, hertz, sung, [0])[1][0, :, net.lag :].numpy()
    return made


def mel(wave: Array) -> Array:
    """80 bands in dB."""
    bands = librosa.feature.melspectrogram(y=wave, sr=TAKE_RATE, n_fft=2048, hop_length=480, n_mels=80, fmax=16000)
    return np.asarray(10 * np.log10(np.maximum(bands, 1e-6)), np.float32)


def mel_distance(wave: Array, reference: Array) -> float:
    """dB after the first second; differences by single frames of timing are part of it."""
    one, other = mel(wave), mel(reference)
    frames = slice(100, min(one.shape[1], other.shape[1]))
    return float(np.abs(one[:, frames] - other[:, frames]).mean())


def hop_cost(listener: ListenerStream, net: LiveNet, streams: int, frames: int = 4) -> dict[str, float]:
    """Milliseconds of a hop for so many streams at once, median and 95th percentile."""
    audio = 0.05 * torch.randn(streams, frames * FRAME)
    heard, sung = [listener.begin()] * streams, [net.begin()] * streams
    spent: list[tuple[float, float]] = []
    for _ in range(400):
        first = time.perf_counter()
        heard, units, f0 = listener.step(heard, audio)
        second = time.perf_counter()
        sung, _ = net.step(sung, units, f0.clamp_min(60.0), (f0 > 0).float(), [0] * streams)
        spent.append((second - first, time.perf_counter() - second))
    table = 1e3 * np.array(spent[50:])
    both = table.sum(1)
    return {
        "streams": streams, "listener_ms": round(float(np.median(table[:, 0])), 2),
        "live_net_ms": round(float(np.median(table[:, 1])), 2),
        "both_ms_p50": round(float(np.median(both)), 2), "both_ms_p95": round(float(np.percentile(both, 95)), 2),
    }  # fmt: skip


class Ways:
    """All ways of converting one take."""

    def __init__(
        self, parts: Converter, listener: ListenerStream, net: LiveNet, settings: ConvertSettings, take: Array
    ) -> None:
        assert isinstance(parts.voice, SingerVoice) and parts.extractor is not None
        self.voice, self.index, self.net, self.settings = parts.voice, parts.index, net, settings
        self.offline = parts.convert(take, settings).audio
        audio = as_heard_live(take)
        frames = len(audio) // FRAME
        self.frames = frames
        whole = parts.encoder.encode(audio)
        self.repeated, self.smooth = np.repeat(whole, 2, axis=0)[:frames], smooth(whole, np.arange(frames))
        self.truth = parts.extractor.f0(audio)[:frames]
        self.units, self.f0 = listen(listener, audio)

    def hearing(self) -> dict[str, float | None]:
        """The listener against the encoder and the extractor."""
        one, other = self.units, self.smooth
        cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        melody = f0_agreement(self.truth, self.f0)
        return {
            "unit_cosine": round(float(cosine[100:].mean()), 4), "f0_correlation": melody.correlation,
            "f0_rmse_cents": melody.rmse_cents, "f0_median_cents": melody.median_cents,
            "voicing_differs": round(float(((self.truth > 0) != (self.f0 > 0)).mean()), 4),
        }  # fmt: skip

    def reference(self, frames: int) -> dict[str, Array]:
        """The teachers' F0 and latent of the first frames, for tests that have no teachers."""
        assert self.index is not None
        units = self.index.search_blend(self.repeated, self.settings.index_rate)
        units = blend_protected(units, self.repeated, self.truth, self.settings.protect)
        latent = self.voice.latent(units, self.truth)[:, :frames]
        return {"f0": self.truth[:frames].astype(np.float32), "latent": latent.astype(np.float16)}

    def convert(self, *, listener: bool, live: bool) -> Array:
        """One of the ways with a student in it."""
        own, f0 = (self.units, self.f0) if listener else (self.smooth if live else self.repeated, self.truth)
        units = own
        if self.index is not None:
            units = self.index.search_blend(own, self.settings.index_rate)
            units = blend_protected(units, own, f0, self.settings.protect)
        f0 = (f0 * 2 ** (self.settings.key / 12)).astype(np.float32)
        latent = live_latent(self.net, units, f0) if live else self.voice.latent(units, f0)
        sung = held_on(f0).astype(np.float32)
        return self.voice.wave(latent, sung, noise=KeptNoise(self.settings.seed), frame_offset=PAD // FRAME)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("takes", nargs="*", type=Path)
    parser.add_argument("--voice", type=Path, default=Path("rocktop_ray/bundle/bundle.safetensors"))
    parser.add_argument("--target", type=Path, default=Path("rocktop_ray/bundle/target.flac"))
    parser.add_argument("--listener", type=Path, help="another than the package's")
    parser.add_argument("--live-net", type=Path, help="another than the package's")
    parser.add_argument("--index-rate", type=float, default=0.3)
    parser.add_argument("--key", type=float, default=0.0)
    parser.add_argument("--models", type=Path, default=models(), help="folder of the content encoder and FCPE")
    parser.add_argument("--out", type=Path, help="folder for the converted takes")
    parser.add_argument("--distance-only", action="store_true", help="no words, similarity nor naturalness")
    parser.add_argument("--reference", type=Path, help="file for the teachers' answer to 6 s of the last take")
    parser.add_argument("--hop", action="store_true", help="measure the cost of a hop, too")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    listener, net = open_listener(given.listener), open_live_net(given.live_net)
    if given.hop:
        for streams in (1, 4):
            log.info("%s", json.dumps(hop_cost(listener, net, streams)))
    if not given.takes:
        return
    encoder = WhisperEncoder.load(given.models / "whisper-base-encoder.safetensors")
    pitch = FcpeExtractor(given.models / "fcpe_c_v001.pt")
    index = RetrievalIndex.read(given.voice.with_suffix(".index")) if given.index_rate else None
    parts = Converter(encoder, pitch, load_singer(given.voice), index)
    # rms_mix 1: the level that the networks give, which is what is compared.
    settings = ConvertSettings(key=given.key, index_rate=given.index_rate, rms_mix=1.0)
    target = read(given.target)
    tools = naturalness = None
    if not given.distance_only:
        tools = Instruments(pitch=pitch, speaker=default_speaker_encoder(), recogniser=find_recogniser("en"))
        naturalness = Naturalness() if importlib.util.find_spec("distillmos") else None
    for path in given.takes:
        take = read(path)
        ways = Ways(parts, listener, net, settings, take)
        log.info("%s", json.dumps({"take": path.stem, "hearing": ways.hearing()}))
        if given.reference:
            np.savez_compressed(given.reference, **ways.reference(600))  # type: ignore[arg-type]
            continue
        results = {"offline": ways.offline}
        for name, uses in (
            ("listener + full net", (1, 0)),
            ("listener + live net", (1, 1)),
            ("whisper + live net", (0, 1)),
        ):
            results[name] = ways.convert(listener=bool(uses[0]), live=bool(uses[1]))
        for name, wave in results.items():
            line: dict[str, object] = {"take": path.stem, "way": name}
            line["mel_db"] = round(mel_distance(wave, ways.offline), 2)
            if tools is not None:
                report = evaluate_pair(
                    take, wave, TAKE_RATE, metrics=("f0", "speaker", "words"), target=target, key=given.key,
                    true_words=WORDS.get(path.stem), instruments=tools,
                )  # fmt: skip
                for part in ("f0", "similarity", "words"):
                    value = getattr(report, part)
                    line[part] = None if value is None else dataclasses.asdict(value)
            if naturalness is not None:
                line["mos"] = naturalness(wave, TAKE_RATE)
            log.info("%s", json.dumps(line))
            if given.out:
                given.out.mkdir(parents=True, exist_ok=True)
                name = f"{path.stem}_{name.replace(' ', '').replace('+', '_')}.wav"
                soundfile.write(given.out / name, wave, TAKE_RATE, subtype="FLOAT")


if __name__ == "__main__":
    main()
