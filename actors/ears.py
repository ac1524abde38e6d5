"""The ears of one process, for streams whose other stages are elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from actors.content import ContentActor
from actors.pitch import PitchActor
from rocktop_ray.errors import SettingsError
from rocktop_ray.live.ears import Ears, ListenerEars, WindowEars
from rocktop_ray.live.far_ears import EarsFacts, EarsPlan, Hear, Heard, hear
from rocktop_ray.live.parts import live_pitch
from rocktop_ray.live.threads import limit_blas
from rocktop_ray.models.listener import ListenerStream
from rocktop_ray.voices.student_format import open_listener


class EarsActor:
    """Ears by plan, each loaded at its first use and kept. Safe in threads, if ``hear`` is called by one only."""

    def __init__(
        self, content: ContentActor, pitch: PitchActor, listener: Callable[[], ListenerStream] = open_listener
    ) -> None:
        """listener: opens the one that plans without an encoder mean."""
        self._content, self._pitch, self._listener = content, pitch, listener
        self._made: dict[EarsPlan, tuple[Ears, EarsFacts]] = {}
        self._loading = Lock()

    def ready(self, plan: EarsPlan) -> bool:
        """Whether they are there. Quick."""
        return plan in self._made

    def open(self, plan: EarsPlan) -> EarsFacts:
        """Load them if they are not there; what they are like. Raises SettingsError, ModelMissingError,
        VoiceFormatError.
        """
        with self._loading:
            if plan not in self._made:
                ears = self._make(plan)
                self._made[plan] = ears, EarsFacts.of(ears)
            return self._made[plan][1]

    def hear(self, call: Hear) -> Heard:
        """A hop of some streams. Raises as ``open``, StreamStateError, AudioError."""
        facts = self.open(call.plan) if call.plan not in self._made else self._made[call.plan][1]
        return hear(self._made[call.plan][0], facts.fresh, call)

    def _make(self, plan: EarsPlan) -> Ears:
        limit_blas()
        if plan.encoder is None:
            return ListenerEars(self._listener())
        if plan.layout is None:
            raise SettingsError("ears with an encoder need to know how the stream is cut")
        extractor = live_pitch(plan.extractor, lambda: self._pitch.extractor(plan.extractor)) if plan.f0 else None
        return WindowEars(self._content.encoder(plan.encoder), extractor, plan.layout)
