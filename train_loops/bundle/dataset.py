"""Random crops of the training set, with everything the renderer needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rocktop_ray.models.singer.network import REFERENCE_HZ
from rocktop_ray.models.singer.source import filled, pulses
from train_loops.bundle.sources import BAND, RATE, SPEAKERS

HOP = RATE // 100


@dataclass
class Batch:
    """``frames`` per crop; the wave starts at frame 0's sample."""

    units: Tensor
    log_f0: Tensor
    voiced: Tensor
    speaker: Tensor
    pulses: Tensor
    """``[batch, (frames + 1) * hop]``, from one hop before the first frame."""
    wave: Tensor
    """``[batch, frames * hop]``"""
    band: Tensor
    """``[batch]`` Hz up to which the wave counts."""


class Crops:
    """Draws batches. Held in memory: about 1.5 GB per hour of audio with four unit versions."""

    def __init__(
        self,
        folder: Path,
        *,
        frames: int,
        batch: int,
        seed: int,
        hold_out: int = 12,
        versions: str = "all",
        speakers: str = "all",
    ) -> None:
        self.frames, self.batch, self.versions = frames, batch, versions
        self.random = np.random.default_rng(seed)
        self.items: list[dict[str, np.ndarray]] = []
        self.speakers: list[int] = []
        self.entries: list[dict[str, object]] = []
        for path in sorted(folder.glob("*.npz")):
            with np.load(path) as file:
                entry = json.loads(str(file["entry"]))
                if len(file["f0"]) < frames + 2 or (speakers == "target" and entry["speaker"] != SPEAKERS[0]):
                    continue
                if entry["name"].split("_")[0] in ("speech", "song") and int(entry["name"][-4:]) < hold_out // 2:
                    continue
                self.items.append({name: file[name] for name in ("audio", "f0", "units")})
            self.entries.append(entry)
            self.speakers.append(SPEAKERS.index(entry["speaker"]))
        seconds = np.array([len(item["f0"]) for item in self.items]) * np.array(
            [2.0 if s == 0 else 1.0 for s in self.speakers]
        )
        self.chance = seconds / seconds.sum()

    def _crop(self, index: int) -> tuple[np.ndarray, ...]:
        item, random = self.items[index], self.random
        start = int(random.integers(1, (len(item["f0"]) - self.frames) // 2)) * 2
        stop = start + self.frames
        count = len(item["units"]) if self.versions == "all" else 1
        version = int(random.integers(count))
        units = item["units"][version, start // 2 : stop // 2].astype(np.float32).repeat(2, 0)
        raw = item["f0"]
        f0 = filled(raw)
        shift = 2 ** (random.normal(0, 2.0) / 12) if random.random() < 0.5 else 1.0
        voiced = (raw[start:stop] > 0) if random.random() < 0.7 else np.ones(self.frames)
        train = pulses(f0[start - 1 : stop], 0, self.frames + 1, HOP, RATE)
        wave = item["audio"][start * HOP : stop * HOP].astype(np.float32) / 32768
        return units, np.log2(f0[start:stop] * shift / REFERENCE_HZ), voiced, train, wave

    def draw(self) -> Batch:
        """One batch."""
        chosen = self.random.choice(len(self.items), self.batch, p=self.chance)
        units, log_f0, voiced, train, wave = (
            torch.from_numpy(np.stack(column).astype(np.float32))
            for column in zip(*map(self._crop, chosen), strict=True)
        )
        speakers = [self.speakers[i] for i in chosen]
        units = units + torch.randn(units.shape) * 0.1
        band = torch.tensor([BAND[SPEAKERS[s]] for s in speakers])
        return Batch(units, log_f0, voiced, torch.tensor(speakers), train, wave, band)
