"""What Ray's errors mean: an error of ours that passed through it, a replica that was lost, or a place that is full."""

from __future__ import annotations

import random

import grpc
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    RpcError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from rocktop_ray.errors import BusyError, RocktopError, StageLostError

_LOST = (
    RayActorError,
    ReplicaUnavailableError,
    WorkerCrashedError,
    NodeDiedError,
    ObjectLostError,
    RpcError,
    TaskCancelledError,
)
_BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
"""How gRPC says that a call broke with its replica. Of handles that send by gRPC, Serve makes only some an error of
Ray's.
"""
_RETRY_AFTER = 2.0
_LONGEST_PAUSE = 2.0


def is_lost(error: BaseException) -> bool:
    """Whether the replica that worked went away, so that the same call on another one can succeed.

    A call that nobody cancelled and that was cancelled all the same belonged to a replica that was shutting down.
    """
    if isinstance(error, RayTaskError):
        return not isinstance(error.cause, RocktopError) and isinstance(error.cause, _LOST)
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code() in _BROKEN
    return isinstance(error, _LOST)


def as_rocktop(error: Exception, who: str) -> RocktopError:
    """The error to raise for one that is not ``is_lost``; ``who`` could not do it."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, RocktopError):
        return error.cause
    if isinstance(error, RocktopError):
        return error
    if isinstance(error, BackPressureError):
        after = error.retry_after_s or _RETRY_AFTER
        return BusyError("as many requests wait as may: try again in a while", retry_after=after)
    if isinstance(error, grpc.aio.AioRpcError) and error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return RocktopError(f"{who} was sent, or sent, more than goes into one message of Serve's")
    if isinstance(error, DeploymentUnavailableError):
        return StageLostError(f"{who} could not be started: see 'serve status' and the logs of its replicas")
    return RocktopError(f"{who} failed unexpectedly; the server's log says why")


CAUGHT = (
    RayError,
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RocktopError,
    grpc.aio.AioRpcError,
)
"""What a call over a handle raises."""


class Losses:
    """Counts what was lost for one call, and says how long to wait before the next try."""

    def __init__(self, who: str, most: int) -> None:
        """``most``: a call that lost so many replicas is taken for the one that kills them."""
        self.who, self.most, self.count = who, most, 0

    def pause(self, error: BaseException) -> float:
        """Seconds to wait after another loss. Raises StageLostError after too many."""
        self.count += 1
        if self.count >= self.most:
            raise StageLostError(
                f"{self.who} died {self.count} times over this request and it is not tried again",
                retryable=False,
            ) from error
        return min(_LONGEST_PAUSE, 0.1 * 2**self.count) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
