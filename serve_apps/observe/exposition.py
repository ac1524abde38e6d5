"""Prometheus' text format 0.0.4: the answers of several exporters put together into one valid answer.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

OWN = "rocktop_"
RAY_OWN = "ray_rocktop_"
"""How Ray's exporter spells our names."""
SHOWN = (OWN, "ray_serve_")

_LABELS = r'(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*'
_SAMPLE = re.compile(
    rf"([a-zA-Z_:][\w:]*)(?:\{{({_LABELS})\}})? (NaN|[+-]Inf|[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(?: -?[0-9]+)?", re.ASCII
)
_NOISE = re.compile(r'(?:otel_scope_\w+|Version|SessionName|Component)="(?:[^"\\]|\\.)*",?', re.ASCII)
_NAME = re.compile(r"[a-zA-Z_:][\w:]*", re.ASCII)
_KINDS = frozenset({"counter", "gauge", "histogram", "summary", "untyped"})
_HELP = re.compile(r"\\(?![n\\])|[\x00-\x1f\x7f\x85\u2028\u2029]")
"""What a help text must not hold: lone backslashes, and what some readers take for the end of a line."""
_BIRTH = "_created"
"""Times of birth, which OpenMetrics knows and this format does not."""
_SUFFIXES = ("_bucket", "_sum", "_count")


@dataclass
class _Family:
    help: str = ""
    kind: str = ""
    samples: dict[str, str] = field(default_factory=dict)
    """Value by series."""


def merged(texts: Iterable[str], prefixes: tuple[str, ...] = SHOWN) -> str:
    """One answer from many: our names without Ray's prefix, families whole and once, each series once.

    What does not follow the format is left out, so that one broken exporter does not spoil the rest. Labels that say
    nothing to a reader (Ray's version, session, library) are dropped. Where two exporters know the same series, the
    first is taken. Families of other ``prefixes`` are left out.
    """
    families: dict[str, _Family] = {}
    for text in texts:
        _read(text, prefixes, families)
    lines = []
    for name in sorted(families):
        family = families[name]
        if not family.samples:
            continue
        if family.help:
            lines.append(f"# HELP {name} {family.help}")
        lines.append(f"# TYPE {name} {family.kind or 'untyped'}")
        lines += [f"{series} {value}" for series, value in family.samples.items()]
    return "\n".join(lines) + "\n" if lines else ""


def _read(text: str, prefixes: tuple[str, ...], families: dict[str, _Family]) -> None:
    kinds: dict[str, str] = {}
    for line in text.split("\n"):
        if line.startswith(RAY_OWN):
            line = line.removeprefix("ray_")
        if line.startswith("#"):
            _, word, name, rest = ((*line.split(" ", 3), "", "", ""))[:4]
            name = _ours(name)
            if word not in ("HELP", "TYPE") or not name.startswith(prefixes) or not _NAME.fullmatch(name):
                continue
            if name.endswith(_BIRTH):
                continue
            family = families.setdefault(name, _Family())
            if word == "HELP":
                family.help = family.help or _HELP.sub("", rest)
            elif rest in _KINDS:
                kinds[name] = rest
                family.kind = family.kind or rest
        elif line.startswith(prefixes) and (found := _SAMPLE.fullmatch(line)):
            name, labels, value = found[1], found[2] or "", found[3]
            if name.endswith(_BIRTH):
                continue
            labels = _NOISE.sub("", labels).rstrip(",")
            family = families.setdefault(_family_of(name, kinds), _Family())
            family.samples.setdefault(f"{name}{{{labels}}}" if labels else name, value)


def _ours(name: str) -> str:
    return name.removeprefix("ray_") if name.startswith(RAY_OWN) else name


def _family_of(name: str, kinds: dict[str, str]) -> str:
    """A histogram's samples belong to the family without their ending."""
    for suffix in _SUFFIXES:
        base = name.removesuffix(suffix)
        if base != name and kinds.get(base) in ("histogram", "summary"):
            return base
    return name
