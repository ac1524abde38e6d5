"""A session's place at the desk, held by one connection."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from rocktop_ray.errors import RocktopError
from serve_apps.live.engine import RENEW_SECONDS, Desk, HopCost, House
from serve_apps.live.session.parking import Head
from serve_apps.orders import VoiceRef


class Seat:
    """Speaks with the desk in the name of one connection. Methods raise what the desk's do."""

    def __init__(self, desk: Desk, session: str, secret: str) -> None:
        self._desk, self.session, self.secret = desk, session, secret
        self._sitting = secrets.token_hex(8)

    async def admit(self, voice: VoiceRef, head: Head, cost: HopCost) -> None:
        """Sit down, or change the voice."""
        cost = replace(cost, blocks=head.rate / head.block)
        await self._desk.admit(self.session, voice, head.rate, head.live, sitting=self._sitting, cost=cost)

    @asynccontextmanager
    async def reserved(self, voice: VoiceRef, rate: int, live: bool) -> AsyncIterator[None]:
        """Sit, before anybody knows what it costs, while the voice is opened: who would find no place opens nothing.
        Left at once if that fails.
        """
        nothing = HopCost(voice.id, 0.0, 0.0, 1.0)
        await self._desk.admit(self.session, voice, rate, live, sitting=self._sitting, cost=nothing)
        renewing = asyncio.create_task(self._renewing())
        try:
            yield
        except BaseException:
            await self.leave(keep=0.0)
            raise
        finally:
            renewing.cancel()

    async def take(self) -> bytes:
        """What was parked; the session is ours from now on."""
        return await self._desk.take(self.session, self.secret, sitting=self._sitting)

    async def renew(self, *, late: float = 0.0) -> House:
        """Still here. ``late``: share of the blocks since the last time that were answered late."""
        return await self._desk.renew(self.session, self._sitting, late=late)

    async def park(self, state: bytes) -> None:
        """Keep that in place of what was parked before."""
        await self._desk.park(self.session, self.secret, state, sitting=self._sitting)

    async def leave(self, *, keep: float) -> None:
        """Stand up. ``keep``: seconds for which somebody may come back."""
        await self._desk.leave(self.session, self._sitting, keep=keep)

    async def _renewing(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with suppress(RocktopError):  # it is asked for anew when the voice is open
                await self.renew()
