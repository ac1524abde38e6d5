"""The content encoders of one process."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from actors.arrays import own
from rocktop_ray.engine import pick_device
from rocktop_ray.features.content.registry import build_content_encoder
from rocktop_ray.protocols import Array, ContentEncoder, ContentSpec

BuildEncoder = Callable[..., ContentEncoder]
"""As ``build_content_encoder``: called with the name and ``device=``."""


class ContentActor:
    """Content encoders by name, each loaded at its first use and kept. Safe in threads."""

    def __init__(
        self, device: str = "auto", *, preload: tuple[str, ...] = (), build: BuildEncoder = build_content_encoder
    ) -> None:
        """Raises as ``build_content_encoder`` for the names in ``preload``."""
        self._device, self._build = pick_device(device), build
        self._encoders: dict[str, ContentEncoder] = {}
        self._loading = Lock()
        for name in preload:
            self.spec(name)

    def spec(self, name: str) -> ContentSpec:
        """What the encoder ``name`` makes; it is ready after this. Raises SettingsError, ModelMissingError."""
        return self.encoder(name).spec

    def encode(self, name: str, audio: Array) -> Array:
        """Audio ``[samples]`` at 16 kHz -> units ``[frames, dim]`` at 50/s. Raises AudioError, and as ``spec``."""
        return self.encoder(name).encode(own(audio))

    def encoder(self, name: str) -> ContentEncoder:
        """The encoder itself, for streams. Raises as ``spec``."""
        with self._loading:
            if name not in self._encoders:
                self._encoders[name] = self._build(name, device=self._device)
            return self._encoders[name]
