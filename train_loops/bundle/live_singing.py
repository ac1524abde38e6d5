"""Trains the live net: ``python -m train_loops.bundle.live_singing --data FOLDER --run FOLDER --listener RUN ...``.

The teacher, the voice's whole network, reads units and F0 of the encoder and the extractor. The student reads those of
the listener as it is then (its checkpoint is read again every few minutes), or, for a part of the crops, the teacher's.
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

from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.models.listener.causal import CausalBlock
from rocktop_ray.models.listener.network import ListenerConfig, ListenerNet, melody
from rocktop_ray.models.singer.live_net import LiveConfig, LiveFrameNet
from rocktop_ray.models.singer.network import REFERENCE_HZ, ConvBlock, SingerNet
from rocktop_ray.models.singer.source import filled
from rocktop_ray.voices.singer_format import read_singer
from train_loops.bundle.live_losses import latent_loss
from train_loops.bundle.live_run import ClockedRun, sized
from train_loops.bundle.live_set import LiveCrops

log = logging.getLogger("live_singing")
EDGE = 45
"""Frames at both ends of a crop that do not count: the teacher reaches so far."""
COPIED = (0, 1, 2, 4, 5, 6)
"""Blocks of the teacher from which the student's blocks start."""
_NEAREST = 8


def warm_start(student: LiveFrameNet, teacher: SingerNet) -> None:
    """Begin with the teacher's weights: all but one of its blocks, the filters' taps of the past, and of each
    perceptron the hidden numbers that weigh most.
    """
    own, given = student.state_dict(), teacher.state_dict()
    for name in own:
        if name in given:
            own[name].copy_(given[name])
    for place, source in enumerate(COPIED[: len(student.stack.blocks)]):
        block, old = student.stack.blocks[place], teacher.blocks[source]
        assert isinstance(old, ConvBlock) and isinstance(block, CausalBlock)
        with torch.no_grad():
            taps, kernel = old.depthwise.weight[:, 0], old.depthwise.kernel_size[0]
            shift = kernel // 2 - block.delay
            made = torch.zeros_like(taps)
            made[:, shift:] = taps[:, : kernel - shift]
            made[:, -1] += taps[:, kernel - shift :].sum(1)
            block.depthwise.weight.copy_(made[:, None, None])
            assert block.depthwise.bias is not None and old.depthwise.bias is not None
            block.depthwise.bias.copy_(old.depthwise.bias)
            block.norm.load_state_dict(old.norm.state_dict())
            block.scale.copy_(old.scale)
            kept = (old.widen.weight.norm(dim=1) * old.narrow.weight.norm(dim=0)).topk(len(block.widen.bias)).indices
            block.widen.weight.copy_(old.widen.weight[kept])
            block.widen.bias.copy_(old.widen.bias[kept])
            block.narrow.weight.copy_(old.narrow.weight[:, kept])
            block.narrow.bias.copy_(old.narrow.bias)


