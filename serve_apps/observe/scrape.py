"""Asking the exporters of all nodes of this Ray for their metrics, within a time."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_SECONDS = 4.0
"""For the nodes' list, and for each answer."""
_MOST_BYTES = 32 << 20
_KEEP_SECONDS = 2.0
_AT_ONCE = 8


class Exporters:
    """The exporters of this Ray's nodes. Answers are kept for two seconds, and shared by those who ask meanwhile."""

    def __init__(self, addresses: Callable[[], list[str]] | None = None) -> None:
        """``addresses`` tells ``host:port`` of every exporter; None asks Ray. It may block."""
        self._addresses = addresses or ray_exporters
        self._lock = asyncio.Lock()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="scrape")
        self._taken = float("-inf")
        self._answers: list[str | None] = []

    async def texts(self) -> list[str | None]:
        """What each exporter answers; None for one that is silent, slow or refuses. Never raises for them."""
        async with self._lock:
            if time.monotonic() - self._taken > _KEEP_SECONDS:
                loop = asyncio.get_running_loop()
                try:
                    found = loop.run_in_executor(self._threads, self._addresses)
                    addresses = sorted(set(await asyncio.wait_for(found, _SECONDS)))
                    asked = (loop.run_in_executor(self._threads, _ask, address) for address in addresses)
                    self._answers = list(await asyncio.gather(*asked))
                except TimeoutError:
                    self._answers = [None]
                self._taken = time.monotonic()
            return self._answers


def ray_exporters() -> list[str]:
    """``host:port`` of the metrics exporter of every living node."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node.get("MetricsExportPort")]
    return [_joined(node["NodeManagerAddress"], node["MetricsExportPort"]) for node in nodes]


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ask(address: str) -> str | None:
    # Nodes of one cluster speak to each other directly, whatever proxy the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/metrics", timeout=_SECONDS) as answer:
            data: bytes = answer.read(_MOST_BYTES + 1)
    except (OSError, urllib.error.HTTPError, ValueError):
        return None
    return data.decode("utf-8", "replace") if len(data) <= _MOST_BYTES else None
