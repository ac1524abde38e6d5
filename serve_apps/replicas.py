"""What the replicas that compute have in common: threads, logs, voices."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import ray
import torch
from ray import serve

from actors.threads import share, use_threads
from actors.voice_cache import VoiceCache
from rocktop_ray.engine import pick_device
from rocktop_ray.errors import RocktopError
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.tracking.registry import is_reference
from rocktop_ray.voices.open import Voice
from serve_apps.config import ServeConfig
from serve_apps.gateway.intake import fetch_policy
from serve_apps.observe.logs import configure_logging
from serve_apps.observe.meter import Meter
from serve_apps.observe.metrics import Metrics
from serve_apps.observe.recorders import recorder
from serve_apps.observe.watch import Watch
from serve_apps.orders import VoiceRef
from serve_apps.registered import bring
from serve_apps.voices import VoiceShelf

_log = logging.getLogger(__name__)


def computing_replicas(config: ServeConfig) -> int:
    """Processes that compute, at most, in all of the deployment."""
    if config.placement == "fused":
        return config.converter.most_replicas
    return sum(stage.most_replicas for stage in (config.content, config.pitch, config.acoustic, config.vocoder))


def threads_here(config: ServeConfig) -> int:
    """Torch threads of a replica: what is configured, or its share of the cores, replicas being spread over nodes."""
    if config.threads is not None:
        return config.threads
    nodes = sum(1 for node in ray.nodes() if node["Alive"]) if ray.is_initialized() else 1
    return share(-(-computing_replicas(config) // max(1, nodes)))


def prepare_process(config: ServeConfig) -> int:
    """Set up logs and threads of a replica's process; how many torch threads it has. Before anything is computed.

    It stands back behind live sessions, whose deadlines are short; while there are none this costs nothing.
    """
    configure_logging()
    if os.getpriority(os.PRIO_PROCESS, 0) < config.live.others_nice:
        os.setpriority(os.PRIO_PROCESS, 0, config.live.others_nice)
    threads = threads_here(config)
    use_threads(threads)
    return threads


def open_meter() -> Meter:
    """Whom the replicas tell what they measure."""
    return Metrics()


async def check_device(config: ServeConfig) -> None:
    """Raises what torch raises if this process can compute no more on its GPU, as after an error in a kernel: only a
    new process can then. On the processor it returns at once.
    """
    device = pick_device(config.device)
    if device != "cpu":
        await asyncio.to_thread(lambda: torch.ones(1, device=device).add_(1).item())


def open_voices(config: ServeConfig) -> tuple[VoiceShelf, VoiceCache[VoiceRef]]:
    """The shelf and the loaded voices of a replica."""
    shelf = VoiceShelf.open(config)
    cache = ContentCache(config.cache_folder, config.fetch.cache_bytes)
    policy, device = fetch_policy(config.fetch), pick_device(config.device)
    told = Metrics()

    def open_(ref: VoiceRef) -> Voice:
        began = time.perf_counter()
        voice = shelf.open_voice(ref, device, cache, policy)
        told.voice_opened(time.perf_counter() - began)
        return voice

    voices = VoiceCache(open_, config.voices.max_loaded)
    Watch(recorder(), cache=cache, voices=voices).start()
    return shelf, voices


def preload(config: ServeConfig, shelf: VoiceShelf, ready: Callable[[VoiceRef], Any]) -> list[str]:
    """Make the configured voices ready; their ids. One that cannot be is told of in the log: requests will say the
    same.
    """
    ids = []
    for name in config.voices.preload:
        try:
            ref = shelf.refer(bring(config, shelf, name) if is_reference(name) else name)
            ready(ref)
            ids.append(ref.id)
        except RocktopError as error:
            _log.warning("voice not preloaded", extra={"voice": name, "code": error.code, "reason": error.message})
    return ids


class VoiceRegister:
    """Tells Serve which voices this replica holds, so that it is sent their calls.

    Only ids go through Serve's own cache of models: it takes away what is in use, loads one at a time and on the event
    loop. ``VoiceCache`` holds the voices themselves.
    """

    def __init__(self, most: int, preloaded: list[str]) -> None:
        """most: voices held at once; preloaded: ids of those that are there from the start."""

        async def held(voice_id: str) -> str:
            return voice_id

        self._tell: Callable[[str], Awaitable[str]] = serve.multiplexed(max_num_models_per_replica=most)(held)
        self._untold = preloaded[-most:]

    async def uses(self, voice_id: str) -> None:
        """To be awaited with the id of every voice that is used."""
        await self._tell(voice_id)

    async def announce(self) -> None:
        """Tell of the preloaded ones, once: else all calls would go to the replica that got the first."""
        while self._untold:
            await self._tell(self._untold.pop(0))
