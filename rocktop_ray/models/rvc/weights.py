"""Between the weights of a voice file and those of ``Synthesizer``: names, shapes, weight normalisation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.models.rvc import mrf
from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.layers import NormedConv1d, NormedConvTranspose1d
from rocktop_ray.models.rvc.synthesizer import Synthesizer, build

MAX_PARAMETERS = 300_000_000
"""A voice has about 30 million; a config that asks for more than this is refused."""

_POSTERIOR = "enc_q."
_PARAMETRIZED = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
_SHOWN = 5


def file_layout(config: SynthesizerConfig, *, training: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights in a file of this configuration; with ``training``, of a full checkpoint."""
    model = build(config, training=training)
    normed = _normed(model)
    layout: dict[str, tuple[int, ...]] = {}
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        stored = _stored_name(name, config)
        if name in normed:
            layout[stored + "_g"] = _gain_shape(shape)
            layout[stored + "_v"] = shape
        else:
            layout[stored] = shape
    return layout


def fold(state: Mapping[str, Tensor], model: Synthesizer) -> dict[str, Tensor]:
    """A file's weights -> float32 weights of ``model``, weight normalisation multiplied out.

    Takes ``weight_g``/``weight_v``, ``parametrizations.weight.original0``/``1`` or plain ``weight``, of any float type;
    the posterior encoder's are left out. Raises VoiceFormatError with a report of what does not fit.
    """
    config = model.config
    if sum(parameter.numel() for parameter in model.parameters()) > MAX_PARAMETERS:
        raise VoiceFormatError(f"the voice's config asks for more than {MAX_PARAMETERS:,} weights")
    given = {_our_name(name, config): tensor for name, tensor in state.items() if not name.startswith(_POSTERIOR)}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    normed = _normed(model)
    sources = {name: _sources(name, name in normed and name not in given) for name in expected}
    wanted = {
        source: _gain_shape(shape) if source.endswith("_g") else shape
        for name, shape in expected.items()
        for source in sources[name]
    }
    _check(given, wanted, config)
    folded = {name: _folded([given[source] for source in sources[name]]) for name in expected}
    broken = [_stored_name(name, config) for name, tensor in folded.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise VoiceFormatError(f"the voice's weights hold values that are not finite numbers: {_listed(broken)}")
    return folded


def _check(given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], config: SynthesizerConfig) -> None:
    problems = []
    missing = [_stored_name(name, config) for name in wanted if name not in given]
    unexpected = [_stored_name(name, config) for name in given if name not in wanted]
    if missing:
        problems.append(f"{len(missing)} of {len(wanted)} missing: {_listed(missing)}")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected: {_listed(unexpected)}")
    misshapen, unusable = [], []
    for name, shape in wanted.items():
        if name not in given:
            continue
        tensor = given[name]
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or not tensor.is_floating_point():
            unusable.append(_stored_name(name, config))
        elif tuple(tensor.shape) != shape:
            misshapen.append(f"{_stored_name(name, config)} is {tuple(tensor.shape)}, not {shape}")
    if misshapen:
        problems.append(f"{len(misshapen)} of another shape: {_listed(misshapen)}")
    if unusable:
        problems.append(f"{len(unusable)} not dense float tensors: {_listed(unusable)}")
    if problems:
        kind = f"{config.decoder}, {'F0' if config.uses_f0 else 'no F0'}, {config.content_dim}-wide units"
        raise VoiceFormatError(f"the voice's weights do not fit its config ({kind}): {'; '.join(problems)}")


def _folded(tensors: list[Tensor]) -> Tensor:
    tensors = [tensor.detach().float() for tensor in tensors]
    if len(tensors) == 1:
        return tensors[0]
    gain, direction = tensors
    return direction * (gain / torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True))


def _sources(name: str, normed: bool) -> list[str]:
    return [name + "_g", name + "_v"] if normed else [name]


def _gain_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *(1 for _ in shape[1:]))


def _normed(model: Synthesizer) -> set[str]:
    kinds = (NormedConv1d, NormedConvTranspose1d)
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, kinds)}


def _our_name(name: str, config: SynthesizerConfig) -> str:
    for theirs, ours in _PARAMETRIZED.items():
        if name.endswith(theirs):
            name = name.removesuffix(theirs) + ours
    return mrf.from_applio(name, len(config.resblock_kernel_sizes)) if config.decoder == "mrf-hifigan" else name


def _stored_name(name: str, config: SynthesizerConfig) -> str:
    return mrf.to_applio(name, len(config.resblock_kernel_sizes)) if config.decoder == "mrf-hifigan" else name


def _listed(items: Iterable[str]) -> str:
    shown = [*items]
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
