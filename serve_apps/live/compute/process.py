"""The engine of a process of ``Live``. A module of its own, as importing what it needs takes seconds."""

from __future__ import annotations

from actors.content import ContentActor
from actors.live import LiveActor
from actors.pitch import PitchActor
from actors.threads import use_threads
from rocktop_ray.live.layout import LiveLayout
from serve_apps.config import ServeConfig
from serve_apps.live.compute.local import LocalEngine
from serve_apps.live.transport.ears_lines import EarsLines
from serve_apps.replicas import open_voices
from serve_apps.voices import VoiceShelf


def build_engine(config: ServeConfig, name: str, lines: EarsLines | None = None) -> tuple[LocalEngine, VoiceShelf]:
    """The engine, and where its voices come from. Streams have no form for a GPU: it computes on the processor.

    lines: to those who hear for it; None: it hears itself.
    """
    live = config.live
    use_threads(1)  # of all but the one that computes, see rocktop_ray.live.threads
    shelf, voices = open_voices(config.model_copy(update={"device": "cpu"}))
    actor = LiveActor(
        voices,
        ContentActor("cpu"),
        PitchActor("cpu"),
        layout=LiveLayout(**live.layout.model_dump()),
        windows=LiveLayout(**live.windows.model_dump()),
        extractor=live.pitch,
        most=config.voices.max_loaded,
        elsewhere=lines,
    )
    return LocalEngine(actor, live, name=name, closing=None if lines is None else lines.close), shelf
