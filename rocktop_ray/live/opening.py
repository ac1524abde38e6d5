"""A live voice put together by name, as ``engine`` does it for whole takes."""

from __future__ import annotations

from pathlib import Path

from rocktop_ray.engine import build_engine
from rocktop_ray.live.converter import LiveConverter, LiveLayout
from rocktop_ray.settings import ConvertSettings

_WINDOWED = 100.0
"""Milliseconds of a hop where nobody chose: shorter ones cost a CPU too much where stages run over windows."""


def open_live(
    voice: str,
    *,
    block: float | None = None,
    library: Path | None = None,
    index: Path | None = None,
    pitch: str | None = None,
) -> tuple[LiveConverter, ConvertSettings]:
    """The voice and its own settings.

    Args:
        voice: as for ``build_engine``; library, index, pitch too.
        block: milliseconds of a hop; rounded to a multiple of 20.

    Raises SettingsError for a voice that cannot stream, and as ``build_engine``.
    """
    engine = build_engine(voice, library=library, index=index, pitch=pitch, device="cpu")
    hop = 2 * max(1, min(50, round((block or _WINDOWED) / 20)))
    converter = LiveConverter(engine.converter, LiveLayout(hop=hop), name=engine.voice.name)
    return converter, ConvertSettings.from_mapping(engine.voice.info.defaults)
