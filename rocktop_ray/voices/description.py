"""How a file of ours describes its network: sizes and origin, as the string metadata of safetensors.

``config`` is the JSON of a dataclass of sizes. Each field of a dataclass of facts (``NetworkAbout``) has a key of its
name: a text as it is, anything else as JSON.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar, get_origin, get_type_hints

from rocktop_ray.models.about import NetworkAbout

Config = TypeVar("Config")
About = TypeVar("About", bound=NetworkAbout)
_RANGES: Mapping[str, tuple[float, float]] = {
    "units": (1, 4096), "content_dim": (1, 4096), "width": (1, 1024), "pitch_width": (1, 1024), "expansion": (1, 8),
    "kernel": (1, 31), "dilations": (1, 256), "pitch_dilations": (1, 256), "delays": (0, 20), "lag": (0, 20),
    "mean_rows": (1, 100_000), "speakers": (1, 4096), "core_dim": (1, 1024), "harmonic_bands": (1, 512),
    "noise_bands": (1, 512), "high_bands": (1, 128), "core_hz": (1000, 20_000),
}  # fmt: skip
"""Smallest and largest that a file may ask for, of every size (of each member where it is a list)."""
_MOST_MEMBERS = 64
_JSON_TYPES: Mapping[object, tuple[type, ...]] = {int: (int,), float: (int, float), dict: (dict,), tuple: (list,)}
"""What JSON has in the place of a field's type."""


def describe(config: Any, about: NetworkAbout) -> dict[str, str]:
    """The metadata that say the sizes (a dataclass) and the facts."""
    facts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in vars(about).items()}
    return {"config": json.dumps(dataclasses.asdict(config)), **facts}


def read_sizes(kind: type[Config], metadata: Mapping[str, str]) -> Config:
    """The sizes in ``metadata``, a dataclass of ``kind``. Raises KeyError, TypeError or ValueError."""
    given = json.loads(metadata["config"])
    if type(given) is not dict:
        raise TypeError("config is not an object")
    config = kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        _check(field.name, getattr(config, field.name), field.default)
    return config


def _check(name: str, value: Any, like: Any) -> None:
    """One size of the type of ``like``, within its range. Raises ValueError."""
    least, most = _RANGES[name]
    whole = isinstance(like, tuple)
    members = value if whole and type(value) is tuple else (value,)
    if len(members) > _MOST_MEMBERS or (whole and type(value) is not tuple):
        raise ValueError(f"{name} {value!r} is not a list of at most {_MOST_MEMBERS}")
    if name.endswith("dilations") and not members:
        raise ValueError(f"{name} {value!r} asks for no block")
    types = (int, float) if isinstance(like, float) else (int,)
    if not all(type(member) in types and least <= member <= most for member in members):
        raise ValueError(f"{name} {value!r} is not in {least} .. {most}")


def read_about(kind: type[About], metadata: Mapping[str, str]) -> About:
    """The facts in ``metadata``, every one of which must be there. Raises KeyError or ValueError."""
    return kind(**{name: _fact(name, metadata[name], hint) for name, hint in get_type_hints(kind).items()})


def _fact(name: str, text: str, hint: Any) -> Any:
    """One fact from its text. Raises ValueError."""
    if hint is str:
        return text
    value, made = json.loads(text), get_origin(hint) or hint
    if type(value) not in _JSON_TYPES[made]:
        raise ValueError(f"{name} {text[:80]!r} is not of the type {made.__name__}")
    return tuple(map(str, value)) if made is tuple else value
