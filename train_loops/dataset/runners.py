"""Where the work on takes runs: in this process, or in a pool of actors of Ray Data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from actors.threads import use_threads
from rocktop_ray.errors import SettingsError
from train_loops.cluster import plain_errors
from train_loops.dataset.features import FeatureMaker, Identity
from train_loops.dataset.workers import Answer, FeatureWorker, Job, ScanWorker, Task


class Runner(Protocol):
    """Does tasks of ``workers``, in any order; answers come as they are ready."""

    def identify(self, job: Job) -> Identity:
        """The networks that workers have. Raises ModelMissingError, SettingsError."""

    def scan(self, job: Job, tasks: list[Task]) -> Iterator[Answer]:
        """See ``ScanWorker``."""

    def features(self, job: Job, identity: Identity, tasks: list[Task]) -> Iterator[Answer]:
        """See ``FeatureWorker``."""


class LocalRunner:
    """One after the other, in this process; the networks are loaded once."""

    def identify(self, job: Job) -> Identity:
        """See ``Runner``."""
        return FeatureMaker(job.config, job.device, job.builders).identity

    def scan(self, job: Job, tasks: list[Task]) -> Iterator[Answer]:
        """See ``Runner``."""
        return map(ScanWorker(job), tasks)

    def features(self, job: Job, identity: Identity, tasks: list[Task]) -> Iterator[Answer]:
        """See ``Runner``."""
        return map(FeatureWorker(job, identity), tasks) if tasks else iter(())


@dataclass(frozen=True)
class RayRunner:
    """Ray Data over pools of actors in the Ray that this process is connected to."""

    workers: int = 1
    """Actors, each with its own networks."""
    cpus: float = 1.0
    """Cores that Ray keeps for an actor."""
    gpus: float = 0.0
    """Share of a GPU that Ray keeps for an actor that makes features: with less than 1, others decode meanwhile."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus < 0 or self.gpus < 0:
            raise SettingsError("at least one worker is needed, and shares of cores and GPUs that are not negative")

    def identify(self, job: Job) -> Identity:
        """See ``Runner``; asked of one worker, since the driver may have no models."""
        import ray

        def ask() -> Identity:
            use_threads(job.threads)
            return FeatureMaker(job.config, job.device, job.builders).identity

        task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_calls=1)(ask)
        with plain_errors():
            found: Identity = ray.get(task.remote())
        return found

    def scan(self, job: Job, tasks: list[Task]) -> Iterator[Answer]:
        """See ``Runner``."""
        return self._map("look-at-takes", _ScanActor, {"job": job}, tasks, gpus=0.0)

    def features(self, job: Job, identity: Identity, tasks: list[Task]) -> Iterator[Answer]:
        """See ``Runner``."""
        return self._map("make-slices", _FeatureActor, {"job": job, "identity": identity}, tasks, gpus=self.gpus)

    def _map(
        self, name: str, actor: type, arguments: dict[str, Any], tasks: list[Task], *, gpus: float
    ) -> Iterator[Answer]:
        if not tasks:
            return
        import ray.data

        rows = [{"task": json.dumps(task)} for task in tasks]
        # A block holds few tasks, so that no actor is left with a heap of them when the others have ended.
        blocks = min(len(rows), max(1000, 8 * self.workers))
        pool = ray.data.ActorPoolStrategy(size=min(self.workers, blocks), max_tasks_in_flight_per_actor=2)
        options: dict[str, Any] = {"num_gpus": gpus} if gpus else {}
        results = ray.data.from_items(rows, override_num_blocks=blocks).map(
            actor, fn_constructor_kwargs=arguments, compute=pool, num_cpus=self.cpus, **options
        )
        results.set_name(name)  # in the log and the dashboard
        with plain_errors():
            for row in results.iter_rows():
                yield json.loads(row["result"])


class _ScanActor:
    def __init__(self, job: Job) -> None:
        use_threads(job.threads)
        self._worker = ScanWorker(job)

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        return {"result": json.dumps(self._worker(json.loads(row["task"])))}


class _FeatureActor:
    def __init__(self, job: Job, identity: Identity) -> None:
        use_threads(job.threads)
        self._worker = FeatureWorker(job, identity)

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        return {"result": json.dumps(self._worker(json.loads(row["task"])))}
