"""A trained generator as a voice file: RVC's and Applio's small ``.pth``, and our own ``.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rocktop_ray.models.rvc.weight_norm import state_by_file_name
from rocktop_ray.voices.rvc_format import CONTENT_NAMES, RvcFile, write_rvc
from train_loops.rvc.step import AdversarialStep

_POSTERIOR = "enc_q."
_MRF = "MRF HiFi-GAN"


def trained_voice(
    step: AdversarialStep,
    *,
    epochs: int,
    info: str = "",
    content_name: str = "",
    licence: str = "",
    training_data: str = "",
    extra: Mapping[str, Any] | None = None,
) -> RvcFile:
    """A copy of the generator's weights as they are now, without the posterior encoder, with what is known of them.

    Args:
        step: the run.
        epochs: epochs done; stands in ``info`` if that is empty, as RVC writes it.
        info: free text.
        content_name: content units that the voice sings; empty = RVC's of that width.
        licence: of the voice, e.g. an SPDX identifier.
        training_data: fingerprint of the dataset.
        extra: more keys for the file, e.g. Applio's ``epoch``, ``step``, ``author``.
    """
    recipe = step.recipe
    state = {name: tensor.cpu().clone() for name, tensor in state_by_file_name(step.generator).items()}
    more = dict(extra or {})
    if recipe.synthesizer.decoder == "mrf-hifigan":
        more.setdefault("vocoder", _MRF)
    dim = recipe.synthesizer.content_dim
    return RvcFile(
        config=recipe.synthesizer,
        state={name: tensor for name, tensor in state.items() if not name.startswith(_POSTERIOR)},
        version=recipe.version,
        content_name=content_name or CONTENT_NAMES.get(dim, f"units-{dim}"),
        info=info or f"{epochs}epoch",
        sr=f"{recipe.synthesizer.sample_rate // 1000}k",
        extra=more,
        licence=licence,
        training_data=training_data,
    )


def export_voice(voice: RvcFile, folder: str | Path, name: str) -> tuple[Path, Path]:
    """Write ``name.pth`` (float16) and ``name.safetensors`` (as trained) into a folder; returns both paths.

    Raises VoiceFormatError if a weight is too large for float16, or StorageError.
    """
    paths = (Path(folder) / f"{name}.pth", Path(folder) / f"{name}.safetensors")
    for path in paths:
        write_rvc(voice, path)
    return paths
