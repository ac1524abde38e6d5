"""Tells a client's server how its job ended, as RunPod does: a POST of the job's state, repeated when it is refused."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rocktop_ray.errors import FetchError
from rocktop_ray.store.addresses import parse_url, redact
from rocktop_ray.store.guarded_fetch import FetchPolicy, check_url
from rocktop_ray.store.guarded_post import guarded_post

TRIES = 3
PAUSE = 10.0
"""Seconds between two tries."""
_SECONDS = 30.0

_log = logging.getLogger(__name__)


class Webhooks:
    """Sends under the rules for foreign addresses: nobody can make it talk to an inner host."""

    def __init__(self, policy: FetchPolicy, *, pause: float = PAUSE) -> None:
        self._policy = replace(policy, total_seconds=min(_SECONDS, policy.total_seconds))
        self._pause = pause

    def check(self, url: str) -> None:
        """Refuse early what could not be told. Raises UrlRefusedError."""
        parse_url(url)
        check_url(url, self._policy)

    async def send(self, url: str, state: Mapping[str, Any]) -> bool:
        """Whether the server took it (2xx). What goes wrong is logged, never raised."""
        body = json.dumps(state).encode()
        for last in range(TRIES):
            if last:
                await asyncio.sleep(self._pause)
            try:
                status = await asyncio.to_thread(guarded_post, url, body, "application/json", policy=self._policy)
            except FetchError as error:
                said = error.message
                if not error.retryable:
                    break
            else:
                if 200 <= status < 300:
                    return True
                said = f"the server answers {status}"
        _log.warning("a webhook was not taken", extra={"url": redact(url), "why": said, "job_id": state.get("id")})
        return False
