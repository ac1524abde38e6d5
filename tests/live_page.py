"""Small deeds on the studio's live mode, for its browser tests."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading

import numpy as np
import soundfile
from studio_browser import Watched

from rocktop_ray.protocols import Array

LEVEL = 0.1
"""RMS of the noise in the microphone."""
INPUT = "document.querySelectorAll('#live-panel .level')[0].getAttribute('aria-valuenow')"
"""dBFS RMS of what is heard, as the meter tells it."""
OUTPUT = "document.querySelectorAll('#live-panel .level')[1].getAttribute('aria-valuenow')"
"""dBFS RMS of what is played, as the meter tells it."""


def noise(seconds: float = 4.0, rate: int = 48_000) -> Array:
    """Noise of the same loudness throughout, that is like itself at no other moment."""
    return (LEVEL * np.random.default_rng(1).standard_normal(round(seconds * rate)).clip(-4, 4)).astype(np.float32)


def start(studio: Watched) -> None:
    studio.page.click("#live-go")
    studio.until("document.querySelector('#live-panel').dataset.phase === 'live'")


def row(studio: Watched, label: str) -> str:
    """What the lists say beside a word."""
    return str(studio.page.locator(f"#live-panel dt:text-is('{label}') + dd").text_content())


def until_row(studio: Watched, label: str, wanted: str) -> None:
    """Wait until a row holds what a regular expression says."""
    studio.until(
        "(() => { const node = [...document.querySelectorAll('#live-panel dt')]"
        f".find((one) => one.textContent === {label!r}); return /{wanted}/.test(node.nextSibling.textContent); }})()"
    )


class Relay:
    """Stands between a browser and a server on this machine, and cuts all that goes through it when told to."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """As a network does that goes away: nobody is told why."""
        gone, self._open = self._open, []
        for end in gone:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    ends[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    @staticmethod
    def _pass(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)


def keep_takes(studio: Watched) -> None:
    """Let ``recorded`` find the files of takes, which the page reads to know how long they are."""
    studio.page.evaluate("""() => {
          const make = URL.createObjectURL;
          URL.createObjectURL = (blob) => {
            if (blob instanceof File) (window.keptTakes ??= {})[blob.name] = blob;
            return make.call(URL, blob);
          };
        }""")


def recorded(studio: Watched, at: int = 0) -> tuple[Array, Array]:
    """What a take of the list holds, the newest first, and what its result does by its download."""
    page = studio.page
    with page.expect_download() as coming:
        page.click(f".take >> nth={at} >> text=Download")
    wet, rate = soundfile.read(coming.value.path(), dtype="float32")
    name = page.locator(".take-name").nth(at).text_content()
    data = page.evaluate("async (name) => [...new Uint8Array(await window.keptTakes[name].arrayBuffer())]", name)
    dry, same = soundfile.read(io.BytesIO(bytes(data)), dtype="float32")
    assert rate == same and len(dry) == len(wet)
    return dry, wet
