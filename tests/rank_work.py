"""What the workers of the tests do: functions that their processes can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from toy_training import toy_examples, toy_recipe, toy_step

from rocktop_ray.errors import TrainingError, WorkerLostError
from train_loops.exchange.groups import Groups, join
from train_loops.exchange.reduce import Exchange
from train_loops.exchange.shares import gather_speeds, sizes, slots
from train_loops.exchange.state import check_same, named_tensors, send_state, spread
from train_loops.rvc import checkpoints
from train_loops.rvc.batches import BatchPlan, collate
from train_loops.rvc.checkpoints import Progress
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.step import PARTS, AdversarialStep

FRAMES = (3, 9, 1, 4, 7, 2, 5, 8, 6, 3, 4, 2)
"""Frames of the examples of a plain batch: unlike, so that means of means would be wrong."""


@contextmanager
def groups_of(labels: Sequence[str], rank: int, timeout: float = 120) -> Iterator[Groups]:
    groups = join(vendor=labels[rank], timeout=timeout)
    try:
        yield groups
    finally:
        groups.close()


# --- a plain pair of networks -----------------------------------------------------------------------------


class Net(nn.Module):
    """With a weight in an unusual memory layout, a buffer, a weight that few examples use, and one that none does."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(5, 8)
        self.turned = nn.Parameter(torch.randn(6, 8).t())
        self.rare = nn.Linear(6, 1)
        self.last = nn.Linear(6, 1)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("seen", torch.tensor(seed))

    def forward(self, x: torch.Tensor, rare: bool) -> torch.Tensor:
        hidden = torch.tanh(self.first(x)) @ self.turned
        return self.last(hidden) + (self.rare(hidden) if rare else 0)


def plain_nets(seed: int) -> tuple[dict[str, Net], dict[str, torch.optim.Optimizer]]:
    nets = {"discriminator": Net(seed), "generator": Net(seed + 1)}
    return nets, {name: torch.optim.AdamW(net.parameters(), lr=1e-2) for name, net in nets.items()}


def plain_loss(nets: dict[str, Net], part: str, members: range, step: int) -> tuple[torch.Tensor, int]:
    """Sum over frames, and their number; the generator's depends on the discriminator just improved."""
    total, count = torch.zeros(()), 0
    for member in members:
        random = np.random.default_rng([step, member])
        x = torch.from_numpy(random.standard_normal((FRAMES[member], 5)).astype(np.float32))
        out = nets[part](x, rare=member == 0)
        if part == "generator":
            out = out - nets["discriminator"](x, rare=False).detach()
        total, count = total + (out - x.sum(1, keepdim=True)).square().sum(), count + FRAMES[member]
    return total, count


def values(modules: Any) -> dict[str, np.ndarray]:
    return {name: tensor.clone().numpy() for name, tensor in named_tensors(modules).items()}


def plain_alone(steps: int) -> dict[str, np.ndarray]:
    nets, optimizers = plain_nets(0)
    for step in range(steps):
        for part in PARTS:
            optimizers[part].zero_grad()
            loss, count = plain_loss(nets, part, range(len(FRAMES)), step)
            (loss / count).backward()
            optimizers[part].step()
    return values(nets)


def plain_run(rank: int, labels: Sequence[str], given: Sequence[range], steps: int, bucket: int) -> dict[str, Any]:
    """Every worker starts with other weights; the first one's count."""
    with groups_of(labels, rank) as groups:
        nets, optimizers = plain_nets(10 * rank)
        send_state(groups, nets, optimizers)
        started = check_same(groups, named_tensors(nets))
        exchange = Exchange(groups, bucket_bytes=bucket)
        for step in range(steps):
            for part in PARTS:
                optimizers[part].zero_grad()
                loss, count = plain_loss(nets, part, given[rank], step)
                if count:
                    loss.backward()
                assert exchange.average(part, list(nets[part].parameters()), count)
                optimizers[part].step()
        ended = check_same(groups, named_tensors(nets))
        return {
            "values": values(nets),
            "unused": nets["generator"].unused.weight.grad is None,
            "moved": started != ended,
            "spread": spread(groups, named_tensors(nets).values()),
            "leaders": groups.layout.leaders,
            "seconds": exchange.seconds,
        }


# --- the real step -----------------------------------------------------------------------------


def slow_recipe(*, epsilon: float = 1e-9) -> Recipe:
    """At the learning rate of the stock configurations, and by default with their epsilon."""
    recipe = toy_recipe(batch_size=4)
    return replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=1e-4, epsilon=epsilon))


def go(
    step: AdversarialStep, speeds: Sequence[float], rank: int | None, exchange: Exchange | None, first: int, last: int
) -> list[Any]:
    """Steps ``first`` to ``last`` of a run, two batches per epoch, of 4 and 2 examples. Rank None: the parts of all."""
    recipe = step.recipe
    examples = toy_examples(recipe, 6)
    plan = BatchPlan([example.frames for example in examples], recipe.batch_size, seed=recipe.seed)
    reports = []
    for planned in plan.walk(first):
        if planned.step == last:
            return reports
        places = slots(len(planned.members), speeds)
        mine = [each for each in (places if rank is None else [places[rank]]) if each]
        parts = [collate([examples[planned.members[slot]] for slot in each], each) for each in mine]
        report = step.run(parts, step=planned.step, epoch=planned.epoch, counts=plan.counts(planned), exchange=exchange)
        reports.append(asdict(report))
    return reports


