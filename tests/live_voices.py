"""Very small voices that stream, for tests of who computes live sessions."""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
from stand_ins import LevelEncoder, LoudPitch
from tiny_voices import tiny_config, tiny_state

from actors.live import LiveVoice
from rocktop_ray.convert import Converter
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.stream import LiveStream
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings
from serve_apps.live.engine import Feed, Piece
from serve_apps.orders import VoiceRef

LAYOUT = LiveLayout(hop=4, ahead=2, left=20, acoustic_left=20, pitch_left=4)
RATE = 44_100


@cache
def tiny_converter(name: str) -> LiveConverter:
    shape = {"sample_rate": 40_000, "upsample_rates": (10, 10, 4), "upsample_kernel_sizes": (20, 20, 8)}
    config = tiny_config(content_dim=1, **shape)
    voice = RvcVoice(config, tiny_state(config, seed=sum(name.encode())), content_name="level")
    return LiveConverter(Converter(LevelEncoder(), LoudPitch(), voice), LAYOUT, name=name)


class TinyVoices:
    """A ``local.Voices``."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self._guard = threading.Lock()

    def ready(self, ref: VoiceRef) -> LiveVoice | None:
        return self._voice(ref) if ref.id in self.opened else None

    def open(self, ref: VoiceRef) -> LiveVoice:
        self.opened.append(ref.id)
        return self._voice(ref)

    def _voice(self, ref: VoiceRef) -> LiveVoice:
        with self._guard:  # one for all: those who are fed together share it
            return LiveVoice(tiny_converter(ref.id), ConvertSettings(key=1.0))


def take(seconds: float, seed: int = 0, rate: int = RATE) -> Array:
    at = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.02, len(at))
    return (0.3 * np.sin(2 * np.pi * (180 + 20 * seed) * at) + noise).astype(np.float32)


def cut(audio: Array, *sizes: int) -> list[Array]:
    """Blocks of these sizes in turn."""
    blocks, start = [], 0
    while start < len(audio):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(audio[start : start + size])
        start += size
    return blocks


def feeds(session: str, voice: str, blocks: list[Array], *, at_once: int = 1, live: bool = True) -> list[Feed]:
    """Feeds of ``at_once`` pieces each, which all want the state."""
    made = []
    for seq in range(0, len(blocks), at_once):
        pieces = tuple(Piece(block, ConvertSettings()) for block in blocks[seq : seq + at_once])
        made.append(Feed(session, VoiceRef(voice, voice), RATE, 1, seq, pieces, None, True, live))
    return made


def whole(voice: str, blocks: list[Array]) -> Array:
    """What the library gives for a stream in these blocks."""
    stream = LiveStream(tiny_converter(voice), ConvertSettings(), rate=RATE)
    return np.concatenate([stream.feed(block) for block in blocks])
