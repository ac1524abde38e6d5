"""The same state on every worker: sent by the first, checked by all.

Between vendors the same sums make almost, not exactly, the same weights: their libraries round in other ways. The
difference is as small as rounding, but it grows. Sending the first worker's state at every checkpoint removes it, and
makes the resumed run the uninterrupted one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rocktop_ray.errors import TrainingError
from train_loops.exchange.groups import Groups, lost

_CHUNK = 64 << 20
"""Bytes in host memory at a time."""


def named_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All parameters and buffers, in a fixed order."""
    found: dict[str, Tensor] = {}
    for key, module in modules.items():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            found[f"{key}.{name}"] = tensor.detach()
    return found


def send_state(
    groups: Groups,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[Any, torch.optim.Optimizer] | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Give every worker the first worker's parameters, buffers, optimizer states and scale of fp16, bit for bit.

    All must call it: at the start, after the first worker has loaded a checkpoint (the others need no file), and, with
    several vendors, whenever a checkpoint is written.

    Raises TrainingError if the workers have other networks or optimizers; WorkerLostError if one is gone.
    """
    tensors = named_tensors(modules)
    described = [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()]
    chosen = dict(optimizers or {})
    kinds = [(key, type(value).__name__, len(_members(value))) for key, value in chosen.items()]
    _compare(groups, "network", _digest(described))
    _compare(groups, "set of optimizers", _digest(kinds))
    with lost(groups, "sending the state of the run"):
        _send(groups, tensors.values())
        plans = _send_plain(groups, {key: _optimizer_plan(value) for key, value in chosen.items()})
        for key, optimizer in chosen.items():
            if groups.rank != 0:
                _prepare(optimizer, plans[key])
            states = optimizer.state_dict()["state"]
            _send(groups, (states[i][kind] for i, entries in plans[key]["state"] for kind, *_ in entries["tensors"]))
        scale = _send_plain(groups, scaler.state_dict() if scaler is not None else {})
        if scaler is not None and scale and groups.rank != 0:
            scaler.load_state_dict(scale)


def check_same(groups: Groups, tensors: Mapping[str, Tensor], what: str = "weights") -> str:
    """SHA-256 over names, types, shapes and bits, the same on all workers. Raises TrainingError with those who differ.

    After ``send_state`` it must pass; between vendors it need not a step later (see ``spread``).
    """
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(_raw(tensor.detach().cpu().contiguous()).numpy().tobytes())
    _compare(groups, what, digest.hexdigest())
    return digest.hexdigest()


def spread(groups: Groups, tensors: Iterable[Tensor]) -> float:
    """The largest difference of any value between any two workers: 0 with one vendor, rounding between several.

    All must call it; it moves all weights through host memory twice, so do it at checkpoints. Raises WorkerLostError.
    """
    widest = torch.zeros(1)
    with lost(groups, "comparing weights"):
        for tensor in tensors:
            if not tensor.numel():
                continue
            both = torch.stack([tensor.detach().float().cpu().flatten(), -tensor.detach().float().cpu().flatten()])
            dist.all_reduce(both, op=dist.ReduceOp.MAX, group=groups.control)
            widest = torch.maximum(widest, both.sum(0).max())
    return float(widest)


def _send(groups: Groups, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        whole = tensor.detach().cpu().contiguous()
        for chunk in _raw(whole).split(_CHUNK):
            dist.broadcast(chunk, 0, group=groups.control)
        if groups.rank != 0 and whole.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(whole)


def _raw(tensor: Tensor) -> Tensor:
    """A contiguous CPU tensor's memory as bytes."""
    return tensor.reshape(-1).view(torch.uint8)


def _send_plain(groups: Groups, value: Any) -> Any:
    box = [value]
    dist.broadcast_object_list(box, 0, group=groups.control)
    return box[0]


def _members(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _optimizer_plan(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimizer's state is made of, without the tensors' values."""
    plain = optimizer.state_dict()
    state = []
    for index, values in plain["state"].items():
        tensors = [
            (kind, value.dtype, tuple(value.shape)) for kind, value in values.items() if isinstance(value, Tensor)
        ]
        others = {kind: value for kind, value in values.items() if not isinstance(value, Tensor)}
        state.append((index, {"tensors": tensors, "others": others}))
    return {"state": state, "param_groups": plain["param_groups"]}


def _prepare(optimizer: torch.optim.Optimizer, plan: dict[str, Any]) -> None:
    """Give an optimizer the settings of the plan, and states of its shapes to receive values into."""
    state = {
        index: {
            **entries["others"],
            **{kind: torch.zeros(shape, dtype=dtype) for kind, dtype, shape in entries["tensors"]},
        }
        for index, entries in plan["state"]
    }
    optimizer.load_state_dict({"state": state, "param_groups": plan["param_groups"]})


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _compare(groups: Groups, what: str, digest: str) -> None:
    with lost(groups, f"comparing the {what}"):
        found = groups.gather_plain(digest)
    other = [str(groups.layout.workers[rank]) for rank, each in enumerate(found) if each != found[0]]
    if other:
        raise TrainingError(
            f"{', '.join(other)} and worker 0 do not hold the same {what}: start all with the same recipe, data and "
            "version of this program, and send_state before the first step"
        )
