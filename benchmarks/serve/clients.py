"""Clients that each send one take after another, all at once; none may be lost, refusals are obeyed and tried again."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

_MOST_TRIES = 100


@dataclass
class Crowd:
    """What ``clients`` at once met with.

    ``seconds`` are those of requests from their first try to the last byte, ``refused`` answers 429 or 503 with
    Retry-After, ``lost`` requests without their result, ``digests`` the different results.
    """

    clients: int
    audio_seconds: float
    whole: float = 0.0
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)

    @property
    def throughput(self) -> float:
        """Seconds of audio converted per second."""
        return len(self.seconds) * self.audio_seconds / self.whole

    def percentile(self, share: float) -> float:
        """Seconds within which ``share`` of the requests ended (the next higher of those measured)."""
        found = sorted(self.seconds)
        return found[min(len(found) - 1, int(share * len(found)))]


def measure(url: str, take: Path, audio_seconds: float, clients: int, requests: int) -> Crowd:
    """``requests`` in all, by ``clients`` at once."""
    crowd = Crowd(clients, audio_seconds)
    data = take.read_bytes()

    async def all_clients() -> None:
        left = iter(range(requests))
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False, limits=limits) as client:
            began = time.perf_counter()
            await asyncio.gather(*(_client(client, data, crowd, left) for _ in range(clients)))
            crowd.whole = time.perf_counter() - began

    asyncio.run(all_clients())
    return crowd


async def _client(client: httpx.AsyncClient, data: bytes, crowd: Crowd, left: object) -> None:
    for _ in left:  # type: ignore[attr-defined]
        began = time.perf_counter()
        for _ in range(_MOST_TRIES):
            try:
                answer = await client.post("/v1/convert", files={"take": ("t.wav", data)}, data={"format": "flac"})
            except httpx.TransportError as error:
                crowd.lost.append(repr(error))
                break
            if answer.status_code in (429, 503) and "retry-after" in answer.headers:
                crowd.refused += 1
                await asyncio.sleep(float(answer.headers["retry-after"]))
                continue
            if answer.status_code == 200:
                crowd.seconds.append(time.perf_counter() - began)
                crowd.digests.add(hashlib.sha256(answer.content).hexdigest())
            else:
                crowd.lost.append(f"{answer.status_code} {answer.text[:200]}")
            break
        else:
            crowd.lost.append(f"refused {_MOST_TRIES} times")
