"""A session's place at the desk, held by one connection."""

from __future__ import annotations

import secrets

from serve_apps.live.engine import Desk, HopCost, House
from serve_apps.orders import VoiceRef


class Seat:
    """Speaks with the desk in the name of one connection. Methods raise what the desk's do."""

    def __init__(self, desk: Desk, session: str, secret: str) -> None:
        self._desk, self.session, self.secret = desk, session, secret
        self._sitting = secrets.token_hex(8)

    async def admit(self, voice: VoiceRef, rate: int, live: bool, cost: HopCost) -> None:
        """Sit down, or change the voice."""
        await self._desk.admit(self.session, voice, rate, live, sitting=self._sitting, cost=cost)

    async def take(self) -> bytes:
        """What was parked; the session is ours from now on."""
        return await self._desk.take(self.session, self.secret, sitting=self._sitting)

    async def renew(self) -> House:
        """Still here."""
        return await self._desk.renew(self.session, self._sitting)

    async def park(self, state: bytes) -> None:
        """Keep that in place of what was parked before."""
        await self._desk.park(self.session, self.secret, state, sitting=self._sitting)

    async def leave(self, *, keep: bool) -> None:
        """Stand up. ``keep``: somebody will come back."""
        await self._desk.leave(self.session, self._sitting, keep=keep)
