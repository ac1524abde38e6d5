"""The live engine and the desk of other processes: replicas of Serve, with a side door for blocks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from functools import partial
from typing import Any

from rocktop_ray.errors import BusyError, RocktopError, SessionGoneError, StageLostError
from rocktop_ray.settings import ConvertSettings
from serve_apps.jobs.remote import Refused
from serve_apps.live.engine import Fed, Feed, HopCost, House, StreamFacts
from serve_apps.live.transport.frames import lost
from serve_apps.live.transport.hedge import hedged
from serve_apps.live.transport.path import Path
from serve_apps.live.transport.paths import Paths
from serve_apps.losses import CAUGHT, Losses, as_rocktop, is_lost
from serve_apps.orders import VoiceRef

_WHO = "the process that computes streams"
_DESK = "the desk of live sessions"
_MOST_LOSSES = 6
_MOVE_SECONDS = 30.0
"""For which the state of a session that moves waits for its next block: the client may be gone."""
_SMALL = 1 << 20
"""Bytes of a state up to which it goes by gRPC, which is faster."""
_log = logging.getLogger(__name__)


class ServeEngine:
    """Implements ``engine.LiveEngine`` over a handle of the deployment ``Live``.

    A session stays with its replica, so that its state need not travel; nothing depends on it. One whose replica is
    about to stop takes its state along to another one. One whose replica died is told at once; where a replica is
    silent, another one computes, too.
    """

    def __init__(self, handle: Any) -> None:
        self._call = handle.options(method_name="call", _by_reference=False)
        self._large = handle.options(method_name="call")
        self._paths = Paths(handle)
        self._sizes: dict[str, int] = {}
        """By voice: bytes of the largest state that came over Serve."""
        self._moving: dict[str, tuple[int, bytes]] = {}
        """States of sessions that are on their way to another replica, by session, with the block they come before."""

    async def open(self, voice: VoiceRef, rate: int, multiple: int, settings: ConvertSettings) -> StreamFacts:
        """See ``engine.LiveEngine``."""
        call = ("open", (voice, rate, multiple, settings))
        losses = Losses(_WHO, _MOST_LOSSES)
        while True:
            try:
                paths = await self._paths.all()
                facts: StreamFacts
                facts = await self._paths.open_voice(voice, paths, call) if paths else await self._over_serve(*call)
                return facts
            except StageLostError as error:
                await asyncio.sleep(losses.pause(error))

    async def feed(self, feed: Feed, spare: Feed | None = None) -> Fed:
        """See ``engine.LiveEngine``."""
        before, path = self._paths.at(feed.session), await self._paths.of(feed.session, feed.voice)
        seq, state = self._moving.pop(feed.session, (-1, b""))
        if seq == feed.seq and feed.state is None:
            feed = replace(feed, state=state)
        if path is None:
            fed: Fed = await self._over_serve("feed", (feed,), large=self._carries_much(feed))
            if fed.state is not None:
                self._sizes[feed.voice.id] = max(self._sizes.get(feed.voice.id, 0), len(fed.state))
            return replace(fed, queues=False)
        if not self._paths.may_leave(path, feed.voice):
            return await self._at(path, before, feed, spare)
        fed = await self._at(path, before, replace(feed, want_state=True), spare)
        if fed.state is not None:
            self._move(feed.session, feed.seq + len(feed.pieces), fed.state)
        return replace(fed, queues=False)

    def _move(self, session: str, seq: int, state: bytes) -> None:
        """Let the session's next block, number ``seq``, find another replica, and take the state along."""
        self._moving[session] = (seq, state)
        self._paths.part(session)

        def give_up() -> None:
            if self._moving.get(session, (-1, b""))[0] == seq:
                del self._moving[session]

        asyncio.get_running_loop().call_later(_MOVE_SECONDS, give_up)

    async def _at(self, path: Path, before: Path | None, feed: Feed, spare: Feed | None) -> Fed:
        """The answer of ``path``; of another one if that is silent and there is a spare. ``before``: where the session
        was until now.
        """
        fed: Fed
        if spare is None:
            fed = await path.call(("feed", (feed,)))
            return fed
        call = feed if before in (None, path) else spare  # the session is new there
        other = partial(self._paths.besides, path, feed.voice)
        fed, answered = await hedged(path, ("feed", (call,)), ("feed", (spare,)), other)
        if answered is not path:
            self._paths.settle(feed.session, answered, feed.voice)
        asked = slice(-len(feed.pieces), None)
        return replace(fed, waves=fed.waves[asked], delays=fed.delays[asked])

    async def forget(self, session: str) -> None:
        """See ``engine.LiveEngine``."""
        self._moving.pop(session, None)
        path = self._paths.part(session)
        if path is not None and path.alive:
            with contextlib.suppress(RocktopError):
                await path.call(("forget", (session,)))

    def _carries_much(self, feed: Feed) -> bool:
        """Whether a state goes along, or comes back, that gRPC may not take. A stock RVC voice has about the 4 MiB
        that Serve lets through, and more while it takes over from another voice, or another one from it.
        """
        if feed.state is not None and len(feed.state) > _SMALL:
            return True
        return feed.want_state and (feed.voice.id not in self._sizes or max(self._sizes.values()) > _SMALL)

    async def _over_serve(self, method: str, args: tuple[Any, ...], *, large: bool = False) -> Any:
        """Where there is no side door. ``large``: not by gRPC."""
        try:
            answer = await (self._large if large else self._call).remote(method, args)
        except CAUGHT as error:
            if is_lost(error):
                raise lost(_WHO) from error
            raise as_rocktop(error, _WHO) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise lost(_WHO) from error
        if isinstance(answer, Refused):
            raise answer.error
        return answer


