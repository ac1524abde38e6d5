"""Who works with whom: one group of workers per vendor, and the group of their leaders.

NCCL and RCCL do not understand each other. So the workers of a vendor use their own library between themselves (its
name is "nccl" on both), and the first worker of each vendor meets the other leaders over gloo, through host memory,
which does not care for vendors. Workers without such a library use gloo among themselves too. A run with one vendor is
the same with one group and no leaders. A third group, gloo over all, carries what is small: agreements and state.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from rocktop_ray.errors import TrainingError, WorkerLostError

TIMEOUT = 300.0
"""Seconds that workers wait for one that is silent. It must be longer than the slowest worker's step and checkpoint. A
process that ends is noticed at once, whatever this is."""


@dataclass(frozen=True)
class Worker:
    """What a worker tells the others about itself."""

    rank: int
    vendor: str
    """``nvidia``, ``amd``, or the device's type: ``cpu``..."""
    host: str
    device: str
    """As torch names it there, e.g. ``cuda:0``."""
    backend: str = "gloo"
    """Of its vendor's group: ``nccl`` (RCCL on ROCm) or ``gloo``."""
    uuid: str = ""
    """Of its GPU, where the driver tells."""

    def __str__(self) -> str:
        return f"worker {self.rank} ({self.vendor} {self.device} on {self.host})"


@dataclass(frozen=True)
class Layout:
    """The groups of a run, the same on every worker. Made by ``arrange``."""

    workers: tuple[Worker, ...]
    """By rank."""
    vendors: Mapping[str, tuple[int, ...]]
    """Ranks of each vendor, ascending; the vendors by their first ranks."""

    @property
    def leaders(self) -> tuple[int, ...]:
        """The first rank of each vendor; rank 0 is always one."""
        return tuple(ranks[0] for ranks in self.vendors.values())

    def leader_of(self, rank: int) -> int:
        """The leader of a rank's vendor."""
        return self.vendors[self.workers[rank].vendor][0]


def describe(rank: int, device: torch.device | str, *, vendor: str | None = None) -> Worker:
    """The facts of this process. ``vendor``: a label in place of what torch says, e.g. to try groups out on CPUs."""
    device = torch.device(device)
    found, backend, uuid = device.type, "gloo", ""
    if device.type == "cuda":
        found = "amd" if torch.version.hip else "nvidia"
        backend = "nccl" if dist.is_nccl_available() else "gloo"
        uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    return Worker(rank, vendor or found, socket.gethostname(), str(device), backend, uuid)


def arrange(workers: Sequence[Worker]) -> Layout:
    """Groups for these workers. A function of the facts alone, so all workers come to the same result.

    Raises TrainingError if ranks are missing, two workers of a group share a GPU, or a vendor's workers lack one
    backend.
    """
    ordered = tuple(sorted(workers, key=lambda worker: worker.rank))
    if not ordered or [worker.rank for worker in ordered] != list(range(len(ordered))):
        raise TrainingError(f"the ranks of the workers must be 0 to n - 1, not {[w.rank for w in ordered]}")
    vendors: dict[str, list[int]] = {}
    for worker in ordered:
        vendors.setdefault(worker.vendor, []).append(worker.rank)
    for vendor, ranks in vendors.items():
        if len({ordered[rank].backend for rank in ranks}) > 1:
            some = next(ordered[rank] for rank in ranks if ordered[rank].backend == "gloo")
            raise TrainingError(f"{some} has a torch without NCCL, other {vendor} workers have one: use one image")
        owners: dict[tuple[str, str], Worker] = {}
        for rank in ranks:
            worker = ordered[rank]
            if worker.backend == "nccl" and worker.uuid:
                first = owners.setdefault((worker.host, worker.uuid), worker)
                if first is not worker:
                    raise TrainingError(f"{first} and {worker} were given the same GPU: give each worker a whole one")
    return Layout(ordered, {vendor: tuple(ranks) for vendor, ranks in vendors.items()})


