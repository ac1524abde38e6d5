"""What the graph costs: the same take by the library, by a call of the Converter deployment, and over HTTP.

The three take turns, so that a machine that drifts drifts for all; what counts is the median of the differences within
a round.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.serve.running import Service
from rocktop_ray.audio.formats import Output, check_output
from rocktop_ray.engine import build_engine
from rocktop_ray.takes import convert_file
from serve_apps.config import ServeConfig
from serve_apps.dispatch import ServeConversions
from serve_apps.orders import Finished, Order
from serve_apps.spool import RESULTS, TAKES, Spool
from serve_apps.voices import VoiceShelf

WAYS = ("library", "handle", "http")


@dataclass(frozen=True)
class Overhead:
    """Seconds of each round by way, and whether all ways gave the same bytes."""

    rounds: list[dict[str, float]]
    same_bytes: bool

    def typical(self, way: str) -> float:
        """Median of a way's seconds."""
        return median(round_[way] for round_ in self.rounds)

    def more(self, way: str) -> float:
        """Median of what a way took more than the library in the same round."""
        return median(round_[way] - round_["library"] for round_ in self.rounds)

    def quartiles(self, way: str) -> tuple[float, float]:
        """Of the same differences."""
        found = sorted(round_[way] - round_["library"] for round_ in self.rounds)
        return found[len(found) // 4], found[(3 * len(found)) // 4]


def measure(service: Service, config: ServeConfig, take: Path, threads: int, rounds: int) -> Overhead:
    """``rounds`` after two that do not count."""
    import torch

    torch.set_num_threads(threads)
    output = check_output("flac", 48_000)
    engine = build_engine("bundle")
    target = take.with_suffix(".out.flac")
    spool = Spool.open(config.store_place)
    voice = VoiceShelf.open(config).refer("bundle")
    graph = ServeConversions(service.converter)
    digests: set[str] = set()

    async def all_rounds() -> list[dict[str, float]]:
        found = []
        async with httpx.AsyncClient(base_url=service.url, timeout=None, trust_env=False) as client:
            for number in range(rounds + 2):
                spent: dict[str, float] = {}
                turn = WAYS[number % 3 :] + WAYS[: number % 3]
                for way in turn:
                    began = time.perf_counter()
                    if way == "library":
                        convert_file(engine.converter, take, target, output=output)
                        data = target.read_bytes()
                    elif way == "handle":
                        data = await _by_handle(graph, spool, take, voice, output)
                    else:
                        data = await _over_http(client, take)
                    spent[way] = time.perf_counter() - began
                    digests.add(hashlib.sha256(data).hexdigest())
                found.append(spent)
        return found[2:]

    return Overhead(asyncio.run(all_rounds()), len(digests) == 1)


async def _by_handle(graph: ServeConversions, spool: Spool, take: Path, voice: Any, output: Output) -> bytes:
    """As the gateway does it, the take laid into the spool included."""
    source, target = spool.new_key(TAKES, ".wav"), spool.new_key(RESULTS, ".flac")
    with spool.writing(source) as path:
        path.write_bytes(take.read_bytes())
    order = Order("bench", voice, source, output, target=target)
    async for event in graph.run(order):
        if isinstance(event, Finished):
            with spool.reading(target) as path:
                return path.read_bytes()
    raise RuntimeError("the order ended without a result")


async def _over_http(client: httpx.AsyncClient, take: Path) -> bytes:
    answer = await client.post("/v1/convert", files={"take": (take.name, take.read_bytes())}, data={"format": "flac"})
    answer.raise_for_status()
    return answer.content
