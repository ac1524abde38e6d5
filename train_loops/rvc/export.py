"""A trained generator as a voice file: RVC's and Applio's small ``.pth``, and our own ``.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rocktop_ray.config.training import ExportConfig
from rocktop_ray.models.rvc.config import CONTENT_DIMS
from rocktop_ray.models.rvc.weight_norm import state_by_file_name
from rocktop_ray.voices.rvc_format import CONTENT_NAMES, RvcFile
from train_loops.rvc.callbacks import ValidationResult
from train_loops.rvc.step import AdversarialStep

_POSTERIOR = "enc_q."
_MRF = "MRF HiFi-GAN"
_OWN_KEYS = ("score", "metrics")
"""What our own files say beyond the keys of Applio."""


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


def run_voice(
    step: AdversarialStep,
    steps: int,
    epochs: int,
    *,
    name: str,
    dataset: Mapping[str, Any],
    export: ExportConfig,
    judged: ValidationResult | None = None,
) -> RvcFile:
    """The weights as they are now, after ``steps`` and ``epochs``, with Applio's keys and what is known of them.

    ``dataset`` as in ``Facts``. With ``judged`` the file also says ``score`` and ``metrics``.
    """
    content = str(dataset["networks"]["encoder"])
    extra: dict[str, Any] = {
        "model_name": name,
        "epoch": epochs,
        "step": steps,
        "embedder_model": "contentvec" if content in CONTENT_NAMES.values() else content,
        "speakers_id": step.recipe.synthesizer.speakers,
        "vocoder": "HiFi-GAN" if step.recipe.synthesizer.decoder == "hifigan" else "MRF HiFi-GAN",
    }
    if export.author:
        extra["author"] = export.author
    if judged is not None:
        extra |= {"score": judged.score, "metrics": dict(judged.metrics)}
    return trained_voice(
        step,
        epochs=epochs,
        info=export.info,
        content_name=content,
        licence=export.licence,
        training_data=str(dataset["fingerprint"]),
        extra=extra,
    )


def plain_voice(voice: RvcFile) -> RvcFile:
    """The same with no keys but those of RVC and Applio, for their ``.pth``."""
    return replace(voice, extra={key: value for key, value in voice.extra.items() if key not in _OWN_KEYS})


def strange(voice: RvcFile) -> list[str]:
    """Why RVC, and Applio, cannot use the ``.pth`` of a voice; empty if they can."""
    config, reasons = voice.config, []
    if CONTENT_NAMES.get(config.content_dim) != voice.content_name or CONTENT_DIMS[voice.version] != config.content_dim:
        reasons.append(f"it sings {voice.content_name} units of {config.content_dim} numbers")
    dilations = 3 if config.resblock == "1" else 2
    if any(len(each) != dilations for each in config.resblock_dilation_sizes):
        reasons.append(f"their residual blocks have {dilations} dilations each")
    if config.decoder != "hifigan":
        reasons.append(f"only Applio has the decoder {config.decoder}")
    return reasons
