"""Random crops of the students' set, disturbed as a microphone and a room would, and what the teachers made of them."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
import torch
from torch import Tensor

log = logging.getLogger("live_set")
Floats = npt.NDArray[np.float32]
HOP = 160
MARGIN = 40
"""Frames before a crop that filters and rooms have to settle in."""
SHARES = {"speech": 0.5, "song": 1.0, "sung": 1.5, "slt": 0.7, "rms": 1.0, "awb": 1.0, "gcin5": 1.5, "gcin3": 1.5}
"""How often an item's second is heard, by the first word of its name (that of what it is a copy of); others 1."""
HELD_OUT = 6
"""First items of each kind that are not trained on."""


@dataclass
class LiveBatch:
    """Crops, ``frames`` long; frame i stands at sample 160 * i of ``audio``."""

    audio: Tensor
    """``[batch, frames * 160]``"""
    units: Tensor
    """``[batch, frames, dim]``: see ``smooth``."""
    f0: Tensor
    """``[batch, frames]`` Hz, 0 = unvoiced."""
    loud: Tensor
    """``[batch, frames]``, 0 in silence to 1."""


def smooth(units: Floats, places: np.ndarray) -> Floats:
    """Units at 50/s -> those of frames (at 100/s, also between whole ones) ``[frames, dim]``, each read 5 ms before.

    A unit stands for the frames 2 i and 2 i + 1, so it is right in their middle; it is interpolated between middles.
    """
    place = np.clip((places - 0.5) / 2, 0, len(units) - 1)
    left = np.minimum(place.astype(int), len(units) - 2)
    part = (place - left)[:, None].astype(np.float32)
    return units[left].astype(np.float32) * (1 - part) + units[left + 1].astype(np.float32) * part


def read_f0(f0: Floats, places: np.ndarray) -> Floats:
    """F0 between frames: voiced as the nearest, and interpolated where both neighbours are voiced."""
    left = np.minimum(places.astype(int), len(f0) - 2)
    part = places - left
    low, high = f0[left], f0[left + 1]
    both = (low > 0) & (high > 0)
    mixed = np.exp(np.log(np.maximum(low, 1e-3)) * (1 - part) + np.log(np.maximum(high, 1e-3)) * part)
    return np.asarray(np.where(both, mixed, np.where(part < 0.5, low, high)), np.float32)


