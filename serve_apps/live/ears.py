"""Deployment ``LiveEars``: what a stream hears, where ``placement`` is ``split``; and the way there from ``Live``."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from ray import serve

from actors.threads import use_threads, use_threads_here
from rocktop_ray.errors import RocktopError, StageLostError
from serve_apps.config import ServeConfig
from serve_apps.jobs.remote import Refused
from serve_apps.live.door import Address, Door
from serve_apps.live.doorstep import LEAVE_SECONDS, answered, open_door
from serve_apps.live.frames import lost
from serve_apps.losses import CAUGHT, as_rocktop, is_lost
from serve_apps.observe.logs import configure_logging
from serve_apps.observe.metrics import Metrics

if TYPE_CHECKING:
    from actors.ears import EarsActor
    from serve_apps.live.ears_lines import Call, EarsLines

EARS_METHODS = frozenset({"open", "hear"})
_WHO = "the process that hears for this stream"
_ASK_SECONDS = 5.0


class EarsReplica:
    """An ``EarsActor`` with a side door. Light to start: ears are loaded when a voice is opened in ``Live``."""

    def __init__(self, config: ServeConfig) -> None:
        configure_logging()
        ears = config.live.ears
        use_threads(ears.threads)
        # One thread computes, others load: a voice that is opened holds up no stream.
        self._computing = ThreadPoolExecutor(1, "ears", partial(use_threads_here, ears.threads))
        self._loading = ThreadPoolExecutor(1, "ears-files")
        self._actor: EarsActor | None = None
        self._metrics = Metrics()
        self._door = Door(serve.get_replica_context().replica_id.unique_id, self._answer)
        self._opening = asyncio.get_running_loop().create_task(open_door(self._door))

    async def where(self) -> Address | None:
        """The side door; None if there is none."""
        return await asyncio.shield(self._opening)

    async def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """What a method of the ears returns, or its error as ``Refused``."""
        try:
            return await self._answer((method, args))
        except RocktopError as error:
            return Refused(error)

    async def check_health(self) -> None:
        """Answers while the event loop runs; Serve replaces a replica that does not."""

    async def __del__(self) -> None:
        """Serve awaits it when the replica is to stop."""
        await self._door.leave(LEAVE_SECONDS)
        self._computing.shutdown(wait=False, cancel_futures=True)
        self._loading.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, call: tuple[str, tuple[Any, ...]]) -> Any:
        method, (what,) = call
        if method not in EARS_METHODS:
            raise ValueError(f"ears have no method {method!r}")
        return await answered(self._open(what) if method == "open" else self._hear(what))

    async def _open(self, plan: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._loading, lambda: self._loaded().open(plan))

    async def _hear(self, call: Any) -> Any:
        actor = self._actor
        if actor is None or not actor.ready(call.plan):
            await self._open(call.plan)
        return await asyncio.get_running_loop().run_in_executor(self._computing, self._heard, call)

    def _heard(self, call: Any) -> Any:
        began = time.perf_counter()
        heard = self._loaded().hear(call)
        self._metrics.live_heard(time.perf_counter() - began)
        return heard

    def _loaded(self) -> EarsActor:
        if self._actor is None:
            from actors.content import ContentActor
            from actors.ears import EarsActor
            from actors.pitch import PitchActor

            self._actor = EarsActor(ContentActor("cpu"), PitchActor("cpu"))
        return self._actor


def lines_to(handle: Any) -> EarsLines:
    """The lines from a replica of ``Live`` to all of ``LiveEars``. handle: of that deployment."""
    from serve_apps.live.ears_lines import EarsLines

    rank = serve.get_replica_context().rank
    place = 0 if rank is None else rank.rank
    return EarsLines(partial(_look, handle), partial(_over_serve, handle), Metrics().live_ears, place=place)


def _look(handle: Any) -> list[Address] | None:
    """The side doors that there are; None: there are replicas, and they have none. Raises StageLostError."""
    try:
        found = handle.broadcast("where").results(timeout_s=_ASK_SECONDS, return_exceptions=True)
    except (*CAUGHT, TimeoutError) as error:
        raise lost(_WHO) from error
    addresses = [address for address in found if isinstance(address, Address)]
    if not addresses and any(address is None for address in found):
        return None
    return addresses


def _over_serve(handle: Any, call: Call, seconds: float) -> Any:
    """Where there is no side door: asked once more if a replica is lost."""
    method, args = call
    asked = handle.options(method_name="call", _by_reference=False)
    for left in (1, 0):
        try:
            return asked.remote(method, args).result(timeout_s=seconds)
        except TimeoutError as error:
            raise StageLostError(f"{_WHO} does not answer") from error
        except CAUGHT as error:
            if not is_lost(error):
                raise as_rocktop(error, _WHO) from error
            if not left:
                raise lost(_WHO) from error
