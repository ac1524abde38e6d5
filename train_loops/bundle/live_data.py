"""Makes the students' training set: ``python -m train_loops.bundle.live_data --bundle FOLDER --out FOLDER ...``.

One ``.npz`` per item: ``audio`` int16 at 16 kHz, ``f0`` float32 every 10 ms (FCPE), ``units`` float16 ``[frames / 2,
512]`` (the bundle's encoder, normalised over the item). Items: those of the bundle's own set; Asterisk's prompts read
by real people; the same re-sung with WORLD; and of all these a resampled copy, whose units and F0 are found anew. Runs
again where it stopped; ``--seconds`` ends it early. The same seed makes the same set. Needs what docs/live-bundle.md
lists.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyworld
import soxr
import torch

from rocktop_ray.features.content.whisper import WhisperEncoder
from rocktop_ray.features.pitch.fcpe import FcpeExtractor
from rocktop_ray.protocols import ENCODER_RATE
from train_loops.bundle import features, singing
from train_loops.proof.sources import prompts

log = logging.getLogger("live_data")
Floats = npt.NDArray[np.float32]
LONGEST = 16 * ENCODER_RATE
"""Samples of an item at most."""


class Teacher:
    """The bundle's encoder and extractor over items."""

    def __init__(self, encoder: WhisperEncoder, pitch: FcpeExtractor, out: Path, seed: int) -> None:
        self.encoder, self.pitch, self.out, self.seed = encoder, pitch, out, seed

    def save(self, name: str, audio: Floats, units: Floats | None = None, f0: Floats | None = None) -> None:
        """Write an item; what is not given is found."""
        audio = audio[:LONGEST]
        units = self.encoder.encode(audio) if units is None else units
        f0 = self.pitch.f0(audio) if f0 is None else f0
        frames = min(len(audio) // 160, len(f0), 2 * len(units)) // 2 * 2
        pcm = np.round(np.clip(audio[: frames * 160], -1, 1) * 32767).astype(np.int16)
        entry = {"name": name, "sha256": hashlib.sha256(pcm.tobytes()).hexdigest()}
        part = self.out / f"{name}.tmp"
        with part.open("wb") as file:
            np.savez(
                file, audio=pcm, f0=f0[:frames].astype(np.float32), units=units[: frames // 2].astype(np.float16),
                entry=json.dumps(entry),
            )  # fmt: skip
        part.rename(self.out / f"{name}.npz")

    def own(self, path: Path) -> None:
        """An item of the bundle's set; F0 of re-sung items is found anew, as their voicing is not FCPE's."""
        with np.load(path) as file:
            audio, units, f0 = file["audio"], file["units"][0].astype(np.float32), file["f0"]
        low = features.to_encoder(audio.astype(np.float32) / 32768)
        self.save(path.stem, low, units, None if path.stem.startswith("song") else f0)

    def prompt(self, name: str, audio: Floats) -> None:
        """A passage as recorded."""
        self.save(name, 0.5 * audio / np.abs(audio).max())

    def sung(self, name: str, audio: Floats) -> None:
        """A passage re-sung to a random melody; vowels 1.3 to 3.5 times as long."""
        random = np.random.default_rng([self.seed, *name.encode()])
        wave = audio.astype(np.float64)
        ticks = np.arange(int(len(wave) / ENCODER_RATE / singing.PERIOD)) * singing.PERIOD
        rough = self.pitch.f0(audio).astype(np.float64)
        rough = rough[np.minimum((ticks * 100).astype(int), len(rough) - 1)]
        melody = pyworld.stonemask(wave, rough, ticks, ENCODER_RATE)
        low = float(85 * 2 ** random.uniform(0, 2.2))
        made, _ = singing.resing(
            wave, ENCODER_RATE, melody, hold=float(random.uniform(1.3, 3.5)), low=low, high=min(low * 2.2, 800.0),
            random=random,
        )  # fmt: skip
        self.save(name, (0.5 * made / np.abs(made).max()).astype(np.float32))

    def copy(self, path: Path) -> None:
        """Another singer: resampled by 1 to 6 semitones (pitch, formants and tempo) and tilted."""
        name = f"copy_{path.stem}"
        random = np.random.default_rng([self.seed, *name.encode()])
        with np.load(path) as file:
            audio = file["audio"].astype(np.float32) / 32768
        speed = 2 ** (random.choice([-1, 1]) * random.uniform(1, 6) / 12)
        other = soxr.resample(audio, ENCODER_RATE * speed, ENCODER_RATE, "HQ")
        tilt = np.float32(random.uniform(-0.4, 0.4))
        other = other + tilt * np.concatenate([[np.float32(0)], other[:-1]])
        self.save(name, (0.5 * other / np.abs(other).max()).astype(np.float32))


def jobs(teacher: Teacher, bundle: Path, recordings: list[Path]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Names and makers of all items."""
    own = sorted(bundle.glob("*.npz"))
    yield from ((path.stem, partial(teacher.own, path)) for path in own)
    heard = []
    for folder in recordings:
        for index, (audio, _) in enumerate(prompts(folder, teacher.seed)):
            name = f"{folder.name}_{index:04d}"
            heard.append(name)
            yield f"sung_{name}", partial(teacher.sung, f"sung_{name}", audio)
            yield name, partial(teacher.prompt, name, audio)
    names = [path.stem for path in own] + [f"{kind}{name}" for name in heard for kind in ("", "sung_")]
    order = np.random.default_rng(teacher.seed).permutation(len(names))
    for index in order:
        path = teacher.out / f"{names[index]}.npz"
        yield f"copy_{names[index]}", partial(teacher.copy, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder that make_data has filled")
    parser.add_argument("--recordings", type=Path, nargs="*", default=[], help="folders of Asterisk prompts (*.g722)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True, help="whisper-base encoder (rocktop models fetch)")
    parser.add_argument("--pitch", type=Path, required=True, help="fcpe_c_v001.pt (rocktop models fetch)")
    parser.add_argument("--part", default="0/1", help="i/n: only every n-th item, from the i-th on")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    teacher = Teacher(WhisperEncoder.load(given.encoder), FcpeExtractor(given.pitch), given.out, given.seed)
    first, every = map(int, given.part.split("/"))
    end = time.monotonic() + given.seconds
    for number, (name, make) in enumerate(jobs(teacher, given.bundle, given.recordings)):
        if time.monotonic() > end:
            return
        if number % every == first and not (given.out / f"{name}.npz").exists():
            if name.startswith("copy_") and not (given.out / f"{name[5:]}.npz").exists():
                continue
            make()
            log.info("%s", name)
    log.info("complete")


if __name__ == "__main__":
    main()
