"""A live voice by its name."""

from __future__ import annotations

from pathlib import Path

from rocktop_ray.features.content.registry import build_content_encoder
from rocktop_ray.features.pitch.registry import build_pitch_extractor
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.parts import LiveParts, exact_parts, live_pitch
from rocktop_ray.live.threads import without_team
from rocktop_ray.voices.names import BUNDLE
from rocktop_ray.voices.open import open_voice

EXACT = LiveLayout(hop=4, ahead=0)
"""How streams of exact voices are cut: hops of 40 ms."""


@without_team()
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
        pitch: where F0 comes from if the voice is not exact: a pitch extractor over windows, or ``listener`` (None).
        library: folder of the voice library; None is the user's own.

    Raises VoiceNotFoundError, VoiceFormatError, ModelMissingError, and SettingsError for a voice that has no streaming
    form.
    """
    name = str(voice)
    if exact is not False and name == BUNDLE:
        parts = exact_parts(open_voice(voice, library=library, index=index))
        if parts is not None:
            return LiveConverter(parts, layout or EXACT, name=name)
    opened = open_voice(voice, library=library, index=index, device="cpu")
    spec, extractor = opened.model.spec, None
    if spec.uses_f0:
        extractor = live_pitch(pitch, lambda: build_pitch_extractor(str(pitch)))
    parts = LiveParts(opened.model, opened.index, build_content_encoder(spec.content.name), extractor)
    return LiveConverter(parts, layout, name=name)
