"""What Serve's proxy is given: who does not read is let go of, whatever else the proxy does is as it was."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from serve_apps.deaf import PATIENCE, LetGoOfTheDeaf, middlewares
from serve_apps.live.session.limits import LiveLimits


@pytest.mark.parametrize(
    ("kind", "deaf", "lost"), [("websocket", True, True), ("websocket", False, False), ("http", True, False)]
)
def test_a_client_that_does_not_read_is_let_go_of(kind: str, deaf: bool, lost: bool) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        await asyncio.sleep(0.3 if deaf else 0)
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": f"{scope['type']}.send"})

    async def receive() -> Message:
        raise AssertionError("not asked for")

    async def work() -> None:
        await LetGoOfTheDeaf(app, 0.1 if deaf else 60)({"type": kind}, receive, send)

    if lost:
        with pytest.raises(ConnectionError):
            asyncio.run(work())
    else:
        asyncio.run(work())
    assert len(sent) == (not lost)


def test_serve_is_given_it_with_the_patience_of_a_gateway() -> None:
    (middleware,) = middlewares()
    assert middleware.cls is LetGoOfTheDeaf and not middleware.kwargs
    assert LiveLimits.unread == PATIENCE
