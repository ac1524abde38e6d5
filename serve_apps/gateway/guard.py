"""Who may call: the name under which the service is reached, web pages, API keys."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rocktop_ray.errors import RocktopError
from serve_apps.config import SecurityConfig
from serve_apps.gateway.budgets import Guesses, KeyBudgets
from serve_apps.gateway.key_ring import Key, KeyRing
from serve_apps.gateway.refusals import ForbiddenError, HostRefusedError, KeyRequiredError

OPEN = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz", "/ping", "/favicon.ico"})
"""Routes that need no key."""
OPEN_BELOW = ("/studio/", "/docs/")
_PROBES = frozenset({"/healthz", "/readyz", "/ping"})
"""Asked by orchestrators under whatever address a container has; they tell nothing."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="rocktop-ray"'}


class Guard:
    """ASGI middleware. Puts ``owner`` (name of the key, None where keys are off) and ``admin`` into the state.

    For WebSockets also ``enter``, a context manager that takes the key of the first message: within it the caller is
    let in, and the two are right.
    """

    def __init__(self, app: ASGIApp, config: SecurityConfig, refuse: Callable[[RocktopError, Scope], ASGIApp]) -> None:
        """refuse: makes the answer to a request that is not let in."""
        self._app, self._config, self._refuse = app, config, refuse
        self._hosts = {name.lower().rstrip(".") for name in config.hosts}
        self._origins = {origin.lower().rstrip("/") for origin in config.origins}
        self._ring = KeyRing(config.keys) if config.keys else None
        self._budgets, self._guesses = KeyBudgets(), Guesses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        try:
            headers = Headers(scope=scope)
            path = get_route_path(scope)
            self._check_host(headers.get("host", ""), path)
            self._check_page(scope, headers)
            key = self._identify(scope, headers, path)
            budget = nullcontext() if key is None else self._budgets.request(key)
            budget.__enter__()
        except RocktopError as error:
            await self._refuse(error, scope)(scope, receive, send)
            return
        try:
            self._let_in(state, key)
            if scope["type"] == "websocket":
                state["enter"] = partial(self._enter, scope, key)
            await self._app(scope, receive, send)
        finally:
            budget.__exit__(None, None, None)

    def _let_in(self, state: dict[str, Any], key: Key | None) -> None:
        state["owner"] = key.name if key else None
        state["admin"] = self._ring is None or (key is not None and key.admin)

    @contextmanager
    def _enter(self, scope: Scope, known: Key | None, secret: str | None) -> Iterator[None]:
        """For a WebSocket, whose key may come in its first message: web pages cannot send headers with it.

        Raises KeyRequiredError, RateLimitedError, NotReadyError.
        """
        if self._ring is None or known is not None:
            yield
            return
        if not secret:
            raise KeyRequiredError("send your API key: in the header Authorization, or as 'key' in the first message")
        key = self._known(scope, self._ring, secret)
        with self._budgets.request(key):
            self._let_in(scope["state"], key)
            yield

    def _check_host(self, host: str, path: str) -> None:
        """A page of a foreign name that resolves to this machine (DNS rebinding) shows that name here."""
        if "*" in self._hosts or path in _PROBES or (self._ring is not None and not self._hosts):
            return
        name = _host_name(host)
        if not (is_loopback(name) or name in self._hosts or host.lower() in self._hosts):
            raise HostRefusedError(
                f"this service is not reached under the name {name[:100]!r}: use localhost, or add the name to "
                "security.hosts"
            )

    def _check_page(self, scope: Scope, headers: Headers) -> None:
        """A web page of elsewhere must not change anything here in its visitor's name."""
        if self._ring is not None or (scope["type"] == "http" and scope.get("method", "GET") in _SAFE):
            return  # a WebSocket begins with GET, and is not bound to the same origin by the browser
        origin = headers.get("origin")
        if origin is not None:
            own = urlsplit(origin).netloc.lower() == headers.get("host", "").lower() and origin != "null"
            if not own and origin.lower() not in self._origins:
                raise ForbiddenError(f"pages of {origin[:100]} may not call this service: see security.origins")
        elif headers.get("sec-fetch-site", "none") in ("cross-site", "same-site"):
            raise ForbiddenError("pages of other origins may not call this service: see security.origins")

    def _identify(self, scope: Scope, headers: Headers, path: str) -> Key | None:
        if self._ring is None:
            return None
        secret = _shown(headers)
        if secret is None:
            if path in OPEN or path.startswith(OPEN_BELOW) or scope["type"] == "websocket":
                return None
            raise KeyRequiredError("send your API key: Authorization: Bearer KEY", headers=_CHALLENGE)
        if path in OPEN or path.startswith(OPEN_BELOW):
            return self._ring.find(secret)
        return self._known(scope, self._ring, secret)

    def _known(self, scope: Scope, ring: KeyRing, secret: str) -> Key:
        key = ring.find(secret)
        if key is None:
            client = scope.get("client")
            self._guesses.wrong(client[0] if client else "")
            raise KeyRequiredError("this API key is not known, or was revoked", headers=_CHALLENGE)
        return key


def is_loopback(name: str) -> bool:
    """Whether a host's name can only mean this machine."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """``[::1]:8000`` -> ``::1``; ``Example.org.:80`` -> ``example.org``."""
    name = host.strip().lower()
    if name.startswith("["):
        inner, _, rest = name[1:].partition("]")
        return inner if not rest or rest.startswith(":") else name
    return name.rpartition(":")[0].rstrip(".") if ":" in name else name.rstrip(".")


def _shown(headers: Headers) -> str | None:
    """The key that a request shows; None if it shows none."""
    scheme, _, text = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and text.strip():
        return text.strip()
    return headers.get("x-api-key", "").strip() or None
