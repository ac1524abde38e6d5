"""Deployments ``Live`` and ``LiveDesk``.

Both are light to start: what is heavy is loaded at the first stream, or some seconds after the start.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import ray

from actors.threads import cores
from rocktop_ray.errors import RocktopError
from serve_apps.config import ServeConfig, StageConfig
from serve_apps.jobs.remote import Refused
from serve_apps.live.compute.quiet import load_for_good, quietly
from serve_apps.live.desk import LocalDesk
from serve_apps.live.transport.doorstep import DoorReplica
from serve_apps.observe.logs import configure_logging
from serve_apps.priority import let_go, standing_back

if TYPE_CHECKING:
    from serve_apps.live.compute.local import LocalEngine
    from serve_apps.voices import VoiceShelf

DESK_STAGE = StageConfig(cpus=0.05, concurrency=10_000)
"""How the desk is placed: always one."""
DESK_METHODS = frozenset({"admit", "renew", "leave", "park", "take"})
_log = logging.getLogger(__name__)


class LiveReplica(DoorReplica):
    """Deployment ``Live``: a ``LocalEngine`` with a side door."""

    methods = frozenset({"open", "feed", "forget"})

    def __init__(self, config: ServeConfig, ears: Any = None) -> None:
        """ears: handle of the deployment ``LiveEars``; None for fused placement."""
        super().__init__()
        self._config, self._ears = config, ears
        self._loading: asyncio.Task[tuple[LocalEngine, VoiceShelf]] | None = None
        self._preloading = asyncio.get_running_loop().create_task(self._preload())

    async def check_health(self) -> None:
        """Raises if the computing thread died; Serve replaces such a replica, and one that does not answer."""
        if (engine := self._engine) is not None:
            engine.check()

    @property
    def _engine(self) -> LocalEngine | None:
        """None as long as it is not there."""
        done = self._loading is not None and self._loading.done() and self._loading.exception() is None
        return self._loading.result()[0] if self._loading is not None and done else None

    async def _do(self, method: str, args: tuple[Any, ...]) -> Any:
        engine, _ = await self._loaded()
        return await getattr(engine, method)(*args)

    def _close(self) -> None:
        self._preloading.cancel()
        if (engine := self._engine) is not None:
            engine.close()

    async def _loaded(self) -> tuple[LocalEngine, VoiceShelf]:
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.get_running_loop().create_task(self._load())
        return await asyncio.shield(self._loading)

    async def _load(self) -> tuple[LocalEngine, VoiceShelf]:
        """Others may be singing. What takes long is the import; no thread that is to compute may start there."""
        await quietly(partial(load_for_good, "serve_apps.live.compute.process"))
        return await asyncio.to_thread(_build, self._config, self.name, self._ears)

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


def _build(config: ServeConfig, name: str, ears: Any) -> tuple[LocalEngine, VoiceShelf]:
    from serve_apps.live.compute.ears import lines_to
    from serve_apps.live.compute.process import build_engine

    with standing_back():  # and so do the threads that it starts
        built = build_engine(config, name, None if ears is None else lines_to(ears))
    let_go(os.getpid())
    return built


class DeskReplica:
    """Deployment ``LiveDesk``: one ``LocalDesk`` for all gateways. Asked through ``remote.RemoteDesk``."""

    def __init__(self, config: ServeConfig) -> None:
        configure_logging()
        self._desk = LocalDesk(config.live, at_once=_at_once(config), cores=_nodes() * cores())

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


def _nodes() -> int:
    return sum(1 for node in ray.nodes() if node["Alive"])


def _at_once(config: ServeConfig) -> int:
    """Replicas of ``Live`` that have cores of their own, with those of their ears where these are elsewhere."""
    live, alive = config.live, _nodes()
    if config.placement == "fused":
        return max(1, alive * cores() // live.threads)
    return max(1, min(alive * cores() // (live.threads + live.ears.threads), live.ears.replicas))
