"""Content encoders by name."""

from __future__ import annotations

from pathlib import Path

from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import ContentEncoder
from rocktop_ray.store.fetch import find

CONTENT_ENCODERS = ("hubert-v1", "hubert-v2", "whisper-base", "whisper-tiny.en")
"""Names that ``build_content_encoder`` knows; each is also the name in the encoder's ``ContentSpec``."""


def build_content_encoder(name: str, *, path: str | Path | None = None, device: str = "cpu") -> ContentEncoder:
    """The encoder ``name`` with the weights at ``path``, or else those of the models folder.

    ``path`` is, for the HuBERT encoders, a fairseq ``.pt``, a ``.safetensors`` or a transformers folder; for Whisper
    the safetensors file of ``rocktop models fetch``. Raises SettingsError on an unknown name, ModelMissingError when
    the weights are not installed, VoiceFormatError when the file does not fit, UnsafeFileError when it asks for code.
    """
    if name not in CONTENT_ENCODERS:
        raise SettingsError(
            f"no content encoder is called {name!r}; known: {', '.join(CONTENT_ENCODERS)}", stage="content"
        )
    if name.startswith("whisper-"):
        from rocktop_ray.features.content.whisper import WhisperEncoder

        return WhisperEncoder.load(path or find(f"{name}-encoder"), name=name, device=device)
    from rocktop_ray.features.content.hubert import HubertEncoder

    return HubertEncoder.load(path or find("hubert_base"), version="v1" if name == "hubert-v1" else "v2", device=device)
