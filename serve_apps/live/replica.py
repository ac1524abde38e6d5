"""Deployments ``Live`` and ``LiveDesk``.

Both are light to start: what is heavy is loaded at the first stream, or some seconds after the start.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import ray
from ray import serve

from actors.threads import cores
from rocktop_ray.errors import RocktopError
from serve_apps.config import ServeConfig, StageConfig
from serve_apps.jobs.remote import Refused
from serve_apps.live.desk import LocalDesk
from serve_apps.live.door import Address, Door
from serve_apps.live.doorstep import LEAVE_SECONDS, answered, open_door
from serve_apps.observe.logs import configure_logging

if TYPE_CHECKING:
    from serve_apps.live.local import LocalEngine
    from serve_apps.voices import VoiceShelf

DESK_STAGE = StageConfig(cpus=0.05, concurrency=10_000)
"""How the desk is placed: always one."""
ENGINE_METHODS = frozenset({"open", "feed", "forget"})
DESK_METHODS = frozenset({"admit", "renew", "leave", "park", "take"})
_log = logging.getLogger(__name__)


class LiveReplica:
    """Deployment ``Live``: a ``LocalEngine`` with a side door. Serve makes replicas inside their event loop."""

    def __init__(self, config: ServeConfig, ears: Any = None) -> None:
        """ears: handle of the deployment ``LiveEars``; None for fused placement."""
        configure_logging()
        self._config, self._ears = config, ears
        self._name = serve.get_replica_context().replica_id.unique_id
        self._loading: asyncio.Task[tuple[LocalEngine, VoiceShelf]] | None = None
        self._door = Door(self._name, self._answer)
        self._opening = asyncio.get_running_loop().create_task(open_door(self._door))
        self._preloading = asyncio.get_running_loop().create_task(self._preload())

    async def where(self) -> Address | None:
        """The side door; None if there is none."""
        return await asyncio.shield(self._opening)

    async def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """What a method of the engine returns, or its error as ``Refused``."""
        try:
            return await self._answer((method, args))
        except RocktopError as error:
            return Refused(error)

    async def check_health(self) -> None:
        """Raises if the computing thread died; Serve replaces such a replica, and one that does not answer."""
        if self._loading is not None and self._loading.done() and self._loading.exception() is None:
            self._loading.result()[0].check()

    async def __del__(self) -> None:
        """Serve awaits it when the replica is to stop."""
        self._preloading.cancel()
        await self._door.leave(LEAVE_SECONDS)
        if self._loading is not None and self._loading.done() and self._loading.exception() is None:
            self._loading.result()[0].close()

    async def _answer(self, call: tuple[str, tuple[Any, ...]]) -> Any:
        method, args = call
        if method not in ENGINE_METHODS:
            raise ValueError(f"an engine has no method {method!r}")
        engine, _ = await self._loaded()
        return await answered(getattr(engine, method)(*args))

    async def _loaded(self) -> tuple[LocalEngine, VoiceShelf]:
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.get_running_loop().create_task(self._load())
        return await asyncio.shield(self._loading)

    async def _load(self) -> tuple[LocalEngine, VoiceShelf]:
        return await asyncio.to_thread(build_engine, self._config, self._name, self._ears)

    async def _preload(self) -> None:
        """Open the configured voices in the background."""
        await asyncio.sleep(self._config.live.preload_seconds)
        if not self._config.live.preload:
            return
        engine, shelf = await self._loaded()
        for name in self._config.live.preload:
            try:
                await engine.warm(await asyncio.to_thread(shelf.refer, name))
            except RocktopError as error:
                _log.warning(
                    "voice not ready for streams", extra={"voice": name, "code": error.code, "reason": error.message}
                )


def build_engine(config: ServeConfig, name: str, ears: Any = None) -> tuple[LocalEngine, VoiceShelf]:
    """The engine of a process, and where its voices come from. Streams have no form for a GPU: it computes here.

    ears: handle of the deployment that hears for it; None: it hears itself.
    """
    from actors.content import ContentActor
    from actors.live import LiveActor
    from actors.pitch import PitchActor
    from actors.threads import use_threads
    from rocktop_ray.live.layout import LiveLayout
    from serve_apps.live.ears import lines_to
    from serve_apps.live.local import LocalEngine
    from serve_apps.replicas import open_voices

    live, lines = config.live, None if ears is None else lines_to(ears)
    use_threads(live.threads)
    shelf, voices = open_voices(config.model_copy(update={"device": "cpu"}))
    actor = LiveActor(
        voices,
        ContentActor("cpu"),
        PitchActor("cpu"),
        layout=LiveLayout(**live.layout.model_dump()),
        windows=LiveLayout(**live.windows.model_dump()),
        extractor=live.pitch,
        most=config.voices.max_loaded,
        elsewhere=lines,
    )
    return LocalEngine(actor, live, name=name, closing=None if lines is None else lines.close), shelf


class DeskReplica:
    """Deployment ``LiveDesk``: one ``LocalDesk`` for all gateways. Asked through ``remote.RemoteDesk``."""

    def __init__(self, config: ServeConfig) -> None:
        configure_logging()
        self._desk = LocalDesk(config.live, at_once=_at_once(config))

    async def call(self, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """What a method of the desk returns, or its error as ``Refused``."""
        if method not in DESK_METHODS:
            raise ValueError(f"a desk has no method {method!r}")
        try:
            return await getattr(self._desk, method)(*args, **options)
        except RocktopError as error:
            return Refused(error)

    async def check_health(self) -> None:
        """Answers while the event loop runs; Serve replaces a replica that does not."""


def _at_once(config: ServeConfig) -> int:
    """Replicas of ``Live`` that have cores of their own, with those of their ears where these are elsewhere."""
    live, alive = config.live, sum(1 for node in ray.nodes() if node["Alive"])
    if config.placement == "fused":
        return max(1, alive * cores() // live.threads)
    return max(1, min(alive * cores() // (live.threads + live.ears.threads), live.ears.replicas))
