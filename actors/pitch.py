"""The pitch extractors of one process."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from actors.arrays import own
from rocktop_ray.engine import PREFERRED_EXTRACTORS, pick_device
from rocktop_ray.errors import ModelMissingError
from rocktop_ray.features.pitch.registry import build_pitch_extractor
from rocktop_ray.protocols import Array, PitchExtractor

BuildExtractor = Callable[..., PitchExtractor]
"""As ``build_pitch_extractor``: called with the name and ``device=``."""


class PitchActor:
    """Pitch extractors by name, each loaded at its first use and kept. Safe in threads."""

    def __init__(self, device: str = "auto", *, build: BuildExtractor = build_pitch_extractor) -> None:
        self._device, self._build = pick_device(device), build
        self._extractors: dict[str, PitchExtractor] = {}
        self._loading = Lock()

    def choose(self, name: str | None = None) -> str:
        """The extractor to use, ready after this: ``name``, or the first installed of ``PREFERRED_EXTRACTORS``.

        Raises SettingsError, ModelMissingError, VoiceFormatError.
        """
        return self.extractor(name).name

    def extractor(self, name: str | None = None) -> PitchExtractor:
        """The extractor itself, for streams; see ``choose``."""
        if name is not None:
            return self._extractor(name)
        for candidate in PREFERRED_EXTRACTORS:
            try:
                return self._extractor(candidate)
            except ModelMissingError:
                continue
        raise ModelMissingError(
            f"no pitch extractor is installed: run 'rocktop models fetch {PREFERRED_EXTRACTORS[-1]}'", stage="pitch"
        )

    def f0(self, name: str, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> F0 ``[samples // 160 + 1]`` in Hz, 0 = unvoiced. Raises AudioError."""
        return self._extractor(name).f0(own(audio))

    def _extractor(self, name: str) -> PitchExtractor:
        with self._loading:
            if name not in self._extractors:
                self._extractors[name] = self._build(name, device=self._device)
            return self._extractors[name]
