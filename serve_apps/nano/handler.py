"""The worker on RunPod itself: ``python -m serve_apps.nano.handler``. One process, one engine, no Ray.

Settings come from the environment: ``S3_*`` as docs/runpod.md lists them, ``ROCKTOP_HOME`` for weights and downloads,
``ROCKTOP_CONFIG`` for a YAML file of ``ServeConfig`` (limits, hosts that may be fetched).
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from actors.content import ContentActor
from actors.pitch import PitchActor
from actors.threads import share, use_threads
from actors.turns import Turns
from actors.voice_cache import VoiceCache
from rocktop_ray import paths
from rocktop_ray.engine import pick_device
from rocktop_ray.errors import RocktopError, SettingsError, storage_errors
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.voices.open import Voice
from serve_apps.config import ServeConfig
from serve_apps.conversions import LocalConversions
from serve_apps.gateway.intake import fetch_policy
from serve_apps.ids import RequestIds
from serve_apps.nano.bucket import ResultBucket
from serve_apps.nano.kept import KEEP_SECONDS
from serve_apps.nano.worker import NanoWorker, with_audio
from serve_apps.observe.logs import configure_logging
from serve_apps.orders import VoiceRef
from serve_apps.spool import RESULTS, TAKES, Spool
from serve_apps.stages import LocalStages, StagedConverters
from serve_apps.voices import VoiceShelf

_MISSING = "the RunPod worker needs the package runpod: pip install 'runpod>=1.7'\n"


@dataclass(frozen=True)
class Handler:
    """What stays between jobs: the engine with its voices, the caches."""

    worker: NanoWorker
    spool: Spool
    ids: RequestIds

    @classmethod
    def build(cls, config: ServeConfig) -> Handler:
        """Everything ready but voices, which jobs bring. Raises RocktopError."""
        ResultBucket.from_environment(config.nano.link_seconds)  # half set up: better now than at every job
        use_threads(threads := config.threads or share(1))
        device, policy = pick_device(config.device), fetch_policy(config.fetch)
        spool = Spool.open(config.store or str(paths.home() / "runpod"))
        if config.store is None:
            _sweep(spool)
        cache, shelf = ContentCache(config.cache_folder, config.fetch.cache_bytes), VoiceShelf.open(config)

        def open_(ref: VoiceRef) -> Voice:
            return shelf.open_voice(ref, device, cache, policy)

        voices = VoiceCache(open_, config.voices.max_loaded)
        stages = LocalStages(ContentActor(device), PitchActor(device), voices, Turns(threads))
        worker = NanoWorker(
            LocalConversions(StagedConverters(stages), spool),
            spool,
            cache,
            shelf,
            policy,
            bucket=lambda: ResultBucket.from_environment(config.nano.link_seconds),
            max_seconds=config.limits.take_seconds,
        )
        return cls(worker, spool, RequestIds())

    async def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a job: v1's body, of success or failure."""
        id = re.sub(r"[^A-Za-z0-9_-]", "-", str(job.get("id", "")))[:48] or "job"
        outcome = await self.worker.run(
            job.get("input"), id, lambda _: None, request_id=self.ids.new(), received_at=time.time()
        )
        try:
            return await asyncio.to_thread(with_audio, self.spool, outcome)
        finally:
            if outcome.audio is not None:
                await asyncio.to_thread(self.spool.remove, outcome.audio)


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    """RunPod's entry: ``{"id", "input"}`` -> the reply. ``refresh_worker`` in it lets RunPod replace this worker."""
    return await _handler().run(job)


def main() -> int:
    """Start the worker loop of RunPod's SDK, or what its options ask for (``--test_input``, ``--rp_serve_api``)."""
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")  # below, the SDK logs replies with their signed links
    try:
        import runpod
    except ModuleNotFoundError:
        sys.stderr.write(_MISSING)
        return 69
    configure_logging()
    try:
        _handler()
    except RocktopError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    runpod.serverless.start({"handler": handler})
    return 0


@cache
def _handler() -> Handler:
    return Handler.build(_config())


def _config() -> ServeConfig:
    """Raises SettingsError, StorageError."""
    place = os.environ.get("ROCKTOP_CONFIG", "").strip()
    if not place:
        return ServeConfig()
    with storage_errors(place, "read"):
        text = Path(place).read_text()
    try:
        return ServeConfig.model_validate(yaml.safe_load(text) or {})
    except (yaml.YAMLError, ValidationError) as error:
        raise SettingsError(f"{place} is not a configuration: {error}") from error


def _sweep(spool: Spool) -> None:
    """Remove what killed workers left. Raises StorageError."""
    spool.sweep_parts(KEEP_SECONDS)
    for folder in (TAKES, RESULTS):
        for found in list(spool.store.list(f"{folder}/")):
            if found.modified < time.time() - KEEP_SECONDS:
                spool.store.delete(found.key)


if __name__ == "__main__":
    sys.exit(main())
