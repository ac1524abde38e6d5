"""Trains the listener: ``python -m train_loops.bundle.live_listener --data FOLDER --run FOLDER --until HH:MM``.

Writes ``checkpoint.pt`` every two minutes and ``log.jsonl``; ``live_export`` makes the file of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rocktop_ray.models.listener.front import CENTS
from rocktop_ray.models.listener.network import Heard, ListenerConfig, ListenerNet, melody
from rocktop_ray.voices.singer_format import read_singer
from train_loops.bundle.live_losses import listening_loss
from train_loops.bundle.live_run import ClockedRun
from train_loops.bundle.live_set import LiveBatch, LiveCrops, loudness, smooth

log = logging.getLogger("live_listener")
SETTLE = 8
"""Rows of a crop that do not count: their windows reach before it."""


def aligned(heard: Heard, batch: LiveBatch, lag: int) -> tuple[Heard, Tensor, Tensor, Tensor]:
    """What was heard from row ``SETTLE`` on, and units, F0 and loudness of the same frames."""
    rows = slice(SETTLE, None)
    frames = slice(SETTLE - lag, batch.f0.shape[1] - lag)
    return (
        Heard(*(part[:, rows] for part in heard)), batch.units[:, frames], batch.f0[:, frames], batch.loud[:, frames],
    )  # fmt: skip


@torch.inference_mode()
def measure(net: ListenerNet, held: dict[str, dict[str, np.ndarray]], views: Tensor) -> dict[str, float]:
    """Over held-out items: mean square error of units, correlation, cents, voicing."""
    lag = net.config.lag
    wrong, seen, cents, far, voicing = [], [], [], [], []
    for item in held.values():
        frames = min(len(item["f0"]), 600)
        audio = torch.from_numpy(item["audio"][: frames * 160].astype(np.float32) / 32768)[None]
        heard = net(audio)
        wanted = torch.from_numpy(smooth(item["units"], np.arange(frames - lag)))
        loud = torch.from_numpy(loudness(item)[: frames - lag]) > 0.5
        gap = (heard.units[0, lag:] - wanted)[loud]
        wrong.append(gap.square().mean().item())
        seen.append(((gap @ views.T).square().mean() / (wanted[loud] @ views.T).square().mean()).item())
        found = melody(heard.salience, heard.voicing)[0, lag:].numpy()
        truth = item["f0"][: frames - lag]
        both = (found > 0) & (truth > 0)
        voicing.append(((found > 0) != (truth > 0)).mean())
        if both.any():
            apart = np.abs(1200 * np.log2(found[both] / truth[both]))
            cents.append(np.median(apart))
            far.append((apart > 50).mean())
    names = ("units", "seen", "cents", "beyond_50", "voicing")
    return {n: round(float(np.mean(v)), 4) for n, v in zip(names, (wrong, seen, cents, far, voicing), strict=True)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--voice", type=Path, default=Path("rocktop_ray/bundle/bundle.safetensors"))
    parser.add_argument("--until", required=True, help="HH:MM")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=208)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--start", type=Path, help="run folder whose weights to begin with")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    crops = LiveCrops(given.data, seed=given.seed)
    net = ListenerNet(ListenerConfig())
    before = 0
    if given.start:
        state = torch.load(given.start / "checkpoint.pt", weights_only=True)
        net.load_state_dict(state["net"])
        before = state["step"]
    run = ClockedRun(net, given.run, given.rate, given.until)
    views = read_singer(given.voice)[0].content.weight.detach()
    sample = crops.draw(16, given.frames)
    scale = float((sample.units @ views.T).square().mean())
    looked = time.time()
    log.info("%s items, %.1f minutes, %s weights, bin of %s cents", len(crops.items), crops.minutes,
             sum(value.numel() for value in net.parameters()), CENTS)  # fmt: skip
    while run.done < 1:
        batch = crops.draw(given.batch, given.frames)
        loss, parts = listening_loss(*aligned(net(batch.audio), batch, net.config.lag), views, scale)
        run.learn(loss, parts)
        run.told_since(30)
        if time.time() - looked > 120 or run.done >= 1:
            crops.look()
            about = {name: value for name, value in vars(given).items() if not isinstance(value, Path)}
            about |= {"config": dataclasses.asdict(net.config), "items": len(crops.items), "minutes": crops.minutes}
            run.save({**about, "fingerprint": crops.fingerprint(), "steps": run.step, "steps_before": before})
            some = dict(list(crops.held.items())[:: max(1, len(crops.held) // 12)])
            averaged = run.average.module
            assert isinstance(averaged, ListenerNet)
            log.info("held out: %s", measure(averaged.eval(), some, views))
            looked = time.time()


if __name__ == "__main__":
    main()
