"""A live voice by its name."""

from __future__ import annotations

from pathlib import Path

from rocktop_ray.engine import build_engine
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.parts import exact_parts
from rocktop_ray.voices.names import BUNDLE
from rocktop_ray.voices.open import open_voice

EXACT = LiveLayout(hop=4, ahead=0)
"""How streams of exact voices are cut: hops of 40 ms."""


def open_live(
    voice: str | Path,
    *,
    layout: LiveLayout | None = None,
    exact: bool | None = None,
    index: str | Path | None = None,
    pitch: str | None = None,
    library: Path | None = None,
) -> LiveConverter:
    """Everything that streams of one voice need.

    Args:
        voice: a name in the library, ``bundle``, or a voice file.
        layout: how streams are cut; None is ``EXACT`` where that is possible, else what ``LiveLayout`` says.
        exact: False uses encoder and extractor over windows, also for a voice that needs none.
        index: a retrieval index in place of the voice's own.
        pitch: name of the pitch extractor, where one is used.
        library: folder of the voice library; None is the user's own.

    Raises as ``build_engine`` does, and SettingsError for a voice that has no streaming form.
    """
    name = str(voice)
    if exact is not False and name == BUNDLE:
        parts = exact_parts(open_voice(voice, library=library, index=index))
        if parts is not None:
            return LiveConverter(parts, layout or EXACT, name=name)
    engine = build_engine(voice, index=index, pitch=pitch, library=library, device="cpu")
    return LiveConverter(engine.converter, layout, name=name)
