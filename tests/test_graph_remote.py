"""Orders and stage calls that are sent to replicas: made again, given up, cancelled; what errors of Ray mean."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import aclosing
from typing import Any

import grpc
import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError

from rocktop_ray.audio.formats import check_output
from rocktop_ray.errors import (
    AudioError,
    BusyError,
    CancelledError,
    RocktopError,
    StageLostError,
)
from serve_apps import dispatch, remote
from serve_apps.dispatch import ServeConversions
from serve_apps.losses import CAUGHT, as_rocktop, is_lost
from serve_apps.orders import Advanced, AudioBytes, Event, Finished, Order, Report, Started, VoiceRef
from serve_apps.remote import RemoteStages
from serve_apps.requests import FieldsError


class Remote:
    """A handle whose replicas play one script each: events, and an error at their end."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts, self.calls, self.cancelled = list(scripts), 0, 0
        self.options_given: list[dict[str, Any]] = []

    def options(self, **options: Any) -> Remote:
        self.options_given.append(options)
        return self

    def remote(self, *args: Any) -> Any:
        self.calls += 1
        return _Answer(self, self.scripts.pop(0))


class _Answer:
    def __init__(self, owner: Remote, script: list[Any]) -> None:
        self.owner, self.script = owner, script

    def __aiter__(self) -> _Answer:
        return self

    async def __anext__(self) -> Any:
        if not self.script:
            raise StopAsyncIteration
        event = self.script.pop(0)
        if isinstance(event, BaseException):
            raise event
        return event

    def result(self) -> Any:
        (outcome,) = self.script
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def cancel(self) -> None:
        self.owner.cancelled += 1


def finished() -> Finished:
    none = np.zeros(0, np.float32)
    return Finished(Report(1.0, 6, "audio/wav", {}, none, none))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_apps.losses._LONGEST_PAUSE", 0.001)


REF = VoiceRef("x@1", "x")
ANY = Order("test", REF, "takes/x", check_output("wav", 48_000))


@pytest.mark.usefixtures("hasty")
def test_an_order_begun_again_looks_like_one() -> None:
    begun = [Started(1.0), Advanced(0.0, "pitch"), AudioBytes(b"ab"), Advanced(0.5, "vocoder"), AudioBytes(b"cd")]
    again = [Started(1.0), Advanced(0.0, "pitch"), AudioBytes(b"abc"), AudioBytes(b"de"), Advanced(0.5, "x")]
    handle = Remote(
        [*begun, ActorDiedError()], [Started(1.0), TaskCancelledError()], [*again, AudioBytes(b"f"), finished()]
    )

    async def listen() -> list[Event]:
        return [event async for event in ServeConversions(handle, by_voice=True).run(ANY)]

    told = asyncio.run(listen())
    assert b"".join(event.data for event in told if isinstance(event, AudioBytes)) == b"abcdef"
    assert [event.seconds_done for event in told if isinstance(event, Advanced)] == [0.0, 0.5, 0.5]
    assert sum(isinstance(event, Started) for event in told) == 1 and isinstance(told[-1], Finished)
    assert handle.calls == 3 and {"multiplexed_model_id": REF.id} in handle.options_given


@pytest.mark.usefixtures("hasty")
def test_an_order_that_kills_its_replicas_is_given_up() -> None:
    handle = Remote(*([Started(1.0), ActorDiedError()] for _ in range(20)))

    async def listen() -> None:
        async for _ in ServeConversions(handle).run(ANY):
            pass

    with pytest.raises(StageLostError, match="died 5 times") as error:
        asyncio.run(listen())
    assert handle.calls == dispatch.MOST_LOSSES and not error.value.retryable


def test_leaving_cancels_the_replica() -> None:
    handle = Remote([Started(1.0), Advanced(0.5, "x"), finished()], [Started(1.0), finished()])

    async def leave(after: type) -> None:
        async with aclosing(ServeConversions(handle).run(ANY)) as events:
            async for event in events:
                if isinstance(event, after):
                    break

    asyncio.run(leave(Advanced))
    assert handle.cancelled == 1
    asyncio.run(leave(Finished))
    assert handle.cancelled == 1  # there is nothing left to stop


@pytest.mark.usefixtures("hasty")
def test_a_stage_call_is_made_again_and_keeps_its_error() -> None:
    handle = Remote([ActorDiedError()], ["units"])
    assert RemoteStages({"content": handle}).call("content", "encode", "x", None) == "units"
    refused = RayTaskError("f", "trace", AudioError("too short", stage="content"))
    with pytest.raises(AudioError, match="too short"):
        RemoteStages({"content": Remote([refused.as_instanceof_cause()])}).call("content", "encode")
    with pytest.raises(StageLostError, match="the vocoder died"):
        RemoteStages({"vocoder": Remote(*([ActorDiedError()] for _ in range(remote.MOST_LOSSES)))}).call("vocoder", "x")


def test_what_errors_of_ray_mean() -> None:
    busy = as_rocktop(BackPressureError(3, 2), "it")
    assert isinstance(busy, BusyError) and busy.retry_after == 2.0 and busy.as_dict()["code"] == "busy"
    assert is_lost(ActorDiedError()) and is_lost(RayTaskError("f", "t", ActorDiedError()))
    own_error = RayTaskError("f", "trace", CancelledError("stop"))
    assert not is_lost(own_error) and as_rocktop(own_error, "it") is own_error.cause
    broken, large = (
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "details")
        for code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    )
    assert isinstance(large, CAUGHT) and is_lost(broken) and not is_lost(large)
    assert "the desk" in as_rocktop(large, "the desk").message and "details" not in as_rocktop(large, "it").message
    odd = as_rocktop(RayTaskError("f", "trace", ValueError("secret")), "the vocoder")
    assert type(odd) is RocktopError and "secret" not in odd.message and odd.http_status == 500


def test_errors_travel_between_processes_whole() -> None:
    fields = pickle.loads(pickle.dumps(FieldsError([{"field": "key", "message": "too high"}])))
    assert type(fields) is FieldsError and fields.problems[0]["field"] == "key" and str(fields) == "key: too high"
    busy = pickle.loads(pickle.dumps(BusyError("full", retry_after=7)))
    assert busy.retry_after == 7 and busy.args == ("full",) and busy.message == "full"
    staged = pickle.loads(pickle.dumps(AudioError("bad", stage="pitch", retryable=True)))
    assert staged.stage == "pitch" and staged.retryable
    through = RayTaskError("f", "trace", fields).as_instanceof_cause()
    assert as_rocktop(through, "it") is fields
