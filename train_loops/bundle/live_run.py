"""What both students' trainings share: a schedule by the clock, averaged weights, checkpoints."""

from __future__ import annotations

import datetime
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

log = logging.getLogger("live_run")


class ClockedRun:
    """An optimizer whose rate rises for ``warm`` steps and falls as half a cosine until a given minute of the day.

    Args:
        net: what is trained.
        folder: for ``checkpoint.pt`` and ``log.jsonl``.
        rate: highest learning rate.
        until: "HH:MM", the end.
    """

    def __init__(self, net: nn.Module, folder: Path, rate: float, until: str, *, warm: int = 100) -> None:
        self.net, self.folder, self.rate, self.warm = net, folder, rate, warm
        folder.mkdir(parents=True, exist_ok=True)
        self.began = time.time()
        hour, minute = map(int, until.split(":"))
        self.end = datetime.datetime.now().replace(hour=hour, minute=minute, second=0, microsecond=0).timestamp()
        self.step = 0
        self.average = torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.997)
        )
        decayed = [value for value in net.parameters() if value.requires_grad and value.ndim == 2]
        plain = [value for value in net.parameters() if value.requires_grad and value.ndim != 2]
        groups = [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
        self.parts: list[dict[str, float]] = []
        self.saved = self.told = time.time()

    @property
    def done(self) -> float:
        """0 at the start to 1 at the end."""
        return min(1.0, (time.time() - self.began) / max(1.0, self.end - self.began))

    def learn(self, loss: torch.Tensor, parts: dict[str, float]) -> None:
        """One step down."""
        warm = min(1.0, (self.step + 1) / self.warm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.done)))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.net)
        self.step += 1
        self.parts.append(parts)

    def told_since(self, seconds: float) -> bool:
        """Whether it is time to say something again; says it."""
        if time.time() - self.told < seconds or not self.parts:
            return False
        mean = {name: round(sum(part[name] for part in self.parts) / len(self.parts), 4) for name in self.parts[0]}
        line = {"step": self.step, "done": round(self.done, 3), **mean}
        log.info("%s", json.dumps(line))
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.parts, self.told = [], time.time()
        return True

    def save(self, about: dict[str, Any]) -> None:
        """Write the weights and their averages."""
        state = {"net": self.net.state_dict(), "average": self.average.module.state_dict(), "step": self.step}
        path = self.folder / "checkpoint.pt"
        torch.save({**state, "about": about}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)
        self.saved = time.time()


def sized(about: dict[str, Any]) -> dict[str, Any]:
    """The sizes in a checkpoint, as the dataclass takes them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in about["config"].items()}
