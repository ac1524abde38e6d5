"""Deployment ``Converter``: takes orders, carries them out. Fused, its own stages compute; split, those of others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from actors.content import ContentActor
from actors.pitch import PitchActor
from actors.turns import Turns
from rocktop_ray.convert import Converter
from serve_apps.config import ServeConfig
from serve_apps.conversions import LocalConversions
from serve_apps.orders import Event, Order, VoiceRef
from serve_apps.remote import RemoteStages
from serve_apps.replicas import VoiceRegister, check_device, open_meter, open_voices, preload, prepare_process
from serve_apps.spool import Spool
from serve_apps.stages import LocalStages, Role, StagedConverters, Stages


class ConverterReplica:
    """One replica of the deployment; ``config.converter.concurrency`` orders at once."""

    def __init__(self, config: ServeConfig, stages: Mapping[Role, Any] | None = None) -> None:
        """stages: handles of the stage deployments; None for fused placement."""
        self._config = config
        threads = prepare_process(config)
        meter = open_meter()
        self._register: VoiceRegister | None = None  # where stages are elsewhere, so are the voices
        if stages is None:
            shelf, voices = open_voices(config)
            content, pitch = ContentActor(config.device), PitchActor(config.device)
            here = LocalStages(content, pitch, voices, Turns(threads), meter)
            converters = StagedConverters(here)

            def ready(ref: VoiceRef) -> None:
                with converters.lease(ref, None):
                    pass

            self._register = VoiceRegister(config.voices.max_loaded, preload(config, shelf, ready))
        else:
            several = {role for role in _BY_VOICE if getattr(config, role).most_replicas > 1}
            elsewhere: Stages = RemoteStages(stages, by_voice=frozenset(several), meter=meter)
            # Each order asks for pitch and content units side by side, on two threads.
            ahead = ThreadPoolExecutor(2 * config.converter.concurrency, "ahead")
            converters = StagedConverters(elsewhere, partial(Converter, executor=ahead))
        spool = Spool.open(config.store_place)
        self._conversions = LocalConversions(converters, spool, config.converter.concurrency, meter)

    async def run(self, order: Order) -> AsyncGenerator[Event, None]:
        """See ``orders.Conversions``."""
        if self._register is not None:
            await self._register.uses(order.voice.id)
        async for event in self._conversions.run(order):
            yield event

    async def check_health(self) -> None:
        """Raises if the GPU is lost; Serve replaces such a replica, and one that does not answer."""
        if self._register is not None:
            await check_device(self._config)
            await self._register.announce()

    def __del__(self) -> None:
        self._conversions.close()


_BY_VOICE: tuple[Role, ...] = ("acoustic", "vocoder")
