"""Reading a JSON object that a stranger sent: sizes and depth are limited, every member is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any, NoReturn

from rocktop_ray.errors import ProtocolError

MOST_DEPTH = 8
"""Objects and lists inside each other."""
_NO_DEFAULT = object()


class Members:
    """The members of one object. Each reader raises ProtocolError for a member that is missing or wrong.

    A reader that is given a default takes a missing member, or null, for it.
    """

    def __init__(self, values: dict[str, Any], what: str) -> None:
        """what: how messages call the object."""
        self.values, self._what = values, what

    def only(self, known: Collection[str]) -> None:
        """Refuse members that nobody knows."""
        if unknown := sorted(set(self.values) - set(known)):
            names = ", ".join(repr(name[:40]) for name in unknown[:4])
            raise ProtocolError(f"{self._what} has unknown members {names}; known: {', '.join(sorted(known))}")

    def text(self, name: str, most: int, default: Any = _NO_DEFAULT, *, least: int = 1) -> Any:
        """A string of ``least`` to ``most`` characters, none of them a control character or half a surrogate pair."""
        value = self.values.get(name)
        if value is None and default is not _NO_DEFAULT:
            return default
        if not isinstance(value, str):
            self._wrong(name, "a string")
        if not least <= len(value) <= most:
            self._wrong(name, f"{least} to {most} characters long")
        if any(ord(letter) < 32 or 0xD800 <= ord(letter) <= 0xDFFF for letter in value):
            self._wrong(name, "plain text")
        return value

    def prose(self, name: str, default: str) -> str:
        """Any string, made fit for one line; a missing one is ``default``."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self._wrong(name, "a string")
        return "".join(letter if letter.isprintable() else " " for letter in value)

    def choice(self, name: str, choices: Collection[str], default: Any = _NO_DEFAULT) -> Any:
        """One of some words."""
        value = self.text(name, 64, default)
        if value not in choices:
            self._wrong(name, "one of " + ", ".join(choices))
        return value

    def whole(self, name: str, low: int, high: int, default: Any = _NO_DEFAULT) -> Any:
        """A whole number from ``low`` to ``high``."""
        value = self.values.get(name)
        if value is None and default is not _NO_DEFAULT:
            return default
        if isinstance(value, float) and value.is_integer():  # JSON has one kind of number: 1 and 1.0 are the same
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self._wrong(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: Any = _NO_DEFAULT) -> Any:
        """A finite number from ``low`` to ``high``."""
        value = self.values.get(name)
        if value is None and default is not _NO_DEFAULT:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self._wrong(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, default: Any = _NO_DEFAULT) -> Any:
        """True or false."""
        value = self.values.get(name)
        if value is None and default is not _NO_DEFAULT:
            return default
        if not isinstance(value, bool):
            self._wrong(name, "true or false")
        return value

    def inner(self, name: str) -> Members:
        """An object inside."""
        value = self.values.get(name)
        if not isinstance(value, dict):
            self._wrong(name, "an object")
        return Members(value, f"{self._what}: {name}")

    def plain(self, name: str, most: int, default: Any = _NO_DEFAULT) -> Any:
        """An object of at most ``most`` short strings, numbers and booleans; members that are null are left out."""
        value = self.values.get(name)
        if value is None and default is not _NO_DEFAULT:
            return default
        if not isinstance(value, dict) or len(value) > most:
            self._wrong(name, f"an object of at most {most} members")
        for key, entry in value.items():
            if not isinstance(entry, str | int | float | bool | None) or len(str(entry)) > 64 or len(key) > 64:
                self._wrong(name, "an object of short strings, numbers and booleans")
        inside = Members(value, f"{self._what}: {name}")
        for key, entry in value.items():
            if isinstance(entry, str):
                inside.text(key, 64, least=0)
        return {key: entry for key, entry in value.items() if entry is not None}

    def any(self, name: str) -> Any:
        """Whatever it is, None if it is missing."""
        return self.values.get(name)

    def _wrong(self, name: str, wanted: str) -> NoReturn:
        got = "it is missing" if name not in self.values else f"not {self.values[name]!r:.60}"
        raise ProtocolError(f"{self._what}: {name} must be {wanted}; {got}")


def read_object(text: str | bytes, most: int) -> dict[str, Any]:
    """A JSON object (RFC 8259) of at most ``most`` bytes, without doubled members, NaN or numbers beyond float64.

    Raises ProtocolError.
    """
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > most:
        raise ProtocolError(f"the message has {size} bytes; at most {most} are taken")
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_no_number, object_pairs_hook=_single)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the message is not JSON: {str(error)[:100]}") from error
    if not isinstance(value, dict):
        raise ProtocolError("the message is not a JSON object")
    level: list[Any] = [value]
    for _ in range(MOST_DEPTH + 1):
        lists = [entry.values() if isinstance(entry, dict) else entry for entry in level]
        level = [inner for entries in lists for inner in entries if isinstance(inner, dict | list)]
    if level:
        raise ProtocolError(f"the message is deeper than {MOST_DEPTH} levels")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a member is there twice")
    return values
