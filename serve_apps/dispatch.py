"""Orders sent to the replicas that carry them out; a replica that dies on the way costs time, not the order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ray import serve

from serve_apps.config import ServeConfig
from serve_apps.losses import CAUGHT, Losses, as_rocktop, is_lost
from serve_apps.observe.meter import Meter, NoMeter
from serve_apps.orders import Advanced, AudioBytes, Event, Finished, Order, Started

MOST_LOSSES = 5
"""Replicas that one order may lose. Each of them may have died of something else."""

_NOT_NEEDED = frozenset({"Gateway", "Jobs", "Live", "LiveDesk"})


class ServeConversions:
    """Carries out orders over a handle of the Converter deployment: see ``orders.Conversions``.

    Orders can be repeated and give the same bytes, so an order whose replica died is begun again elsewhere. Whoever
    listens does not notice: bytes that were passed on are skipped, and progress does not go backwards.
    """

    def __init__(self, handle: Any, *, by_voice: bool = False, meter: Meter | None = None) -> None:
        """by_voice: prefer the replicas that hold the order's voice; of no use where there is only one."""
        self._handle = handle.options(method_name="run", stream=True)
        self._by_voice = by_voice
        self._meter = meter or NoMeter()

    @classmethod
    def over(cls, handle: Any, config: ServeConfig, meter: Meter | None = None) -> ServeConversions:
        """As the configuration wants it: in split placement it is the stages that hold voices."""
        by_voice = config.placement == "fused" and config.converter.most_replicas > 1
        return cls(handle, by_voice=by_voice, meter=meter)

    async def run(self, order: Order) -> AsyncGenerator[Event, None]:
        """See ``orders.Conversions``. Raises BusyError, StageLostError and what the work itself raises."""
        losses = Losses("the process that converts", MOST_LOSSES)
        told = _Told()
        while True:
            handle = self._handle.options(multiplexed_model_id=order.voice.id) if self._by_voice else self._handle
            running = None
            told.begin_again()
            try:
                events = running = handle.remote(order)
                async for event in events:
                    if isinstance(event, Finished):
                        running = None
                    fresh = told.fresh(event)
                    if fresh is not None:
                        yield fresh
                running = None
                return
            except CAUGHT as error:
                running = None
                if not is_lost(error):
                    raise as_rocktop(error, "the process that converts") from error
                pause = losses.pause(error)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                running = None  # not the listener but the replica was stopped
                pause = losses.pause(error)
            finally:
                if running is not None:  # whoever listened has left
                    running.cancel()
            self._meter.retried("order")
            await asyncio.sleep(pause)

    async def ready(self) -> bool:
        """Whether every deployment that an order needs has a replica that runs. Raises nothing."""
        return await asyncio.to_thread(self._running)

    def _running(self) -> bool:
        application = serve.status().applications.get(self._handle.deployment_id.app_name)
        if application is None:
            return False
        needed = [found for name, found in application.deployments.items() if name not in _NOT_NEEDED]
        return all(any(state == "RUNNING" for state in found.replica_states) for found in needed)


class _Told:
    """What the listener knows already, over all tries of an order."""

    def __init__(self) -> None:
        self._started = False
        self._seconds = -1.0
        self._bytes = 0
        self._skip = 0

    def begin_again(self) -> None:
        """The order starts from its beginning."""
        self._skip = self._bytes

    def fresh(self, event: Event) -> Event | None:
        """The part of the event that is news, if any."""
        if isinstance(event, Started):
            news, self._started = not self._started, True
            return event if news else None
        if isinstance(event, Advanced):
            if event.seconds_done < self._seconds:
                return None
            self._seconds = event.seconds_done
        if isinstance(event, AudioBytes):
            known = min(self._skip, len(event.data))
            self._skip -= known
            self._bytes += len(event.data) - known
            return AudioBytes(event.data[known:]) if known < len(event.data) else None
        return event
