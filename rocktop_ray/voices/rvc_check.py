"""Whether weights fit a config, and a report that says what does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod

from torch import Tensor

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.weights import MAX_PARAMETERS, file_layout

_FAMILIES = 6
_SHAPES = 3


def check_weights(state: Mapping[str, Tensor], config: SynthesizerConfig, name: str) -> None:
    """Raise VoiceFormatError, with a report of one line, unless ``state`` has the names and shapes of ``config``.

    Names that are missing or not expected are counted by family (``dec.ups: 12``), since there may be hundreds.
    """
    expected = file_layout(config)
    if sum(prod(shape) for shape in expected.values()) > MAX_PARAMETERS:
        raise VoiceFormatError(f"{name}: its config asks for more than {MAX_PARAMETERS:,} weights")
    missing = [key for key in expected if key not in state]
    unknown = [key for key in state if key not in expected]
    shapes = [
        f"{key} is {list(state[key].shape)}, expected {list(shape)}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(expected)} weights are missing ({_families(missing)})")
    if unknown:
        problems.append(f"{len(unknown)} are not expected ({_families(unknown)})")
    if shapes:
        more = f" and {len(shapes) - _SHAPES} more" if len(shapes) > _SHAPES else ""
        problems.append(f"{len(shapes)} have another shape ({'; '.join(shapes[:_SHAPES])}{more})")
    if problems:
        raise VoiceFormatError(f"{name} does not fit its own config ({describe(config)}): {'; '.join(problems)}")
    broken = [
        key for key, tensor in state.items() if not tensor.is_floating_point() or not bool(tensor.isfinite().all())
    ]
    if broken:
        raise VoiceFormatError(
            f"{name}: {len(broken)} weights hold values that are not finite numbers ({_families(broken)})"
        )


def describe(config: SynthesizerConfig) -> str:
    """A config in a few words: ``48000 Hz, F0, units of 768, decoder hifigan``."""
    f0 = "F0" if config.uses_f0 else "no F0"
    return f"{config.sample_rate} Hz, {f0}, units of {config.content_dim}, decoder {config.decoder}"


def _families(keys: Iterable[str]) -> str:
    counts = Counter(".".join(part[:40] for part in key.split(".")[:2]) for key in keys)
    shown = [f"{family}: {count}" for family, count in counts.most_common(_FAMILIES)]
    return ", ".join(shown) + (", ..." if len(counts) > _FAMILIES else "")
