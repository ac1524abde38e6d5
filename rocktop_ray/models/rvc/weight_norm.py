"""Weight normalisation while training (Salimans and Kingma 2016), and the names that checkpoints give to weights.

A network for conversion holds plain weights. In training each normalised weight is a gain and a direction, stored as
``weight_g`` and ``weight_v``: the names of RVC's ``G_*.pth`` and ``D_*.pth``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.models.rvc import mrf
from rocktop_ray.models.rvc.layers import NormedConv1d, NormedConv2d, NormedConvTranspose1d
from rocktop_ray.models.rvc.synthesizer import Synthesizer

_PARAMETRIZED = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
_GROUPS = {
    "v1": ("enc_p", "dec", "enc_q", "flow", "emb_g"),
    "v2": ("dec", "enc_q", "flow", "emb_g", "enc_p"),
}
_RANKS = {
    name: rank
    for names in (
        ("m_source", "noise_convs", "conv_pre", "ups", "resblocks", "conv_post", "cond"),
        ("in_layers", "res_skip_layers", "cond_layer"),
    )
    for rank, name in enumerate(names)
}
"""Where the files' order of layers is another than that of our modules."""
_SHOWN = 4


def add_weight_norm(model: nn.Module) -> None:
    """Split each weight that files store normalised into gain and direction, both to be trained."""
    for module in list(model.modules()):
        if isinstance(module, NormedConv1d | NormedConvTranspose1d | NormedConv2d):
            parametrizations.weight_norm(module)


def weights_by_file_name(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of a network with ``add_weight_norm`` by the names of RVC's files.

    They are in the order of those files, which is that of the optimizer states in them. A synthesizer's follows its
    content dimension: RVC's v2 classes define the prior encoder last.
    """
    named = {_legacy(name): parameter for name, parameter in model.named_parameters()}
    if not isinstance(model, Synthesizer):
        return named
    return _synthesizer_weights(model, named, "v1" if model.config.content_dim == 256 else "v2")


def other_order(model: nn.Module) -> dict[str, nn.Parameter]:
    """As ``weights_by_file_name``, in the order of the other writers of v2 checkpoints (Applio, older RVC)."""
    named = {_legacy(name): parameter for name, parameter in model.named_parameters()}
    return _synthesizer_weights(model, named, "v1") if isinstance(model, Synthesizer) else named


def state_by_file_name(model: nn.Module) -> dict[str, Tensor]:
    """The weights themselves, detached, not copied."""
    return {name: parameter.detach() for name, parameter in weights_by_file_name(model).items()}


def load_by_file_name(
    model: nn.Module, state: Mapping[str, Tensor], source: str, *, optional: tuple[str, ...] = ()
) -> list[str]:
    """Copy ``state`` into a network with ``add_weight_norm``; returns the names that it does not hold.

    Every weight must be there and fit, but for those that begin with one of ``optional``, which keep their values where
    ``state`` lacks them. Nothing is changed unless all fits. Raises VoiceFormatError with a report that begins with
    ``source``.
    """
    given = {_legacy(str(name)): tensor for name, tensor in state.items()}
    wanted = weights_by_file_name(model)
    missing = [name for name in wanted if name not in given]
    lacking = [name for name in missing if not name.startswith(optional)] if optional else missing
    unknown = [name for name in given if name not in wanted]
    misshapen, broken = [], []
    for name, parameter in wanted.items():
        tensor = given.get(name)
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            broken.append(name)
        elif tensor.shape != parameter.shape:
            misshapen.append(f"{name} is {list(tensor.shape)}, expected {list(parameter.shape)}")
        elif not bool(tensor.isfinite().all()):
            broken.append(name)
    problems = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for names, what in (
            (lacking, f"of {len(wanted)} weights are missing"),
            (unknown, "are not expected"),
            (misshapen, "have another shape"),
            (broken, "are not finite float tensors"),
        )
        if names
    ]
    if problems:
        raise VoiceFormatError(f"{source} does not fit this network: {'; '.join(problems)}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if name in given:
                parameter.copy_(given[name])
    return missing


def _synthesizer_weights(
    model: Synthesizer, named: Mapping[str, nn.Parameter], version: str
) -> dict[str, nn.Parameter]:
    seen: dict[str, int] = {}

    def place(name: str) -> tuple[int, ...]:
        parts = name.split(".")
        ranks = [_GROUPS[version].index(parts[0])]
        for depth in range(1, len(parts)):
            prefix = ".".join(parts[: depth + 1])
            ranks.append(_RANKS.get(parts[depth], seen.setdefault(prefix, len(seen))))
        return tuple(ranks)

    ordered = sorted(named, key=place)
    if model.config.decoder != "mrf-hifigan":
        return {name: named[name] for name in ordered}
    blocks = len(model.config.resblock_kernel_sizes)
    return {mrf.to_applio(name, blocks): named[name] for name in ordered}


def _legacy(name: str) -> str:
    for new, old in _PARAMETRIZED.items():
        if name.endswith(new):
            return name.removesuffix(new) + old
    return name