def go_on_from(student: LiveFrameNet, run: Path) -> None:
    """Begin with the averaged weights of an earlier student, whose blocks may have heard further ahead.

    Taps for frames that are no longer heard are added to the newest that is.
    """
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    student.load_state_dict(state["average"])
    given = (*state["about"]["config"]["delays"], *(0 for _ in student.stack.blocks))
    for block, delay in zip(student.stack.blocks, given, strict=False):
        assert isinstance(block, CausalBlock)
        later, step = delay - block.delay, block.depthwise.dilation[1]
        if later:
            assert later > 0 and later % step == 0, "a block can only learn to hear less far ahead"
            with torch.no_grad():
                taps = block.depthwise.weight.clone()
                kept = torch.zeros_like(taps)
                kept[..., later // step :] = taps[..., : -later // step]
                kept[..., -1] += taps[..., -later // step :].sum(-1)
                block.depthwise.weight.copy_(kept)


class Retrieval:
    """The index's blend, over whole batches."""

    def __init__(self, path: Path) -> None:
        self.vectors = torch.from_numpy(np.ascontiguousarray(RetrievalIndex.read(path).arrays.vectors, np.float32))
        self.norms = self.vectors.square().sum(1)

    def __call__(self, units: Tensor, rate: float) -> Tensor:
        """``[n, dim]`` moved towards the voice's own units; as ``RetrievalIndex.search_blend`` over all lists."""
        scores = (self.norms - 2 * units @ self.vectors.T + units.square().sum(1, keepdim=True)).clamp_min(1e-6)
        nearest = scores.topk(_NEAREST, dim=1, largest=False)
        weights = nearest.values**-2.0
        weights = weights / weights.sum(1, keepdim=True)
        found = (self.vectors[nearest.indices] * weights[..., None]).sum(1)
        return units + rate * (found - units)


def held_on(f0: np.ndarray) -> np.ndarray:
    """F0 ``[frames]`` with the last voiced value in unvoiced frames, as a stream fills it; the first at the start."""
    known = np.flatnonzero(f0 > 0)
    if not len(known):
        return np.full(len(f0), 150.0)
    last = np.maximum.accumulate(np.where(f0 > 0, np.arange(len(f0)), -1))
    return np.asarray(np.where(last >= 0, f0[last], f0[known[0]]), np.float64)


def octaves(f0: np.ndarray, shift: np.ndarray) -> Tensor:
    """F0 ``[batch, frames]`` in Hz without gaps -> octaves above the reference, shifted by ``shift`` octaves each."""
    return torch.from_numpy((np.log2(f0 / REFERENCE_HZ) + shift[:, None]).astype(np.float32))


def listener_of(run: Path) -> ListenerNet:
    """The averaged weights of a listener under training."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    net = ListenerNet(ListenerConfig(**sized(state["about"])))
    net.load_state_dict(state["average"])
    return net.eval().requires_grad_(False)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--listener", type=Path, required=True, help="run folder of the listener")
    parser.add_argument("--voice", type=Path, default=Path("rocktop_ray/bundle/bundle.safetensors"))
    parser.add_argument("--until", required=True, help="HH:MM")
    parser.add_argument("--batch", type=int, default=5)
    parser.add_argument("--frames", type=int, default=290)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--own-units", type=float, default=0.8, help="share of crops with the listener's units")
    parser.add_argument("--start", type=Path, help="run folder of a student whose weights to begin with")
    parser.add_argument("--seed", type=int, default=2)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    crops = LiveCrops(given.data, seed=given.seed)
    teacher, _ = read_singer(given.voice)
    teacher.eval().requires_grad_(False)
    sizes = teacher.config
    config = LiveConfig(
        content_dim=sizes.content_dim, speakers=sizes.speakers, core_dim=sizes.core_dim, high_bands=sizes.high_bands
    )
    student = LiveFrameNet(config)
    if given.start:
        go_on_from(student, given.start)
    else:
        warm_start(student, teacher)
    for frozen in (student.high, student.speaker):
        frozen.requires_grad_(False)
    retrieval = Retrieval(given.voice.with_suffix(".index"))
    run = ClockedRun(student, given.run, given.rate, given.until)
    log.info("%s items, %s weights", len(crops.items), sum(value.numel() for value in student.parameters()))
    listener, looked, random, lag = None, 0.0, np.random.default_rng(given.seed), student.stack.lag

    def keep() -> None:
        about = {name: value for name, value in vars(given).items() if not isinstance(value, Path)}
        about |= {"config": dataclasses.asdict(config), "items": len(crops.items), "minutes": crops.minutes}
        run.save({**about, "fingerprint": crops.fingerprint(), "steps": run.step})

    while run.done < 1:
        if time.time() - looked > 120:
            if looked:
                crops.look()
                keep()
            listener = listener_of(given.listener) if (given.listener / "checkpoint.pt").exists() else None
            looked = time.time()
        batch = crops.draw(given.batch, given.frames)
        f0 = batch.f0.numpy()
        shift = random.uniform(-0.6, 0.6, given.batch) * (random.random(given.batch) < 0.5)
        speaker = torch.from_numpy(
            np.where(random.random(given.batch) < 0.85, 0, random.integers(0, config.speakers, given.batch))
        )
        units, own, own_f0 = batch.units, batch.units.clone(), f0.copy()
        with torch.no_grad():
            if listener is not None:
                heard = listener(batch.audio)
                behind = listener.config.lag
                found = melody(heard.salience, heard.voicing)
                for place in np.flatnonzero(random.random(given.batch) < given.own_units):
                    own[place, :-behind] = heard.units[place, behind:]
                    own_f0[place, :-behind] = found[place, behind:].numpy()
            for place in np.flatnonzero(random.random(given.batch) < 0.5):
                units[place], own[place] = retrieval(units[place], 0.3), retrieval(own[place], 0.3)
            voiced = torch.from_numpy((f0 > 0).astype(np.float32))
            wanted = teacher.core(units, octaves(np.stack([filled(row) for row in f0]), shift), voiced, speaker)
        heard_voiced = torch.from_numpy((own_f0 > 0).astype(np.float32))
        made = student.core(own, octaves(np.stack([held_on(row) for row in own_f0]), shift), heard_voiced, speaker)
        frames = slice(EDGE, given.frames - EDGE)
        loss = latent_loss(made[:, EDGE + lag : given.frames - EDGE + lag], wanted[:, frames])
        run.learn(loss, {"latent": loss.item()})
        run.told_since(30)
    keep()


if __name__ == "__main__":
    main()
