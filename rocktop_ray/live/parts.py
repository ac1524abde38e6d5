"""What a live voice is put together from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from rocktop_ray.convert import Converter
from rocktop_ray.errors import ModelMissingError
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.live.ears import Ears, ListenerEars, WindowEars
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.models.listener import ListenerStream, PitchStream
from rocktop_ray.models.singer.live_net import LiveNet
from rocktop_ray.models.singer.voice import SingerVoice
from rocktop_ray.protocols import ContentEncoder, PitchExtractor, VoiceModel
from rocktop_ray.voices.names import BUNDLE
from rocktop_ray.voices.open import Voice
from rocktop_ray.voices.student_format import live_net_path, open_listener, open_live_net, open_pitch

LISTENER = "listener"
"""Its name as a source of F0."""


@dataclass(frozen=True)
class LiveParts:
    """A voice, and what hears for it: a listener, or an encoder with an extractor.

    Attributes:
        voice: the synthesizer.
        index: its retrieval index, if it has one.
        encoder: the content encoder that it was trained on; None where a listener hears.
        extractor: the pitch extractor, over windows, or the listener's pitch, frame by frame; None where a listener
            hears, or for a voice without F0.
        listener: hears units and F0 in place of both.
        live_net: the acoustic model in place of the voice's own.
        elsewhere: hears in place of all of them, in another process.
    """

    voice: VoiceModel
    index: RetrievalIndex | None = None
    encoder: ContentEncoder | None = None
    extractor: PitchExtractor | PitchStream | None = None
    listener: ListenerStream | None = None
    live_net: LiveNet | None = None
    elsewhere: Ears | None = None

    @classmethod
    def of(cls, parts: LiveParts | Converter) -> LiveParts:
        """The same, or those of an offline converter."""
        if isinstance(parts, LiveParts):
            return parts
        return cls(parts.voice, parts.index, parts.encoder, parts.extractor)

    def ears(self, layout: LiveLayout) -> Ears:
        """Who hears. Raises ModelMissingError if nobody does."""
        if self.elsewhere is not None:
            return self.elsewhere
        if self.listener is not None:
            return ListenerEars(self.listener)
        if self.encoder is None:
            raise ModelMissingError("a live voice needs a content encoder or a listener", stage="content")
        return WindowEars(self.encoder, self.extractor if self.voice.spec.uses_f0 else None, layout)


def live_pitch(name: str | None, extractor: Callable[[], PitchExtractor]) -> PitchExtractor | PitchStream:
    """Where F0 comes from in streams of a voice with an encoder: ``extractor()`` for the name of a pitch extractor.

    None and ``listener`` are the pitch of the package's listener, which computes each frame once. Raises
    ModelMissingError or SettingsError as ``extractor`` does.
    """
    return _pitch() if name in (None, LISTENER) else extractor()


@cache
def _pitch() -> PitchStream:
    return open_pitch()


def exact_parts(voice: Voice, elsewhere: Callable[[], Ears] | None = None) -> LiveParts | None:
    """A voice with students of its own, which need no other models; None for a voice that has none.

    Today that is the bundle. elsewhere: opens the ears in place of the listener. Raises VoiceFormatError for students
    that cannot be read, and what ``elsewhere`` raises.
    """
    model = voice.model
    if voice.name != BUNDLE or not isinstance(model, SingerVoice) or not live_net_path().is_file():
        return None
    if elsewhere is not None:
        return LiveParts(model, voice.index, live_net=open_live_net(), elsewhere=elsewhere())
    return LiveParts(model, voice.index, listener=open_listener(), live_net=open_live_net())
