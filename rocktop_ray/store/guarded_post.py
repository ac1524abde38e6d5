"""Tell a stranger's server something, under the rules by which ``guarded_fetch`` asks one."""

from __future__ import annotations

import contextlib

from rocktop_ray.store.addresses import parse_url, redact
from rocktop_ray.store.guarded_fetch import FetchPolicy, look_up
from rocktop_ray.store.transport import Clock, Exchange, connect


def guarded_post(url: str, body: bytes, content_type: str, *, policy: FetchPolicy | None = None) -> int:
    """POST ``body`` to ``url`` (http or https) and return the status of the answer, whose body is not read.

    Redirects are not followed. Raises UrlRefusedError, UrlTimeoutError, UrlUnreachableError; messages name the address
    without its query.
    """
    policy = policy or FetchPolicy()
    place = redact(url)
    clock = Clock(policy.total_seconds, policy.idle_seconds, place)
    target = parse_url(url)
    addresses = look_up(target, policy, clock, place)
    headers = {"User-Agent": "rocktop", "Content-Type": content_type, "Content-Length": str(len(body))}
    with contextlib.closing(connect(target, addresses, clock, policy.connect_seconds, policy.tls, place)) as link:
        exchange = Exchange(link, target, headers, clock, place, method="POST", body=body)
        with contextlib.closing(exchange):
            return exchange.status
