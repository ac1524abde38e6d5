"""RVC-Nano's worker over small networks: real fetching, real conversion and encoding, stages of little depth."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import soundfile
import torch
from http_server import Running, fixed
from stand_ins import LevelPitch, tone
from tiny_voices import tiny_config, tiny_file

from actors.content import ContentActor
from actors.pitch import PitchActor
from actors.turns import Turns
from actors.voice_cache import VoiceCache
from rocktop_ray.errors import ModelMissingError
from rocktop_ray.protocols import Array, ContentSpec
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.guarded_fetch import FetchPolicy
from rocktop_ray.voices.open import Voice
from serve_apps.config import ServeConfig
from serve_apps.conversions import LocalConversions
from serve_apps.nano.bucket import ResultBucket
from serve_apps.nano.worker import NanoWorker
from serve_apps.orders import VoiceRef
from serve_apps.spool import Spool
from serve_apps.stages import LocalStages, StagedConverters
from serve_apps.voices import VoiceShelf

REQUEST_ID = "0195db8a-7c3e-7abc-8def-1234567890ab"


class WaveEncoder:
    """As many numbers per 20 ms as the voice wants, from the samples there."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.spec = ContentSpec(name, 256)

    def encode(self, audio: Array) -> Array:
        count = (len(audio) - 400) // 320 + 1
        return audio[: count * 320].reshape(count, 320)[:, :256].astype(np.float32)


class Extractors:
    """Pitch extractors by name; ``installed`` says which there are."""

    def __init__(self, *installed: str) -> None:
        self.installed = set(installed)

    def __call__(self, name: str, device: str = "cpu") -> LevelPitch:
        if name not in self.installed:
            raise ModelMissingError(f"the weights {name!r} are not installed", stage="pitch")
        extractor = LevelPitch()
        extractor.name = name
        return extractor


@dataclass
class Parts:
    """What a deployment is made of."""

    config: ServeConfig
    spool: Spool
    cache: ContentCache
    shelf: VoiceShelf
    policy: FetchPolicy
    conversions: LocalConversions
    converted: list[str] = field(default_factory=list)
    """Sources of the orders that were carried out."""

    def worker(self, bucket: Callable[[], ResultBucket | None] = lambda: None, **changes: Any) -> NanoWorker:
        conversions = changes.pop("conversions", self.conversions)
        return NanoWorker(conversions, self.spool, self.cache, self.shelf, self.policy, bucket=bucket, **changes)

    def files(self) -> list[str]:
        """What lies in the spool."""
        return sorted(found.key for found in self.spool.store.list())


def parts(folder: Path, *installed: str, **config: Any) -> Parts:
    """``installed``: pitch extractors, FCPE if none are named. ``config``: sections of ``ServeConfig``."""
    made = ServeConfig(
        store=str(folder / "spool"),
        voices={"library": str(folder / "voices")},
        fetch={"trusted": ["127.0.0.1"], "cache": str(folder / "cache"), "seconds": 20},
        **config,
    )
    policy = FetchPolicy(trusted=("127.0.0.1",), total_seconds=20)
    cache, shelf, spool = ContentCache(made.cache_folder, 1 << 30), VoiceShelf.open(made), Spool.open(made.store_place)

    def open_(ref: VoiceRef) -> Voice:
        return shelf.open_voice(ref, "cpu", cache, policy)

    pitch = PitchActor("cpu", build=Extractors(*(installed or ("fcpe",))))
    stages = LocalStages(ContentActor("cpu", build=WaveEncoder), pitch, VoiceCache(open_, 2), Turns(1))
    found = Parts(made, spool, cache, shelf, policy, LocalConversions(StagedConverters(stages), spool))
    plain = found.conversions.carry_out

    def counting(order: Any, *rest: Any) -> Any:
        found.converted.append(order.source)
        return plain(order, *rest)

    found.conversions.carry_out = counting  # type: ignore[method-assign]
    return found


def wav(seconds: float = 1.0, rate: int = 44_100, channels: int = 1, format: str = "WAV", **how: Any) -> bytes:
    memory = io.BytesIO()
    soundfile.write(memory, np.repeat(tone(seconds, rate)[:, None], channels, axis=1), rate, format=format, **how)
    return memory.getvalue()


def voice(seed: int = 0, **changes: Any) -> bytes:
    """A small ``.pth``."""
    memory = io.BytesIO()
    torch.save(tiny_file(tiny_config(**changes), seed), memory)
    return memory.getvalue()


def index(vectors: int = 64, dim: int = 256) -> bytes:
    """A small ``.index``."""
    data = np.random.default_rng(0).standard_normal((vectors, dim)).astype(np.float32) * 0.1
    made = faiss.index_factory(dim, "IVF1,Flat")
    made.train(data)
    made.add(data)
    return faiss.serialize_index(made).tobytes()


def offer(files: Running) -> dict[str, str]:
    """Put a take, a voice and an index behind addresses; the input that names them."""
    files.answers |= {
        "/vocal.wav": fixed(wav(), ETag='"v"'),
        "/model.pth": fixed(voice(), ETag='"m"'),
        "/model.index": fixed(index(), ETag='"i"'),
    }
    return {"vocal_url": files.url("/vocal.wav"), "model_url": files.url("/model.pth")}
