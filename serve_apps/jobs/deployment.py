"""The deployment ``Jobs``: one replica that holds the board of a service, with its runners."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from rocktop_ray.errors import RocktopError, StorageUnavailableError
from rocktop_ray.store.cache import ContentCache
from serve_apps.config import ServeConfig, StageConfig
from serve_apps.dispatch import ServeConversions
from serve_apps.jobs.board import JobBoard
from serve_apps.jobs.convert_runner import KIND, ConvertRunner, fetcher
from serve_apps.jobs.protocol import Job, Runner
from serve_apps.jobs.remote import TURN_SECONDS, Refused
from serve_apps.jobs.ticking import ticking
from serve_apps.nano import states
from serve_apps.nano.runner import NanoRunner
from serve_apps.observe.logs import configure_logging
from serve_apps.observe.metrics import Metrics
from serve_apps.orders import Conversions
from serve_apps.spool import Spool
from serve_apps.voices import VoiceShelf

STAGE = StageConfig(cpus=0.1, concurrency=10_000)
"""How the replica is placed: always one, and never two at once (no surge), as two boards would do each job twice."""

_METHODS = frozenset({"submit", "submit_all", "get", "list", "wait", "cancel", "remove", "purge", "counts"})
_LONGEST_PAUSE = 10.0
_log = logging.getLogger(__name__)


class JobsReplica:
    """Holds the board. Asked through ``remote.RemoteJobs``."""

    def __init__(self, config: ServeConfig, converter: Any) -> None:
        """converter: handle of the deployment that carries out orders. Serve makes replicas inside their event loop."""
        configure_logging()
        spool = Spool.open(config.store_place)
        self._board = build_board(config, spool, ServeConversions.over(converter, config, Metrics()))
        self._ready = asyncio.Event()
        self._trouble = StorageUnavailableError("the jobs are still being read from the store; try again later")
        self._starting = asyncio.get_running_loop().create_task(self._start())

    async def call(self, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """What a method of the board returns, or its error as ``Refused``."""
        if method not in _METHODS:
            raise ValueError(f"the board has no method {method!r}")
        try:
            await self._started()
            return await getattr(self._board, method)(*args, **options)
        except RocktopError as error:
            return Refused(error)

    async def changes(self, id: str) -> AsyncGenerator[Job | Refused, None]:
        """The job's states as ``watch`` gives them, for some seconds: then it is to be called again."""
        loop = asyncio.get_running_loop()
        end = loop.time() + TURN_SECONDS
        try:
            await self._started()
            async with aclosing(ticking(self._board.watch(id), 0.5)) as changes:
                async for job in changes:
                    if job is not None:
                        yield job
                    if loop.time() > end:
                        return
        except RocktopError as error:
            yield Refused(error)

    async def check_health(self) -> None:
        """Answers while the event loop runs; Serve replaces a replica that does not."""

    async def __del__(self) -> None:
        """Serve awaits it when the replica is to stop: what runs is put back among what waits."""
        self._starting.cancel()
        await self._board.close()

    async def _start(self) -> None:
        """Take up the jobs of the store; a store that is away is waited for."""
        pause = 0.5
        while True:
            try:
                await self._board.start()
                self._ready.set()
                return
            except RocktopError as error:
                _log.warning("the jobs cannot be read", extra={"code": error.code, "reason": error.message})
                self._trouble = StorageUnavailableError(f"the jobs cannot be read now: {error.message}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _started(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), TURN_SECONDS)
        if not self._ready.is_set():
            raise self._trouble


def build_board(config: ServeConfig, spool: Spool, conversions: Conversions) -> JobBoard:
    """A board with the runners of a deployment; it is yet to be started. Raises SettingsError, StorageError."""
    cache = ContentCache(config.cache_folder, config.fetch.cache_bytes)
    boards: list[JobBoard] = []
    runners: Mapping[str, Runner] = {
        KIND: ConvertRunner(conversions, spool, fetcher(config, cache)),
        states.KIND: NanoRunner.build(config, conversions, spool, cache, VoiceShelf.open(config), lambda: boards[0]),
    }
    boards.append(JobBoard(spool.store, runners, config.limits, meter=Metrics()))
    return boards[0]