class Groups:
    """The groups that this process belongs to. Made by ``join``; ``close`` them at the end."""

    def __init__(self, layout: Layout, rank: int, device: torch.device, timeout: float) -> None:
        self.layout, self.rank, self.device = layout, rank, device
        wait = timedelta(seconds=timeout)
        everyone = [worker.rank for worker in layout.workers]
        # Every process makes every group, also those of others, in this order: torch wants it so.
        with lost(self, "making the groups"):
            self.control = dist.new_group(everyone, timeout=wait, backend="gloo")
            self.vendor: dist.ProcessGroup | None = None
            for ranks in layout.vendors.values():
                if len(ranks) > 1:
                    backend = layout.workers[ranks[0]].backend
                    group = dist.new_group(list(ranks), timeout=wait, backend=backend)
                    self.vendor = group if rank in ranks else self.vendor
            self.leaders: dist.ProcessGroup | None = None
            if len(layout.vendors) > 1:
                group = dist.new_group(list(layout.leaders), timeout=wait, backend="gloo")
                self.leaders = group if rank in layout.leaders else None
        self._open = [group for group in (self.leaders, self.vendor, self.control) if group is not None]
        self.leader = layout.leader_of(rank)
        self.staging = device if layout.workers[rank].backend == "nccl" else torch.device("cpu")
        """Where buffers for ``add_up`` lie."""

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self.layout.workers)

    @property
    def worker(self) -> Worker:
        """This one."""
        return self.layout.workers[self.rank]

    def host_buffer(self, count: int) -> Tensor | None:
        """Page-locked memory for ``add_up`` of ``count`` float32 values, for a leader that needs it."""
        if self.leaders is None or self.staging.type == "cpu":
            return None
        return torch.empty(count, pin_memory=True)

    def add_up(self, buffer: Tensor, host: Tensor | None = None) -> None:
        """Replace ``buffer`` (on ``staging``) by its sum over all workers: the same bits on every one of them."""
        if len(self.layout.vendors) == 1:
            if self.vendor is not None:
                dist.all_reduce(buffer, group=self.vendor)
            return
        if self.vendor is not None:
            dist.reduce(buffer, self.leader, group=self.vendor)
        if self.leaders is not None:
            if host is None:
                dist.all_reduce(buffer, group=self.leaders)
            else:
                part = host[: buffer.numel()]
                part.copy_(buffer)  # waits for the device
                dist.all_reduce(part, group=self.leaders)
                buffer.copy_(part)
        if self.vendor is not None:
            dist.broadcast(buffer, self.leader, group=self.vendor)

    def gather(self, values: Tensor) -> list[Tensor]:
        """The ``values`` (a CPU tensor of one shape everywhere) of every worker, by rank."""
        found = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(found, values, group=self.control)
        return found

    def gather_plain(self, value: object) -> list[object]:
        """Plain data of every worker, by rank; of any size."""
        found: list[object] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def close(self) -> None:
        """Leave the groups; others that wait for this worker then know at once that it is gone. Twice does no harm."""
        groups, self._open = self._open, []
        for group in groups:
            dist.destroy_process_group(group)


def join(device: torch.device | str = "cpu", *, vendor: str | None = None, timeout: float = TIMEOUT) -> Groups:
    """Tell the others what this worker is, and make the groups with them. All must call it, before anything else here.

    Needs ``torch.distributed`` to be initialised with a backend that takes CPU tensors: gloo, or gloo with another.

    Raises WorkerLostError if others do not come, TrainingError as ``arrange``.
    """
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    mine = describe(dist.get_rank(), device, vendor=vendor)
    found: list[Worker | None] = [None] * dist.get_world_size()
    with lost(None, "meeting for the first time"):
        first = dist.new_group(timeout=timedelta(seconds=timeout), backend="gloo")
        dist.all_gather_object(found, mine, group=first)
        dist.destroy_process_group(first)
    layout = arrange([worker for worker in found if worker is not None])
    return Groups(layout, mine.rank, device, timeout)


@contextmanager
def lost(groups: Groups | None, doing: str) -> Iterator[None]:
    """Errors of torch.distributed as a WorkerLostError that says what was being done."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0].rpartition("] ")[2] if "gloo" in str(error) else str(error)
        me = f"{groups.worker}: " if groups is not None else ""
        raise WorkerLostError(
            f"{me}another worker ended or fell silent while {doing} ({reason.partition('. ')[0][:200]}); "
            "go on from the last checkpoint with the workers that are left"
        ) from error
