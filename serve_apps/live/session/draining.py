"""Whether this process is a replica that Ray Serve is about to stop.

Serve tells a replica nothing before the last request has ended: ``__del__`` comes after it, and a session of an hour is
one request. What is certain is a flag of the replica's own object (Ray 2.60), so it is looked at; where it is not
found, sessions go on until they are cut.
"""

from __future__ import annotations

import sys
from typing import Any


def replica_draining() -> bool:
    """True from the moment that Serve has asked the replica to stop."""
    replica = _replica()
    return bool(getattr(replica, "_shutting_down", False))


def _replica() -> Any:
    worker = sys.modules.get("ray._private.worker")
    actors = getattr(getattr(worker, "global_worker", None), "actors", None)
    if not isinstance(actors, dict):
        return None
    for actor in list(actors.values()):
        replica = getattr(actor, "_replica_impl", None)
        if replica is not None:
            return replica
    return None
