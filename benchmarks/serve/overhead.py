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

import httpx

from actors.threads import use_threads
from benchmarks.serve.running import Service
from rocktop_ray.audio.formats import Output, check_output
from rocktop_ray.convert import Converter
from rocktop_ray.engine import build_engine
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.takes import convert_file
from serve_apps.config import ServeConfig
from serve_apps.dispatch import ServeConversions
from serve_apps.orders import Finished, Order, VoiceRef
from serve_apps.spool import RESULTS, TAKES, Spool
from serve_apps.voices import VoiceShelf

WAYS = ("library", "handle", "http")


@dataclass(frozen=True)
class Overhead:
    """Seconds of each round by way, of them those spent in the stages, and the different results."""

    rounds: list[dict[str, float]]
    stages: list[dict[str, dict[str, float]]]
    digests: list[str]

    def typical(self, way: str) -> float:
        """Median of a way's seconds."""
        return median(round_[way] for round_ in self.rounds)

    def more(self, way: str) -> float:
        """Median of what a way took more than the library in the same round."""
        return median(self._differences(way))

    def quartiles(self, way: str) -> tuple[float, float]:
        """Of the same differences."""
        found = sorted(self._differences(way))
        return found[len(found) // 4], found[(3 * len(found)) // 4]

    def around(self, way: str) -> float:
        """Median of the seconds outside the stages."""
        return median(
            round_[way] - sum(stages[way].values()) for round_, stages in zip(self.rounds, self.stages, strict=True)
        )

    def stage(self, way: str, name: str) -> float:
        """Median of a stage's seconds."""
        return median(stages[way].get(name, 0.0) for stages in self.stages)

    def _differences(self, way: str) -> list[float]:
        return [round_[way] - round_["library"] for round_ in self.rounds]


def measure(service: Service, config: ServeConfig, take: Path, threads: int, rounds: int) -> Overhead:
    """``rounds`` after two that do not count. The threads of this process are set as those of a replica."""
    use_threads(threads)
    engine = build_engine("bundle")
    shelf = VoiceShelf.open(config)
    settings = ConvertSettings.from_mapping(dict(shelf.info("bundle").defaults))
    trial = _Trial(
        Converting(engine.converter, settings, check_output("flac", 48_000), take, take.with_suffix(".out.flac")),
        ServeConversions(service.converter),
        Spool.open(config.store_place),
        shelf.refer("bundle"),
    )
    return asyncio.run(trial.run(service.url, rounds))


@dataclass(frozen=True)
class Converting:
    """The conversion that is done again and again."""

    converter: Converter
    settings: ConvertSettings
    output: Output
    take: Path
    target: Path


@dataclass(frozen=True)
class _Trial:
    what: Converting
    graph: ServeConversions
    spool: Spool
    voice: VoiceRef

    async def run(self, url: str, rounds: int) -> Overhead:
        times, stages, digests = [], [], set()
        async with httpx.AsyncClient(base_url=url, timeout=None, trust_env=False) as client:
            for number in range(rounds + 2):
                spent, inside = {}, {}
                for way in WAYS[number % 3 :] + WAYS[: number % 3]:
                    began = time.perf_counter()
                    if way == "library":
                        data, inside[way] = self._by_library()
                    elif way == "handle":
                        data, inside[way] = await self._by_handle()
                    else:
                        data, inside[way] = await self._over_http(client), {}
                    spent[way] = time.perf_counter() - began
                    digests.add(hashlib.sha256(data).hexdigest())
                times.append(spent)
                stages.append(inside)
        return Overhead(times[2:], stages[2:], sorted(digests))

    def _by_library(self) -> tuple[bytes, dict[str, float]]:
        what = self.what
        done = convert_file(what.converter, what.take, what.target, what.settings, what.output)
        return what.target.read_bytes(), done.stages

    async def _by_handle(self) -> tuple[bytes, dict[str, float]]:
        """As the gateway does it, the take laid into the spool included."""
        source, target = self.spool.new_key(TAKES, ".wav"), self.spool.new_key(RESULTS, ".flac")
        with self.spool.writing(source) as path:
            path.write_bytes(self.what.take.read_bytes())
        order = Order("bench", self.voice, source, self.what.output, self.what.settings, target=target)
        async for event in self.graph.run(order):
            if isinstance(event, Finished):
                with self.spool.reading(target) as path:
                    return path.read_bytes(), event.report.facts["stages"]
        raise RuntimeError("the order ended without a result")

    async def _over_http(self, client: httpx.AsyncClient) -> bytes:
        take = self.what.take
        answer = await client.post(
            "/v1/convert", files={"take": (take.name, take.read_bytes())}, data={"format": "flac"}
        )
        answer.raise_for_status()
        return answer.content
