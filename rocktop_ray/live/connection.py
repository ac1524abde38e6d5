"""One connection of a live stream: made, and its end told as an ``Ending``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from rocktop_ray import __version__
from rocktop_ray.errors import ProtocolError, SettingsError, StreamLostError
from rocktop_ray.live.endings import Ending
from rocktop_ray.live.messages import (
    MOST_BINARY,
    PATH,
    CloseCode,
    Format,
    Problem,
    Resume,
    ServerMessage,
    Start,
    Started,
)
from rocktop_ray.live.protocol import pack, parse_server

_OPENING = 60.0
"""Seconds for a session to begin, or to go on: a voice may have to be loaded first."""
_SILENCE = 10.0
"""Seconds: the server sends statistics every second, so one that is silent for so long is gone."""


class Dropped(Exception):  # noqa: N818 - it says what happened, and never leaves the client
    """The connection is no more."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


class Connection:
    """A connection on which a session stands. ``open`` makes one."""

    def __init__(self, socket: ClientConnection, format: Format, rate: int) -> None:
        self._socket, self._format, self._rate = socket, format, rate
        self._problem: Problem | None = None

    @classmethod
    async def open(
        cls, url: str, api_key: str | None, first: Start | Resume, format: Format, rate: int
    ) -> tuple[Connection, Started]:
        """Connect and say the first message. Raises the RocktopError that says why not."""
        connection = cls(await _connect(url, api_key), format, rate)
        try:
            await connection.send(pack(first))
            started = await connection.hear(_OPENING)
        except BaseException as error:
            await connection.leave()  # else the server may begin, for nobody, when we have given up
            if isinstance(error, Dropped):
                raise error.ending.error() from error
            raise
        if isinstance(started, Started) and started.rate == rate:
            return connection, started
        await connection.leave()
        raise ProtocolError(f"the server did not begin a stream at {rate} Hz, but sent {started!r:.60}")

    async def send(self, data: bytes | str) -> None:
        """Send a message. Raises Dropped."""
        try:
            await self._socket.send(data)
        except ConnectionClosed as closed:
            raise Dropped(self._ending(closed)) from closed

    async def hear(self, patience: float | None = None) -> ServerMessage:
        """The next message. What the server says of an error comes with Dropped. Raises Dropped, ProtocolError, and
        Dropped after ``patience`` seconds of silence, by default the most of a stream that goes on.
        """
        patience = _SILENCE if patience is None else patience
        try:
            while True:
                async with asyncio.timeout(patience):
                    message = parse_server(await self._socket.recv(), self._format, self._rate)
                if not isinstance(message, Problem):
                    return message
                self._problem = message
        except TimeoutError as error:
            raise Dropped(Ending(1006, f"the server was silent for {patience:g} s")) from error
        except ConnectionClosed as closed:
            raise Dropped(self._ending(closed)) from closed

    async def leave(self) -> None:
        """Close it."""
        with suppress(OSError, WebSocketException):
            await self._socket.close()

    def _ending(self, closed: ConnectionClosed) -> Ending:
        if closed.rcvd is None:
            sent = f": {closed.sent.reason}" if closed.sent is not None and closed.sent.reason else ""
            return Ending(1006, f"without a word{sent}", self._problem)
        if closed.rcvd.code == CloseCode.ENDED:
            return Ending(CloseCode.FAULT, "the server ended a stream that was not at its end", self._problem)
        return Ending(closed.rcvd.code, _plain(closed.rcvd.reason), self._problem)


def stream_address(url: str) -> str:
    """The address of the stream on a server: ``http://host:8000`` -> ``ws://host:8000/v1/stream``. Raises
    SettingsError.
    """
    try:
        parts = urlsplit(url if "://" in url else f"ws://{url}")
        fine = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise SettingsError(f"{url[:100]!r} is no address: {error}") from error
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if not fine or scheme not in ("ws", "wss"):
        raise SettingsError(f"{url[:100]!r} is no address of a server: write for instance ws://127.0.0.1:8000")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError("the address holds a name, a key or a query: give the key by --api-key or its variable")
    path = PATH if parts.path in ("", "/") else parts.path
    return urlunsplit((scheme, parts.netloc, path, "", ""))


async def _connect(url: str, api_key: str | None) -> ClientConnection:
    """Raises the error that the server gives, or StreamLostError where there is none."""
    try:
        return await connect(
            url,
            additional_headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            user_agent_header=f"rocktop-ray/{__version__}",
            compression=None,  # audio does not get smaller, only later
            max_size=MOST_BINARY,
            close_timeout=2,
        )
    except InvalidStatus as refused:
        status = refused.response.status_code
        code = CloseCode.of_status(status)
        words = f"{url} answers with HTTP status {status}"
        if status == 404:
            raise StreamLostError(f"{words}: there is no live stream; is it a rocktop-ray server?") from refused
        if status >= 500:  # what is before a service that starts or stops
            raise StreamLostError(f"{words}: it is not ready for streams") from refused
        raise Ending(code, words).error() from refused
    except InvalidURI as error:
        raise SettingsError(f"{url[:100]!r} is no address: {error}") from error
    except TimeoutError as error:
        raise StreamLostError(f"{url} does not answer") from error
    except (OSError, WebSocketException, EOFError) as error:
        raise StreamLostError(f"cannot connect to {url}: {_plain(str(error)) or type(error).__name__}") from error


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:200]
