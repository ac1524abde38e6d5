"""A run under Ray Train: who works, where, what is tried again, and what ends it at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train.torch import TorchConfig
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from rocktop_ray.config.training import WorkersConfig
from rocktop_ray.errors import CancelledError, RocktopError, TrainingError, WorkerLostError
from train_loops.cluster import plain_error
from train_loops.rvc.callbacks import Outcome
from train_loops.rvc.kept import FOLDER
from train_loops.rvc.record import outcome_from
from train_loops.rvc.worker import Work, train

_SHARED = "CUDA_VISIBLE_DEVICES"
_AMD = "HIP_VISIBLE_DEVICES"
STARTS = 30
"""Times that workers are started in vain: each waits ``RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S`` (60) for free nodes."""


def fit(work: Work, *, own: bool = False) -> Outcome:
    """Train on the Ray that this process is connected to, ``own`` if it ends with it.

    Raises the worker's own error, CancelledError at Ctrl-C, or WorkerLostError.
    """
    config = work.config
    workers = config.workers
    trainer = (_OwnTrainer if own else TorchTrainer)(
        lambda: train(work),
        torch_config=GlooConfig(backend="gloo", timeout_s=max(1, round(workers.timeout))),
        scaling_config=scaling(workers),
        run_config=RunConfig(
            name=FOLDER,
            storage_path="",
            storage_filesystem=work.run.arrow(),
            failure_config=FailureConfig(max_failures=workers.failures, controller_failure_limit=STARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=config.checkpoints.keep),
            callbacks=[OnlyRetryable()],
            logging_config=LoggingConfig("CRITICAL"),  # errors are told once, by this process or the worker
        ),
    )
    try:
        result: Any = trainer.fit()
    except (TrainingFailedError, RayError) as error:
        raise told(error) from error
    except SystemExit as error:  # what Ray Train makes of Ctrl-C, after it has ended the workers
        raise CancelledError("stopped; the same command goes on from the last checkpoint", stage="training") from error
    return outcome_from(result.return_value)


def scaling(workers: WorkersConfig) -> ScalingConfig:
    """Who works, in Ray Train's words."""
    return _AnyLabel(
        num_workers=(workers.least, workers.count) if 0 < workers.least < workers.count else workers.count,
        use_gpu=workers.gpu,
        resources_per_worker={"CPU": workers.threads, **({"GPU": 1} if workers.gpu else {})},
        label_selector=[dict([label.split("=", 1)]) for label in workers.labels] or None,
    )


def any_of(selectors: list[dict[str, str]]) -> dict[str, str] | None:
    """One selector for nodes with any of these labels, if they have the same key."""
    keys = {key for selector in selectors for key in selector}
    if len(keys) != 1:
        return None
    (key,) = keys
    return {key: f"in({','.join(sorted({selector[key] for selector in selectors}))})"}


def shortage(workers: WorkersConfig) -> str:
    """What the fewest workers of a run want and Ray has not now; empty if it has all."""
    there, count = ray.cluster_resources(), workers.least or workers.count
    for name, each in (("CPU", workers.threads), ("GPU", int(workers.gpu))):
        if there.get(name, 0) < each * count:
            return f"{count} workers want {each * count} {name}s and {there.get(name, 0):g} are there"
    found = [f"{key}={value}" for node in ray.nodes() if node["Alive"] for key, value in node["Labels"].items()]
    lacking = sorted(set(workers.labels) - set(found))
    if len(set(workers.labels) & set(found)) < min(count, len(set(workers.labels))):
        return f"no node has the label {' or '.join(lacking)}"
    return ""


class _OwnTrainer(TorchTrainer):
    """Without the helper that frees the machines of a driver that was killed: a Ray of one's own is killed with it.

    The helper asks Ray's dashboard, which such a Ray has not, and fills the log with that.
    """

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()
        return [each for each in made if type(each).__name__ != "PlacementGroupCleanerCallback"]


class _AnyLabel(ScalingConfig):
    """With fewer workers than labels, Ray Train would take the first labels, whoever is left."""

    def _label_selector_per_worker(self, num_workers: int) -> list[dict[str, str]] | None:
        exact: list[dict[str, str]] | None = super()._label_selector_per_worker(num_workers)
        either = any_of(self.label_selector) if isinstance(self.label_selector, list) else None
        return exact if either is None or num_workers == self.max_workers else [dict(either)] * num_workers


class OnlyRetryable(UserCallback):
    """Ends a run at errors that another attempt would only meet again; the others are left to Ray Train."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """What it raises, Ray Train does not try again."""
        for rank, error in sorted(worker_exceptions.items()):
            final = final_error(rank, error)
            if final is not None:
                raise final


def final_error(rank: int, error: Exception) -> RocktopError | None:
    """The error of a worker as one to end with; None if a retry may help."""
    if isinstance(error, RocktopError):
        return None if error.retryable else error
    if type(error).__module__.startswith("ray."):  # lost, or could not be asked
        return None
    text = (str(error).strip() or "no message").splitlines()[0][:300]
    if type(error).__name__ == "OutOfMemoryError":
        return TrainingError(
            f"worker {rank} ran out of memory: lower recipe.batch_size, raise recipe.accumulation, or set "
            f"recipe.precision=bf16 ({text})"
        )
    return TrainingError(f"worker {rank} failed: {type(error).__name__}: {text}")


def told(error: Exception) -> RocktopError:
    """Why Ray Train gave up, in plain words."""
    cause = plain_error(error)
    if cause is not None:
        return cause
    again = "the same command goes on from the last checkpoint"
    if isinstance(error, WorkerGroupError):
        ranks = ", ".join(map(str, sorted(error.worker_failures)))
        return WorkerLostError(f"worker {ranks} was lost more often than workers.failures allows; {again}")
    inner = error.controller_failure if isinstance(error, ControllerError) else error
    text = (str(inner).strip() or "no message").splitlines()[0][:300]
    return WorkerLostError(f"Ray Train ended the run ({type(inner).__name__}: {text}); {again}")


class GlooConfig(TorchConfig):
    """Ray's process group over gloo; the exchange makes its own of each vendor."""

    @property
    def backend_cls(self) -> type:
        """See ``TorchConfig``."""
        return _AllDevices


class _AllDevices(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray Train lets all workers of a node see the GPUs of all, in NVIDIA's variable only; here in AMD's too."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Before any worker asks for its device."""
        worker_group.execute(share_devices)
        super().on_start(worker_group, backend_config)


def share_devices() -> None:
    """On an AMD node Ray sets the variable of HIP to a worker's own GPU, and Ray Train that of CUDA to those of all.

    HIP obeys its own, while ``ray.train.torch.get_device`` counts in the other: the device that it names is not there.
    """
    if os.environ.get(_AMD) and os.environ.get(_SHARED):
        os.environ[_AMD] = os.environ[_SHARED]
