"""Makes the training set: ``python -m train_loops.bundle.make_data --out FOLDER --encoder FILE --pitch FILE``.

One ``.npz`` per item (about 10 s): ``audio`` int16 at 24 kHz, ``f0`` float32 every 10 ms, ``units`` float16
``[versions, frames / 2, 512]`` (version 0 is the item itself, the others are what other singers would give).
Runs again where it stopped. The same seed makes the same set. Needs what docs/bundle.md lists.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyworld
import torch

from rocktop_ray.features.content.whisper import WhisperEncoder
from rocktop_ray.features.pitch.fcpe import FcpeExtractor
from train_loops.bundle import features, singing, sources, texts

log = logging.getLogger("make_data")
GROUPS = ("speech", "song", "flite", "gcin")


class Maker:
    """Builds items, given the two analysers."""

    def __init__(self, out: Path, encoder: WhisperEncoder, pitch: FcpeExtractor, seed: int) -> None:
        self.out, self.encoder, self.pitch, self.seed = out, encoder, pitch, seed
        self.heart = sources.Heart()

    def _save(
        self, name: str, speaker: str, audio: sources.Floats, f0: sources.Floats, units: list[sources.Floats]
    ) -> None:
        frames = min(features.frames_of(len(audio)), len(f0) // 2 * 2, 2 * min(map(len, units)))
        pcm = np.round(np.clip(audio[: frames * 240], -1, 1) * 32767).astype(np.int16)
        stack = np.stack([version[: frames // 2] for version in units]).astype(np.float16)
        entry = {
            "name": name,
            "speaker": speaker,
            "seconds": frames / 100,
            "sha256": hashlib.sha256(pcm.tobytes()).hexdigest(),
        }
        temporary = self.out / f"{name}.tmp"
        with temporary.open("wb") as file:
            np.savez(file, audio=pcm, f0=f0[:frames].astype(np.float32), units=stack, entry=json.dumps(entry))
        temporary.rename(self.out / f"{name}.npz")

    def _versions(self, audio: sources.Floats, random: np.random.Generator, count: int) -> list[sources.Floats]:
        audio16 = features.to_encoder(audio)
        clean = self.encoder.encode(audio16)
        return [clean, *(features.disturbed(audio16, len(clean), self.encoder, random) for _ in range(count))]

    def speech(self, index: int) -> None:
        """The target speaks; versions: disturbed copies, and flite's voices saying the same words in its time."""
        random = np.random.default_rng([self.seed, 1, index])
        text = texts.passage(self.seed, index)
        audio, _ = self.heart.speak(text, speed=float(random.uniform(0.7, 1.05)), seed=index)
        audio = 0.5 * audio / np.abs(audio).max()
        units = self._versions(audio, random, 1)
        for voice in random.choice(["slt", "rms", "awb"], 2, replace=False):
            other = self.encoder.encode(features.to_encoder(sources.flite(text, str(voice))))
            units.append(features.aligned(units[0], other))
        self._save(f"speech_{index:04d}", "heart", audio, self.pitch.f0(features.to_encoder(audio)), units)

    def song(self, index: int) -> None:
        """The target's speech re-sung, with F0 known exactly."""
        random = np.random.default_rng([self.seed, 2, index])
        text = texts.passage(self.seed + 1, index)
        audio, f0 = self.heart.speak(text, speed=float(random.uniform(0.75, 1.0)), seed=index)
        ticks = np.arange(int(len(audio) / sources.RATE / singing.PERIOD)) * singing.PERIOD
        speech_f0 = f0[np.minimum(np.round(ticks / 0.0125).astype(int), len(f0) - 1)]
        speech_f0 = pyworld.stonemask(audio.astype(np.float64), speech_f0, ticks, sources.RATE)
        low = float(90 * 2 ** random.uniform(0, 2))
        sung, sung_f0 = singing.resing(
            audio.astype(np.float64),
            sources.RATE,
            speech_f0,
            hold=float(random.uniform(1.5, 4)),
            low=low,
            high=min(low * 2.2, 700.0),
            random=random,
        )
        wave = (0.5 * sung / np.abs(sung).max()).astype(np.float32)[: 16 * sources.RATE]
        self._save(f"song_{index:04d}", "heart", wave, sung_f0[::2].astype(np.float32), self._versions(wave, random, 2))

    def other(self, name: str, speaker: str, audio: sources.Floats) -> None:
        """Another speaker, so that the content branch meets more than one."""
        random = np.random.default_rng([self.seed, 3, *name.encode()])
        audio = 0.5 * audio / np.abs(audio).max()
        self._save(name, speaker, audio, self.pitch.f0(features.to_encoder(audio)), self._versions(audio, random, 1))

    def flite(self, name: str, voice: str, text: str) -> None:
        """An item of a flite voice."""
        self.other(name, voice, sources.flite(text, voice))

    def jobs(self, group: str, count: int, gcin: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        """Names and makers of a group's items."""
        if group == "speech":
            yield from ((f"speech_{i:04d}", partial(self.speech, i)) for i in range(count))
        elif group == "song":
            yield from ((f"song_{i:04d}", partial(self.song, i)) for i in range(count))
        elif group == "flite":
            for i in range(count):
                voice = ("slt", "rms", "awb")[i % 3]
                name = f"{voice}_{i:04d}"
                yield name, partial(self.flite, name, voice, texts.passage(self.seed + 2, i))
        else:
            for person in ("5", "3"):
                for i, audio in enumerate(sources.syllables(gcin, person, self.seed, 10.0)[:count]):
                    name = f"gcin{person}_{i:04d}"
                    yield name, partial(self.other, name, f"gcin{person}", audio)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True, help="whisper-base encoder (rocktop models fetch)")
    parser.add_argument("--pitch", type=Path, required=True, help="fcpe_c_v001.pt (rocktop models fetch)")
    parser.add_argument("--gcin", type=Path, default=Path("/usr/share/gcin-voice/ogg"))
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--counts", nargs="+", type=int, default=[180, 100, 90, 40], help="items of each group")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    maker = Maker(given.out, WhisperEncoder.load(given.encoder), FcpeExtractor(given.pitch), given.seed)
    for group, count in zip(given.groups, given.counts, strict=True):
        for name, make in maker.jobs(group, count, given.gcin):
            if not (given.out / f"{name}.npz").exists():
                make()
                log.info("%s", name)


if __name__ == "__main__":
    main()