class LiveCrops:
    """Draws batches; ``look`` takes in items that have been made since."""

    def __init__(self, folder: Path, *, seed: int, hold_out: bool = True, resampled: float = 0.6) -> None:
        self.folder, self.hold_out, self.resampled = folder, hold_out, resampled
        self.random = np.random.default_rng(seed)
        self.items: dict[str, dict[str, np.ndarray]] = {}
        self.entries: list[dict[str, str]] = []
        self.held: dict[str, dict[str, np.ndarray]] = {}
        self.look()

    def look(self) -> None:
        """Read what is new."""
        for path in sorted(self.folder.glob("*.npz")):
            if path.stem in self.items or path.stem in self.held:
                continue
            with np.load(path) as file:
                item = {name: file[name] for name in ("audio", "f0", "units")}
                entry = json.loads(str(file["entry"]))
            if len(item["f0"]) < 300 + MARGIN:
                continue
            if self.hold_out and int(path.stem[-4:]) < HELD_OUT:
                self.held[path.stem] = item
            else:
                self.items[path.stem] = item
                self.entries.append(entry)
        self.names = list(self.items)
        kinds = [name.removeprefix("copy_").split("_")[0] for name in self.names]
        seconds = np.array(
            [len(self.items[name]["f0"]) * SHARES.get(k, 1.0) for name, k in zip(self.names, kinds, strict=True)]
        )
        self.chance = seconds / seconds.sum()

    def fingerprint(self) -> str:
        """SHA-256 over names and contents of the items."""
        lines = sorted(f"{entry['name']} {entry['sha256']}" for entry in self.entries)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def minutes(self) -> float:
        """Of all items."""
        return sum(len(item["f0"]) for item in self.items.values()) / 6000

    def draw(self, batch: int, frames: int) -> LiveBatch:
        """One batch."""
        crops = [
            self._crop(self.items[self.names[index]], frames)
            for index in self.random.choice(len(self.names), batch, p=self.chance)
        ]
        return LiveBatch(*(torch.from_numpy(np.stack(column)) for column in zip(*crops, strict=True)))

    def _crop(self, item: dict[str, np.ndarray], frames: int) -> tuple[np.ndarray, ...]:
        """A crop; often sung by somebody smaller or larger: resampled by up to 6 semitones, with the same units."""
        speed = 2 ** (self.random.uniform(-6, 6) / 12) if self.random.random() < self.resampled else 1.0
        taken = int(np.ceil(frames * speed)) + 2
        if taken >= len(item["f0"]) - 2:
            speed, taken = 1.0, frames + 2
        start = int(self.random.integers(0, len(item["f0"]) - taken))
        before = min(start, int(MARGIN * speed)) if speed == 1.0 else 0
        heard: np.ndarray = item["audio"][(start - before) * HOP : (start + taken) * HOP].astype(np.float32) / 32768
        if speed != 1.0:
            heard = np.asarray(soxr.resample(heard, 16_000 * speed, 16_000, "HQ"), np.float32)
        heard = self._disturbed(heard[: (before + frames) * HOP])[before * HOP :]
        places = start + np.arange(frames) * speed
        near = np.round(places).astype(int)
        return (
            heard,
            smooth(item["units"], places),
            read_f0(item["f0"], places) * np.float32(speed),
            loudness(item)[near],
        )

    def _disturbed(self, audio: np.ndarray) -> Floats:
        """Another level, colour, room and noise; the teachers' answer stays that to the clean one."""
        random = self.random
        if random.random() < 0.5:
            tilt = np.float32(random.uniform(-0.4, 0.4))
            audio = audio + tilt * np.concatenate([[np.float32(0)], audio[:-1]])
        if random.random() < 0.3:
            size = 3200
            decay = np.exp(-np.arange(size) / (random.uniform(0.015, 0.06) * 16_000))
            room = random.normal(size=size) * decay
            room *= random.uniform(0.05, 0.4) / np.sqrt((room**2).sum())
            room[0] = 1.0
            span = 1 << (len(audio) + size - 1).bit_length()
            audio = np.fft.irfft(np.fft.rfft(audio, span) * np.fft.rfft(room, span), span)[: len(audio)]
        level = np.sqrt((audio**2).mean()) + 1e-5
        if random.random() < 0.6:
            noise = random.standard_normal(len(audio)).astype(np.float32)
            if random.random() < 0.5:
                noise = np.cumsum(noise - noise.mean()) * 0.02 + noise * 0.3
                noise -= noise.mean()
                noise /= noise.std() + 1e-6
            audio = audio + noise * level * 10 ** (-random.uniform(12, 50) / 20)
        gain = 10 ** (random.uniform(-32, -12) / 20) / level
        return np.asarray(audio * min(gain, 0.99 / (np.abs(audio).max() + 1e-6)), np.float32)


def loudness(item: dict[str, np.ndarray]) -> Floats:
    """``[frames]``: 0 in silence, 1 where something sounds, by the level against the item's loudest."""
    if "loud" not in item:
        audio = item["audio"].astype(np.float32) / 32768
        frames = len(audio) // HOP
        level = 10 * np.log10((audio[: frames * HOP].reshape(frames, HOP) ** 2).mean(1) + 1e-9)
        top = 20 * np.log10(np.abs(audio).max() + 1e-6)
        item["loud"] = np.asarray(1 / (1 + np.exp(-(level - top + 48) / 4)), np.float32)
    return item["loud"]
