"""Trains the bundle voice: ``python -m train_loops.bundle.train --data FOLDER --run FOLDER``.

Writes ``checkpoint.pt`` (to go on from) every few minutes and ``log.jsonl``. ``export`` makes the voice file of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rocktop_ray.models.singer.filters import SourceFilter
from rocktop_ray.models.singer.network import SingerConfig, SingerNet
from train_loops.bundle.critic import MelPatches, critic_loss, fooling_loss
from train_loops.bundle.dataset import HOP, Batch, Crops
from train_loops.bundle.losses import SpectralDistance, energy_distance
from train_loops.bundle.sources import RATE, SPEAKERS

log = logging.getLogger("train")
CRITIC_ALONE = 100
"""Steps in which the critic learns before the model listens to it."""
EDGE = 3
"""Frames at both ends of a crop that do not count: their neighbours are missing."""


def render(net: SingerNet, synth: SourceFilter, batch: Batch) -> tuple[Tensor, Tensor]:
    """Two draws of the model for a batch: the same harmonics, other noise; ``[batch, frames * hop]`` each."""
    latent = net(batch.units, batch.log_f0, batch.voiced, batch.speaker)
    harmonic_filter, noise_filter = synth.filters(latent)
    harmonic = synth.analyse(batch.pulses) * harmonic_filter
    frames = latent.shape[2]

    def draw() -> Tensor:
        noise = synth.analyse(torch.randn_like(batch.pulses)) * noise_filter
        return synth.join(harmonic + noise)[:, HOP : HOP + frames * HOP]

    return draw(), draw()


def inner(wave: Tensor) -> Tensor:
    """Without the edges."""
    return wave[:, EDGE * HOP : -EDGE * HOP]


def rate_at(step: int, steps: int, peak: float) -> float:
    """Learning rate: 200 steps of warm-up, then a half cosine to 3 % of the peak."""
    warm = min(1.0, (step + 1) / 200)
    return peak * warm * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def fingerprint(entries: list[dict[str, object]]) -> str:
    """SHA-256 over names and contents of the items used."""
    lines = sorted(f"{entry['name']} {entry['sha256']}" for entry in entries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=200, help="per crop, 10 ms each")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--repulsion", type=float, default=1.0, help="0: plain spectral loss")
    parser.add_argument("--adversary", type=float, default=0.0, help="weight of the adversarial loss; 0: none")
    parser.add_argument("--versions", choices=["all", "clean"], default="all", help="unit versions")
    parser.add_argument("--speakers", choices=["all", "target"], default="all")
    parser.add_argument("--start", type=Path, help="checkpoint of another run whose weights to begin with")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-minutes", type=float, default=3.0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given.run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given.seed)
    crops = Crops(
        given.data,
        frames=given.frames,
        batch=given.batch,
        seed=given.seed,
        versions=given.versions,
        speakers=given.speakers,
    )
    config = SingerConfig(speakers=len(SPEAKERS))
    net, synth, distance = SingerNet(config), SourceFilter(config, RATE), SpectralDistance()
    critic = MelPatches()
    critic_optimizer = torch.optim.AdamW(critic.parameters(), lr=2e-4, betas=(0.8, 0.98))
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998))
    optimizer = torch.optim.AdamW(net.parameters(), lr=given.rate, betas=(0.9, 0.98), weight_decay=0.01)
    step, path = 0, given.run / "checkpoint.pt"
    about = {
        **{name: value for name, value in vars(given).items() if not isinstance(value, Path)},
        "fingerprint": fingerprint(crops.entries),
        "items": len(crops.items),
        "minutes": sum(len(item["f0"]) for item in crops.items) / 6000,
        "config": dataclasses.asdict(config),
    }
    if path.exists() or given.start:
        state = torch.load(path if path.exists() else given.start, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        if path.exists():
            optimizer.load_state_dict(state["optimizer"])
            critic.load_state_dict(state["critic"])
            critic_optimizer.load_state_dict(state["critic_optimizer"])
            step = state["step"]
            crops.random = np.random.default_rng([given.seed, step])
    log.info("%s items, %.1f minutes, from step %s", len(crops.items), about["minutes"], step)
    saved = time.monotonic()
    losses: list[float] = []
    verdicts: list[tuple[float, float, float]] = []
    while step < given.steps:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, given.steps, given.rate)
        batch = crops.draw()
        one, two = render(net, synth, batch)
        loss = energy_distance(
            distance, inner(batch.wave), (inner(one), inner(two)), batch.band, repulsion=given.repulsion
        )
        target = batch.speaker == 0
        if given.adversary and target.any():
            real, made = inner(batch.wave)[target], inner(one)[target]
            judged = critic_loss(critic, real, made)
            critic_optimizer.zero_grad()
            judged.backward()
            critic_optimizer.step()
            fooled, match = fooling_loss(critic, real, made)
            verdicts.append((judged.item(), fooled.item(), match.item()))
            if step > CRITIC_ALONE:
                loss = loss + given.adversary * (fooled + 2 * match)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(net)
        step += 1
        losses.append(loss.item())
        if step % 50 == 0:
            line = {"step": step, "loss": round(sum(losses) / len(losses), 4), "time": round(time.time())}
            if verdicts:
                means = np.array(verdicts).mean(0).round(4).tolist()
                line |= dict(zip(("critic", "fooled", "match"), means, strict=True))
            losses, verdicts = [], []
            with (given.run / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            log.info("%s", line)
        if time.monotonic() - saved > 60 * given.save_minutes or step == given.steps:
            state = {"net": net.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"critic": critic.state_dict(), "critic_optimizer": critic_optimizer.state_dict()}
            torch.save({**state, "step": step, "about": about}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
            saved = time.monotonic()


if __name__ == "__main__":
    main()