class RemoteDesk:
    """Implements ``engine.Desk`` over a handle of the deployment ``LiveDesk``.

    A desk that was replaced knows nobody: those who sit come in again when they renew, and park anew.
    """

    def __init__(self, handle: Any) -> None:
        self._call = handle.options(method_name="call", _by_reference=False)
        self._large = handle.options(method_name="call")
        """For saved sessions: by gRPC Serve takes 4 MiB, which one of a stock RVC voice can exceed."""
        self._admitted: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        """By sitting: how it was let in."""

    async def admit(self, session: str, voice: VoiceRef, rate: int, live: bool, *, sitting: str, cost: HopCost) -> None:
        """See ``engine.Desk``."""
        args = (session, voice, rate, live)
        options: dict[str, Any] = {"sitting": sitting, "cost": cost}
        await self._ask("admit", *args, **options)
        self._admitted[sitting] = (args, options)

    async def renew(self, session: str, sitting: str, *, late: float = 0.0) -> House:
        """See ``engine.Desk``."""
        try:
            house: House = await self._ask("renew", session, sitting, late=late)
        except SessionGoneError:
            if sitting not in self._admitted:
                raise
            args, options = self._admitted[sitting]
            try:
                await self._ask("admit", *args, **options)
            except BusyError as error:
                raise SessionGoneError("the session was given up, and there is no room any more") from error
            house = await self._ask("renew", session, sitting)
        return house

    async def leave(self, session: str, sitting: str, *, keep: float = 0.0) -> None:
        """See ``engine.Desk``."""
        self._admitted.pop(sitting, None)
        try:
            await self._ask("leave", session, sitting, keep=keep)
        except RocktopError as error:  # its lease ends by itself
            _log.warning("a live session could not leave", extra={"reason": error.message})

    async def park(self, session: str, secret: str, state: bytes, *, sitting: str) -> None:
        """See ``engine.Desk``."""
        await self._ask("park", session, secret, state, sitting=sitting, large=len(state) > _SMALL)

    async def take(self, session: str, secret: str, *, sitting: str) -> bytes:
        """See ``engine.Desk``."""
        state: bytes = await self._ask("take", session, secret, sitting=sitting, large=True)
        return state

    async def _ask(self, method: str, *args: Any, large: bool = False, **options: Any) -> Any:
        losses, handle = Losses(_DESK, _MOST_LOSSES), self._large if large else self._call
        while True:
            try:
                answer = await handle.remote(method, args, options)
                break
            except CAUGHT as error:
                if not is_lost(error):
                    raise as_rocktop(error, _DESK) from error
                pause = losses.pause(error)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                pause = losses.pause(error)
            await asyncio.sleep(pause)
        if isinstance(answer, Refused):
            raise answer.error
        return answer
