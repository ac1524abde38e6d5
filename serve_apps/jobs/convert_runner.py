"""The runner of conversions: take from the spool or from an address, through the stages, result to the spool."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.sources import UrlSource
from serve_apps.config import ServeConfig
from serve_apps.gateway.intake import fetch_policy
from serve_apps.jobs.melody import melody_bytes
from serve_apps.jobs.order_data import order_data, order_from
from serve_apps.jobs.protocol import Job, JobProgress
from serve_apps.orders import Advanced, Conversions, Finished, Order, Report, Started
from serve_apps.spool import RESULTS, TAKES, Spool

KIND = "convert"

Fetch = Callable[[str], AbstractContextManager[Path]]
"""A foreign address as a file that may be read while the block runs. Blocks. Raises FetchError, StorageError."""


def payload(job_id: str, order: Order, name: str, take_url: str | None = None) -> dict[str, Any]:
    """What a job is given; the result will lie in the spool under the job's name.

    Args:
        order: its ``source`` is the key of the take, or anything where there is a ``take_url``.
        name: what the client calls the take.
        take_url: where the take is fetched when the job's turn comes.
    """
    source = order.source if take_url is None else f"{TAKES}/{job_id}"
    order = replace(order, source=source, target=f"{RESULTS}/{job_id}{order.output.format.suffix}")
    return {"order": order_data(order), "name": name, "take_url": take_url, "files": [source]}


class ConvertRunner:
    """Implements ``protocol.Runner``. The same job gives the same bytes under the same key, however often it runs."""

    def __init__(self, conversions: Conversions, spool: Spool, fetch: Fetch) -> None:
        self._conversions, self._spool, self._fetch = conversions, spool, fetch

    async def __call__(self, job: Job, tell: Callable[[JobProgress], None]) -> dict[str, Any]:
        """See ``protocol.Runner``."""
        order = order_from(job.payload["order"])
        if job.payload["take_url"] is not None:
            tell(JobProgress(stage="download"))
            await asyncio.to_thread(self._bring, job.payload["take_url"], order.source)
        report = await self._convert(order, tell)
        melody = None
        if len(report.f0):
            melody = f"{RESULTS}/{job.id}.melody"
            await asyncio.to_thread(self._spool.put, melody, melody_bytes(report.f0_source, report.f0))
        return {
            **_finite({"stages": {}, **report.facts}),
            "seconds": report.seconds,
            "bytes": report.bytes,
            "media_type": report.media_type,
            "target": order.target,
            "melody": melody,
        }

    def _bring(self, url: str, key: str) -> None:
        """The take into the spool; a run that was cut short may have brought it already."""
        if self._spool.store.exists(key):
            return
        with self._fetch(url) as path, self._spool.writing(key) as target:
            shutil.copyfile(path, target)

    async def _convert(self, order: Order, tell: Callable[[JobProgress], None]) -> Report:
        seconds: float | None = None
        report: Report | None = None
        async with aclosing(self._conversions.run(order)) as events:
            async for event in events:
                match event:
                    case Started():
                        seconds = event.seconds
                        tell(JobProgress(0.0, seconds, "decode"))
                    case Advanced():
                        tell(JobProgress(event.seconds_done, seconds, event.stage))
                    case Finished():
                        report = event.report
        if report is None:
            raise RuntimeError("a conversion ended without a report")
        tell(JobProgress(report.seconds, report.seconds, "encode"))
        return report


def fetcher(config: ServeConfig, cache: ContentCache) -> Fetch:
    """Brings takes of foreign addresses through the cache, under the rules of the configuration."""
    policy = fetch_policy(config.fetch)

    @contextmanager
    def fetch(url: str) -> Iterator[Path]:
        with cache.get(UrlSource(url, policy, "audio")) as entry:
            yield entry.path

    return fetch


def _finite(data: Any) -> Any:
    """JSON has no infinity: the level of silence, in dB, becomes null."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
