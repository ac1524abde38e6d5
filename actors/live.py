"""The voices of one process, live: each put together once and shared by its streams."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Protocol

from actors.content import ContentActor
from actors.pitch import PitchActor
from actors.voice_cache import VoiceCache
from rocktop_ray.live.converter import LiveConverter
from rocktop_ray.live.far_ears import EarsFacts, EarsPlan, FarEars, Hear, Heard
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.parts import LISTENER, LiveParts, exact_parts, live_pitch
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.voices.open import Voice

_PATIENCE = 0.75
"""Share of a hop after which others are asked to hear what was not answered. There is some slack beyond the hop."""


class EarsElsewhere(Protocol):
    """Ears of other processes, e.g. ``serve_apps.live.transport.ears_lines.EarsLines``."""

    def open(self, plan: EarsPlan) -> EarsFacts:
        """Have them loaded. Blocks. Raises RocktopError."""
        ...

    def hear(self, call: Hear, patience: float) -> Heard:
        """A hop of some streams; others are asked after ``patience`` seconds. Raises RocktopError."""
        ...


@dataclass(frozen=True)
class LiveVoice:
    """A voice that streams."""

    converter: LiveConverter
    defaults: ConvertSettings
    """The voice's own settings."""


class LiveActor:
    """Live converters by voice. ``ref`` names a voice as ``voices`` understands it. Safe in threads."""

    def __init__(
        self,
        voices: VoiceCache[Any],
        content: ContentActor,
        pitch: PitchActor,
        *,
        layout: LiveLayout | None = None,
        windows: LiveLayout | None = None,
        extractor: str | None = None,
        most: int = 4,
        elsewhere: EarsElsewhere | None = None,
    ) -> None:
        """
        Args:
            layout: how streams of exact voices are cut.
            windows: the same of the others.
            extractor: where voices that are not exact get their F0: see ``live_pitch``.
            most: voices that are kept, the longest unused goes first. A stream keeps its own as long as it lasts.
            elsewhere: hears in place of ``content``, ``pitch`` and listeners.
        """
        self._voices, self._content, self._pitch, self._extractor = voices, content, pitch, extractor
        self._layout, self._windows, self._most = layout, windows, most
        self._elsewhere = elsewhere
        self._guard = Lock()
        self._made: OrderedDict[str, Future[tuple[LiveVoice, ExitStack]]] = OrderedDict()

    def ready(self, ref: Any) -> LiveVoice | None:
        """The voice if it is there. Quick."""
        with self._guard:
            made = self._made.get(ref.id)
            if made is None or not made.done() or made.exception() is not None:
                return None
            self._made.move_to_end(ref.id)
            return made.result()[0]

    def open(self, ref: Any) -> LiveVoice:
        """The voice, put together if it is not there. Blocks; calls for one voice share the work.

        Raises SettingsError for a voice that has no streaming form, and RocktopError as opening it does.
        """
        with self._guard:
            made = self._made.get(ref.id)
            mine = made is None
            if made is None:
                made = self._made[ref.id] = Future()
        if mine:
            try:
                made.set_result(self._make(ref))
            except BaseException as error:
                with self._guard:
                    del self._made[ref.id]
                made.set_exception(error)
                raise
            self._trim()
        return made.result()[0]

    def _make(self, ref: Any) -> tuple[LiveVoice, ExitStack]:
        with ExitStack() as held:
            voice = held.enter_context(self._voices.lease(ref)).voice
            far = None if self._elsewhere is None else partial(self._far_ears, EarsPlan(), self._layout)
            layout, parts = self._layout, exact_parts(voice, far)
            if parts is None:
                layout, parts = self._windows, self._over_windows(voice)
            converter = LiveConverter(parts, layout, name=ref.id)
            return LiveVoice(converter, ConvertSettings.from_mapping(voice.info.defaults)), held.pop_all()

    def _over_windows(self, voice: Voice) -> LiveParts:
        """A voice that has no students, with the encoder that it was trained on."""
        spec, wanted = voice.model.spec, self._extractor or LISTENER
        if self._elsewhere is not None:
            layout = self._windows or LiveLayout()
            plan = EarsPlan(spec.content.name, spec.uses_f0, wanted if spec.uses_f0 else None, layout)
            return LiveParts(voice.model, voice.index, elsewhere=self._far_ears(plan, layout))
        extractor = live_pitch(wanted, lambda: self._pitch.extractor(wanted)) if spec.uses_f0 else None
        return LiveParts(voice.model, voice.index, self._content.encoder(spec.content.name), extractor)

    def _far_ears(self, plan: EarsPlan, layout: LiveLayout | None) -> FarEars:
        assert self._elsewhere is not None
        patience = _PATIENCE * (layout or LiveLayout()).hop / 100
        return FarEars(plan, self._elsewhere.open(plan), partial(self._elsewhere.hear, patience=patience))

    def _trim(self) -> None:
        with self._guard:
            done = [name for name, made in self._made.items() if made.done()]
            gone = [self._made.pop(name) for name in done[: max(0, len(done) - self._most)]]
        for made in gone:
            made.result()[1].close()
