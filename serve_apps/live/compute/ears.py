"""Deployment ``LiveEars``: what a stream hears, where ``placement`` is ``split``; and the way there from ``Live``."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from ray import serve

from actors.threads import use_threads
from rocktop_ray.errors import StageLostError
from serve_apps.config import ServeConfig
from serve_apps.live.compute.quiet import load_for_good, quietly
from serve_apps.live.transport.door import Address
from serve_apps.live.transport.doorstep import DoorReplica
from serve_apps.live.transport.frames import lost
from serve_apps.losses import CAUGHT, as_rocktop, is_lost
from serve_apps.observe.metrics import Metrics

if TYPE_CHECKING:
    from actors.ears import EarsActor
    from serve_apps.live.transport.ears_lines import Call, EarsLines

_WHO = "the process that hears for this stream"
_ASK_SECONDS = 5.0


class EarsReplica(DoorReplica):
    """An ``EarsActor`` with a side door. Light to start: ears are loaded when a voice is opened in ``Live``."""

    methods = frozenset({"open", "hear"})

    def __init__(self, config: ServeConfig) -> None:
        super().__init__()
        self._threads = config.live.ears.threads
        # One thread computes, others load: a voice that is opened holds up no stream.
        self._computing: ThreadPoolExecutor | None = None
        self._loading = ThreadPoolExecutor(1, "ears-files")
        self._actor: asyncio.Task[EarsActor] | None = None
        self._metrics = Metrics()

    async def check_health(self) -> None:
        """Answers while the event loop runs; Serve replaces a replica that does not."""

    async def _do(self, method: str, args: tuple[Any, ...]) -> Any:
        actor = await self._loaded()
        return await self._open(actor, *args) if method == "open" else await self._hear(actor, *args)

    def _close(self) -> None:
        for threads in (self._computing, self._loading):
            if threads is not None:
                threads.shutdown(wait=False, cancel_futures=True)

    async def _open(self, actor: EarsActor, plan: Any) -> Any:
        if self._computing is None:  # nobody is heard here yet
            return await quietly(partial(actor.open, plan))
        return await asyncio.get_running_loop().run_in_executor(self._loading, actor.open, plan)

    async def _hear(self, actor: EarsActor, call: Any) -> Any:
        if not actor.ready(call.plan):
            await self._open(actor, call.plan)
        if self._computing is None:
            self._computing = ThreadPoolExecutor(1, "ears", partial(_compute_here, self._threads))
        return await asyncio.get_running_loop().run_in_executor(self._computing, self._heard, actor, call)

    def _heard(self, actor: EarsActor, call: Any) -> Any:
        began = time.perf_counter()
        heard = actor.hear(call)
        self._metrics.live_heard(time.perf_counter() - began)
        return heard

    async def _loaded(self) -> EarsActor:
        if self._actor is None or (self._actor.done() and self._actor.exception() is not None):
            self._actor = asyncio.get_running_loop().create_task(self._load())
        return await asyncio.shield(self._actor)

    async def _load(self) -> EarsActor:
        await quietly(partial(load_for_good, "actors.ears"))
        return await quietly(_actor)


def _compute_here(threads: int) -> None:
    from rocktop_ray.live.threads import compute_here

    compute_here(threads)


def _actor() -> EarsActor:
    """An actor in this process, which has not computed before."""
    from actors.content import ContentActor
    from actors.ears import EarsActor
    from actors.pitch import PitchActor

    use_threads(1)  # of all but the one that computes
    return EarsActor(ContentActor("cpu"), PitchActor("cpu"))


def lines_to(handle: Any) -> EarsLines:
    """The lines from a replica of ``Live`` to all of ``LiveEars``. handle: of that deployment."""
    from serve_apps.live.transport.ears_lines import EarsLines

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
