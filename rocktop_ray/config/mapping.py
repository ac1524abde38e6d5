"""Plain data to dataclasses and back: types are checked, unknown keys are refused."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rocktop_ray.errors import SettingsError

_T = TypeVar("_T")


def made(kind: type[_T], values: Any, place: str) -> _T:
    """A dataclass from a mapping that holds at least its fields without default; ``place`` is its name in messages.

    Raises SettingsError.
    """
    types_of = _known(kind, values, place)
    given = {name: _value(value, types_of[name], _join(place, name)) for name, value in values.items()}
    missing = [name for name in _required(kind) if name not in given]
    if missing:
        raise SettingsError(f"{place or 'the mapping'} lacks {', '.join(missing)}")
    return kind(**given)


def changed(base: _T, values: Any, place: str) -> _T:
    """A dataclass with the fields of a mapping replaced, in its parts too. Raises SettingsError."""
    types_of = _known(type(base), values, place)
    changes: dict[str, Any] = {}
    for name, value in values.items():
        now, where = getattr(base, name), _join(place, name)
        nested = is_dataclass(now) and not isinstance(now, type)
        changes[name] = changed(now, value, where) if nested else _value(value, types_of[name], where)
    return replace(base, **changes)  # type: ignore[type-var]


def _known(kind: Any, values: Any, place: str) -> dict[str, Any]:
    """Types of the fields of ``kind``; refuses keys that are none of them."""
    if not isinstance(values, Mapping):
        raise SettingsError(f"{place} must be a mapping of settings, not {str(values)[:40]!r}")
    types_of = get_type_hints(kind)
    names = [item.name for item in fields(kind)]
    unknown = [str(key)[:40] for key in values if key not in names]
    if unknown:
        raise SettingsError(
            f"unknown settings {', '.join(_join(place, key) for key in unknown)}: "
            f"{place or 'it'} has {', '.join(names)}"
        )
    return types_of


def _required(kind: Any) -> list[str]:
    return [item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING]


def _value(value: Any, kind: Any, place: str) -> Any:
    """``value`` as a ``kind``: numbers, texts, tuples, literals and dataclasses."""
    origin, choices = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return made(kind, value, place)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in choices:
            return None
        return _value(value, next(choice for choice in choices if choice is not type(None)), place)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(item, choices[0], place) for item in value)
    if origin is Literal and value in choices:
        return value
    if origin is Mapping and isinstance(value, Mapping):
        return dict(value)
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    expected = " or ".join(map(str, choices)) if origin is Literal else getattr(kind, "__name__", str(kind))
    raise SettingsError(f"{place} must be {expected}, not {str(value)[:40]!r}")


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def listed(value: Any) -> Any:
    """Tuples as lists, in mappings too: what JSON and YAML can say."""
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, tuple) else value
