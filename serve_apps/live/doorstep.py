"""What replicas with a side door have in common."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable
from typing import TypeVar

import ray

from rocktop_ray.errors import RocktopError
from serve_apps.live.door import Address, Door

LEAVE_SECONDS = 20.0
"""How long a replica that is to stop answers those who are on their way elsewhere."""
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


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
