"""What replicas with a side door have in common: ``Live`` and ``LiveEars``."""

from __future__ import annotations

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, ClassVar, TypeVar

import ray
from ray import serve

from rocktop_ray.errors import RocktopError
from serve_apps.jobs.remote import Refused
from serve_apps.live.transport.door import Address, Door
from serve_apps.observe.logs import configure_logging

_LEAVE_SECONDS = 20.0
"""How long a replica that is to stop answers those who are on their way elsewhere."""
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class DoorReplica(ABC):
    """A replica that is called over its side door, or over Serve where it has none.

    Serve makes replicas inside their event loop.
    """

    methods: ClassVar[frozenset[str]]
    """Names that may be called."""

    def __init__(self) -> None:
        configure_logging()
        self.name = serve.get_replica_context().replica_id.unique_id
        self._door = Door(self.name, self._answer)
        self._opening = asyncio.get_running_loop().create_task(open_door(self._door))

    async def where(self) -> Address | None:
        """The side door; None if there is none."""
        return await asyncio.shield(self._opening)

    async def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """What a method returns, or its error as ``Refused``."""
        try:
            return await self._answer((method, args))
        except RocktopError as error:
            return Refused(error)

    async def __del__(self) -> None:
        """Serve awaits it when the replica is to stop."""
        await self._door.leave(_LEAVE_SECONDS)
        self._close()

    @abstractmethod
    async def _do(self, method: str, args: tuple[Any, ...]) -> Any:
        """What a method returns."""

    @abstractmethod
    def _close(self) -> None:
        """Stop computing: nobody calls any more."""

    async def _answer(self, call: tuple[str, tuple[Any, ...]]) -> Any:
        method, args = call
        if method not in self.methods:
            raise ValueError(f"{type(self).__name__} has no method {method!r}")
        return await answered(self._do(method, args))


async def open_door(door: Door) -> Address | None:
    """Listen on this node's own address. None where there can be no side door: all goes over Serve then."""
    if os.environ.get("RAY_USE_TLS", "0") == "1":  # the side door would not be encrypted
        return None
    try:
        return await door.open(ray.util.get_node_ip_address())
    except OSError as error:
        _log.warning("no side door: calls go over Serve", extra={"reason": str(error)})
        return None


async def answered(work: Awaitable[_T]) -> _T:
    """What it returns. Raises RocktopError, whatever it raises: what else it was stands in the log."""
    try:
        return await work
    except RocktopError:
        raise
    except Exception as error:
        _log.exception("a live call failed")
        raise RocktopError("the live engine failed unexpectedly; the server's log says why", stage="live") from error
