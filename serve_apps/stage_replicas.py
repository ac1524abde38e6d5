"""The four deployments of split placement: one actor each, its calls computed in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ray import serve

from actors.acoustic import AcousticActor
from actors.content import ContentActor
from actors.pitch import PitchActor
from actors.turns import Turns, timed
from actors.vocoder import VocoderActor
from actors.voices import VoiceAbout
from rocktop_ray.errors import RocktopError
from rocktop_ray.protocols import ENCODER_RATE, FRAME_RATE, Array, ContentSpec, Noise
from serve_apps.config import BatchConfig, ServeConfig
from serve_apps.orders import VoiceRef
from serve_apps.replicas import VoiceRegister, check_device, open_meter, open_voices, preload, prepare_process
from serve_apps.voices import VoiceShelf

_CONTENT_RATE = 50
"""Content frames per second: the unit that batches are measured in."""


@dataclass(frozen=True)
class _Call:
    """A call that waits for its batch."""

    frames: int
    work: Callable[[], Array]
    arrived: float = field(default_factory=time.monotonic)


class _Replica:
    """A computing thread, threads that wait for files, and the meter."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._turns = Turns(prepare_process(config))
        self._files = ThreadPoolExecutor(8, "files")
        self._meter = open_meter()

    async def check_health(self) -> None:
        """Raises if the GPU is lost; Serve replaces such a replica, and one that does not answer."""
        await check_device(self._config)

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Something that may wait for files."""
        return await asyncio.get_running_loop().run_in_executor(self._files, work)

    async def _compute(self, stage: str, seconds: float, work: Callable[[], Array]) -> Array:
        """The work of a stage on ``seconds`` of audio, when its turn comes."""
        result, spent = await asyncio.wrap_future(self._turns.submit(partial(timed, work)))
        self._meter.stage(stage, spent, seconds)
        return result

    def _batching(self, stage: str, config: BatchConfig) -> Callable[[_Call], Awaitable[Array | RocktopError]]:
        """Calls of many requests joined to batches. One call of a batch is computed after the other, in one turn: so
        each gives the bytes that it would give alone, and a request that fails fails alone.
        """

        async def together(calls: list[_Call]) -> list[Array | RocktopError]:
            waited = [time.monotonic() - call.arrived for call in calls]
            work = partial(timed, partial(_one_by_one, calls))
            results, spent = await asyncio.wrap_future(self._turns.submit(work))
            frames = sum(call.frames for call in calls)
            self._meter.batch(stage, spent, frames, waited)
            self._meter.stage(stage, spent, frames / _CONTENT_RATE)
            return results

        def size(calls: list[_Call]) -> int:
            """Frames; a single call always fits, more than ``max_calls`` never do."""
            if len(calls) > config.max_calls:
                return config.max_frames + 1
            frames = sum(call.frames for call in calls)
            return min(frames, config.max_frames) if len(calls) == 1 else frames

        batched: Callable[[_Call], Awaitable[Array | RocktopError]] = serve.batch(
            max_batch_size=config.max_frames, batch_wait_timeout_s=config.wait_seconds, batch_size_fn=size
        )(together)
        return batched


def _one_by_one(calls: list[_Call]) -> list[Array | RocktopError]:
    results: list[Array | RocktopError] = []
    for call in calls:
        try:
            results.append(call.work())
        except RocktopError as error:
            results.append(error)
    return results


async def _result(outcome: Awaitable[Array | RocktopError]) -> Array:
    result = await outcome
    if isinstance(result, RocktopError):
        raise result
    return result


def _frames(audio: Array) -> int:
    return max(1, len(audio) * _CONTENT_RATE // ENCODER_RATE)


class ContentReplica(_Replica):
    """Deployment ``ContentEncoder``: see ``ContentActor``."""

    def __init__(self, config: ServeConfig) -> None:
        super().__init__(config)
        self._actor = ContentActor(config.device)
        self._batched = self._batching("content", config.batch)
        shelf = VoiceShelf.open(config)
        preload(config, shelf, lambda ref: self._actor.spec(shelf.info(ref.name).content_name))

    async def spec(self, name: str) -> ContentSpec:
        """See ``ContentActor.spec``."""
        spec: ContentSpec = await self._in_thread(partial(self._actor.spec, name))
        return spec

    async def encode(self, name: str, audio: Array) -> Array:
        """See ``ContentActor.encode``."""
        await self.spec(name)
        return await _result(self._batched(_Call(_frames(audio), partial(self._actor.encode, name, audio))))


class PitchReplica(_Replica):
    """Deployment ``PitchExtractor``: see ``PitchActor``."""

    def __init__(self, config: ServeConfig) -> None:
        super().__init__(config)
        self._actor = PitchActor(config.device)
        self._batched = self._batching("pitch", config.batch)
        shelf = VoiceShelf.open(config)
        preload(config, shelf, lambda ref: self._actor.choose(shelf.info(ref.name).default_extractor))

    async def choose(self, name: str | None) -> str:
        """See ``PitchActor.choose``."""
        chosen: str = await self._in_thread(partial(self._actor.choose, name))
        return chosen

    async def f0(self, name: str, audio: Array) -> Array:
        """See ``PitchActor.f0``."""
        await self.choose(name)
        return await _result(self._batched(_Call(_frames(audio), partial(self._actor.f0, name, audio))))


class AcousticReplica(_Replica):
    """Deployment ``AcousticModel``: see ``AcousticActor``."""

    def __init__(self, config: ServeConfig) -> None:
        super().__init__(config)
        shelf, voices = open_voices(config)
        self._actor = AcousticActor(voices)
        self._register = VoiceRegister(config.voices.max_loaded, preload(config, shelf, self._actor.about))

    async def check_health(self) -> None:
        """As of every replica; the first time tells which voices are here."""
        await super().check_health()
        await self._register.announce()

    async def about(self, ref: VoiceRef) -> tuple[VoiceAbout, float]:
        """See ``AcousticActor.about``."""
        await self._register.uses(ref.id)
        about: tuple[VoiceAbout, float] = await self._in_thread(partial(self._actor.about, ref))
        return about

    async def blend(self, ref: VoiceRef, units: Array, rate: float) -> Array:
        """See ``AcousticActor.blend``."""
        await self.about(ref)
        seconds = len(units) / _CONTENT_RATE
        return await self._compute("retrieval", seconds, partial(self._actor.blend, ref, units, rate))

    async def latent(
        self,
        ref: VoiceRef,
        units: Array,
        f0: Array | None,
        *,
        speaker: int,
        temperature: float,
        noise: Noise | None,
        frame_offset: int,
    ) -> Array:
        """See ``AcousticActor.latent``."""
        await self.about(ref)
        work = partial(
            self._actor.latent,
            ref,
            units,
            f0,
            speaker=speaker,
            temperature=temperature,
            noise=noise,
            frame_offset=frame_offset,
        )
        return await self._compute("acoustic", len(units) / FRAME_RATE, work)


class VocoderReplica(_Replica):
    """Deployment ``Vocoder``: see ``VocoderActor``."""

    def __init__(self, config: ServeConfig) -> None:
        super().__init__(config)
        shelf, voices = open_voices(config)
        self._actor = VocoderActor(voices)
        self._register = VoiceRegister(config.voices.max_loaded, preload(config, shelf, self._actor.prepare))

    async def check_health(self) -> None:
        """As of every replica; the first time tells which voices are here."""
        await super().check_health()
        await self._register.announce()

    async def wave(
        self,
        ref: VoiceRef,
        latent: Array,
        f0: Array | None,
        *,
        speaker: int,
        noise: Noise | None,
        frame_offset: int,
        start: int,
        stop: int,
    ) -> Array:
        """See ``VocoderActor.wave``."""
        await self._register.uses(ref.id)
        await self._in_thread(partial(self._actor.prepare, ref))
        work = partial(
            self._actor.wave,
            ref,
            latent,
            f0,
            speaker=speaker,
            noise=noise,
            frame_offset=frame_offset,
            start=start,
            stop=stop,
        )
        return await self._compute("vocoder", (stop - start) / FRAME_RATE, work)