def networks(step: AdversarialStep) -> dict[str, nn.Module]:
    return {part: getattr(step, part) for part in PARTS}


def real_run(
    rank: int,
    labels: Sequence[str],
    speeds: Sequence[float],
    epsilon: float,
    last: int,
    load: Path | None = None,
    save: tuple[Path, int] | None = None,
) -> dict[str, Any]:
    """A run of the real step; only the first worker touches files."""
    with groups_of(labels, rank) as groups:
        recipe = slow_recipe(epsilon=epsilon)
        step = toy_step(recipe if rank == 0 else replace(recipe, seed=999))
        progress = checkpoints.restore(load, step) if load is not None and rank == 0 else Progress()
        step.recipe = recipe
        send_state(groups, networks(step), step.optimizers, step.scaler)
        start = int(groups.gather_plain(progress.step)[0])
        exchange = Exchange(groups)
        reports = []
        if save is not None:
            reports += go(step, speeds, rank, exchange, start, save[1])
            start = save[1]
            send_state(groups, networks(step), step.optimizers, step.scaler)
            if rank == 0:
                checkpoints.save(save[0], step, Progress(step=start))
        reports += go(step, speeds, rank, exchange, start, last)
        check_same(groups, named_tensors(networks(step)))
        return {"values": values(networks(step)), "reports": reports}


# --- what goes wrong -----------------------------------------------------------------------------


def overflow(rank: int, labels: Sequence[str], bad: int, precision_steps: int) -> list[tuple[bool, float, float]]:
    """One worker's gradients overflow in the second step: (finite, scale, weight) after each step."""
    with groups_of(labels, rank) as groups:
        torch.manual_seed(0)
        net = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        exchange, seen = Exchange(groups), []
        for step in range(precision_steps):
            optimizer.zero_grad()
            scaler.scale(net(torch.full((2, 3), float(rank + 1))).sum()).backward()
            if step == 1 and rank == bad:
                net.weight.grad[0, 1] = float("inf")
            finite = exchange.average("net", list(net.parameters()), 2)
            scaler.step(optimizer)
            scaler.update()
            seen.append((finite, scaler.get_scale(), float(net.weight[0, 1])))
        return seen


def lose(rank: int, labels: Sequence[str], victim: int, how: str, timeout: float) -> None:
    """Steps for ever, until the victim is killed, stopped, or fails; survivors then stay, as caught errors may."""
    with groups_of(labels, rank, timeout) as groups:
        nets, _ = plain_nets(0)
        exchange = Exchange(groups, bucket_bytes=64)
        try:
            with exchange.guard():
                for step in range(10_000):
                    for part in PARTS:
                        loss, count = plain_loss(nets, part, range(rank, rank + 1), step)
                        loss.backward()
                        if (step, part, rank) == (3, "generator", victim):
                            come_to_harm(how)
                        exchange.average(part, list(nets[part].parameters()), count)
        except WorkerLostError:
            time.sleep(1.5 * (rank == 0))  # one that lingers must not keep the others waiting
            raise


def come_to_harm(how: str) -> None:
    if how == "fails":
        raise TrainingError("example 7 is broken")
    os.kill(os.getpid(), {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}[how])


def disagree(rank: int, labels: Sequence[str], how: str) -> None:
    with groups_of(labels, rank) as groups:
        nets, optimizers = plain_nets(0)
        last = rank == groups.size - 1
        if how == "weights":
            if last:
                nets["generator"].turned.data[0, 0] += 1e-6
            check_same(groups, named_tensors(nets))
        if how == "network":
            send_state(groups, {"net": nn.Linear(3, 4 if last else 3)}, optimizers)
        for part in reversed(PARTS) if last and how == "order" else PARTS:
            weights = list(nets[part].parameters())
            Exchange(groups).average(
                part, weights[1:] if last and how == "sizes" else weights, 0.0 if how == "none" else 1
            )


def small_things(rank: int, labels: Sequence[str], measured: Sequence[float]) -> dict[str, Any]:
    with groups_of(labels, rank) as groups:
        speeds = gather_speeds(groups, measured[rank])
        summed = torch.tensor([float(rank), 1.0])
        groups.add_up(summed, torch.empty(5))  # through memory of its own, as a leader with a GPU does
        return {
            "speeds": speeds,
            "sizes": sizes(10, speeds),
            "sum": summed.tolist(),
            "spread": spread(
                groups, [torch.zeros(0), torch.tensor([[1.0, 2 + 0.25 * rank], [-3.0, -4 + 0.125 * rank]])]
            ),
        }
