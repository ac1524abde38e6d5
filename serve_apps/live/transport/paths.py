"""The paths from a gateway to the live replicas: which there are, who is where, who moves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rocktop_ray.errors import RocktopError, StageLostError
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.engine import StreamFacts
from serve_apps.live.transport.door import Address
from serve_apps.live.transport.frames import lost
from serve_apps.live.transport.path import Path
from serve_apps.losses import CAUGHT
from serve_apps.orders import VoiceRef

LOOK_SECONDS = 1.5
_FORGET_SECONDS = 60.0
_ASK_SECONDS = 5.0
_FULL = 0.5
"""Share of a hop that computing it may take in a replica before sessions go to another one."""
_HUNG_SECONDS = 1.0
"""For a look around by somebody who knows of replicas: one that hangs holds it up."""
_WHO = "the process that computes this stream"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Home:
    """Where a session is."""

    path: Path
    voice: VoiceRef
    used: float


class Paths:
    """Looks for replicas while sessions run, and gives each session one of those that have its voice ready."""

    def __init__(self, handle: Any) -> None:
        """handle: of the deployment ``Live``."""
        self._handle = handle
        self._paths: dict[str, Path] = {}
        self._doorless = False
        """Whether the replicas have no side doors."""
        self._home: dict[str, _Home] = {}
        self._looking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def all(self) -> list[Path]:
        """The paths to replicas that stay. Empty: there are no side doors, only Serve. Raises StageLostError where
        there is nobody at all.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HUNG_SECONDS if self._alive() else None):
                await self._look()
        paths = [path for path in self._alive() if not path.leaving] or self._alive()
        if not paths and not self._doorless:
            raise lost(_WHO)
        return paths

    async def of(self, session: str, voice: VoiceRef) -> Path | None:
        """The path of a session; None: over Serve. Raises StageLostError."""
        path = self.at(session)
        if path is None or not path.alive or path.silent:
            path = self._best(self._alive(), voice)
            if path is None:
                await self.all()
                path = self._best(self._alive(), voice)
        if path is not None:
            self.settle(session, path, voice)
        return path

    def at(self, session: str) -> Path | None:
        """The path that a session had last, if it had one."""
        home = self._home.get(session)
        return None if home is None else home.path

    def settle(self, session: str, path: Path, voice: VoiceRef) -> None:
        """That is the session's path from now on."""
        self._home[session] = _Home(path, voice, time.monotonic())
        self._watch()

    def besides(self, path: Path, voice: VoiceRef) -> Path | None:
        """Another one that can take a session of the voice at once."""
        ready = (other for other in self._alive() if other is not path and voice.id in other.voices)
        return self._best([other for other in ready if not other.silent], voice)

    def may_leave(self, path: Path, voice: VoiceRef) -> bool:
        """Whether a session of ``path`` had better go, and has where to."""
        return path.leaving and any(
            not other.leaving and voice.id in other.voices for other in self._alive() if other is not path
        )

    def part(self, session: str) -> Path | None:
        """The session has no path any more: the one that it had."""
        home = self._home.pop(session, None)
        return None if home is None else home.path

    async def open_voice(self, voice: VoiceRef, paths: Sequence[Path], call: Any) -> StreamFacts:
        """Open a voice in all of them; what the first says that has it. Raises what all of them refuse with."""
        running = [asyncio.create_task(_opened(path, voice, call)) for path in paths]
        self._tasks.update(running)
        for task in running:
            task.add_done_callback(self._done)
        error: BaseException = lost(_WHO)
        for next_done in asyncio.as_completed(running):
            try:
                return await next_done
            except RocktopError as refused:
                error = refused if not isinstance(refused, StageLostError) else error
        raise error

    def _alive(self) -> list[Path]:
        return [path for path in self._paths.values() if path.alive]

    def _best(self, among: Sequence[Path], voice: VoiceRef) -> Path | None:
        return best(among, voice.id, Counter(home.path.replica for home in self._home.values()))

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._keep_watch())

    async def _keep_watch(self) -> None:
        """Look for new replicas while sessions run, open their voices there, hang up where nobody is any more."""
        while self._home:
            with contextlib.suppress(RocktopError):
                await self._look()
            old = time.monotonic() - _FORGET_SECONDS
            self._home = {name: home for name, home in self._home.items() if home.path.alive and home.used > old}
            used = {home.voice.id: home.voice for home in self._home.values()}
            for path in self._alive():
                if path.leaving:
                    if all(home.path is not path for home in self._home.values()):
                        path.close()
                    continue
                for voice in used.values():
                    if voice.id not in path.voices and voice.id not in path.opening:
                        self._start(_opened(path, voice, ("open", (voice, 48_000, 1, ConvertSettings()))))
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._looked())
        await asyncio.shield(self._looking)

    async def _looked(self) -> None:
        try:
            answer = self._handle.broadcast("where")
            found = await answer.results_async(timeout_s=_ASK_SECONDS, return_exceptions=True)
        except (*CAUGHT, TimeoutError) as error:
            _log.info("no live replica answers", extra={"reason": str(error)[:200]})
            found = []
        addresses = [address for address in found if isinstance(address, Address)]
        self._doorless = not addresses and any(address is None for address in found)
        self._paths = {replica: path for replica, path in self._paths.items() if path.alive}
        for address in addresses:
            if address.replica not in self._paths:
                try:
                    self._paths[address.replica] = await Path.open(address)
                except (OSError, TimeoutError) as error:
                    _log.warning("a live replica is not reached", extra={"reason": str(error)[:200]})
                    self._doorless = self._doorless or not self._paths

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.info("a voice is not ready everywhere", extra={"reason": str(error)[:200]})


def best(among: Sequence[Path], voice: str, sessions: Mapping[str, int]) -> Path | None:
    """The path for another session of a voice: one that answers before one that does not, one that stays before one
    that leaves, one with the voice before one without; then the one with the most sessions that has room, as streams
    computed together cost far less than apart, else the one with the fewest. ``sessions``: by replica.
    """

    def key(path: Path) -> tuple[bool, bool, bool, bool, int, str]:
        count, cost = sessions.get(path.replica, 0), path.voices.get(voice)
        room = cost is not None and cost.fixed + cost.each * (count + 1) <= _FULL * cost.hop
        return path.silent, path.leaving, cost is None, not room, -count if room else count, path.replica

    return min(among, key=key, default=None)


async def _opened(path: Path, voice: VoiceRef, call: Any) -> StreamFacts:
    path.opening.add(voice.id)
    try:
        facts: StreamFacts = await path.call(call)
        path.voices[voice.id] = facts.cost
        return facts
    finally:
        path.opening.discard(voice.id)
