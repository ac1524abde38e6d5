"""Where measured values go: Ray's metrics, a registry of this process, or nowhere. Names are those of the catalogue."""

from __future__ import annotations

import importlib.util
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from serve_apps.observe.catalogue import BY_NAME, Metric

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OTHER = "other"
_MOST_SERIES = 400
_LONGEST_LABEL = 100


class Recorder(Protocol):
    """Takes values under names of the catalogue, from any thread. A name or label that is not there is a KeyError."""

    def add(self, name: str, by: float = 1.0, **labels: str) -> None:
        """A counter grows; nothing happens for 0."""
        ...

    def observe(self, name: str, value: float, **labels: str) -> None:
        """One value into a histogram."""
        ...

    def set(self, name: str, value: float, **labels: str) -> None:
        """A gauge stands at ``value``."""
        ...


class NoRecorder:
    """Keeps nothing."""

    def add(self, name: str, by: float = 1.0, **labels: str) -> None:
        """See ``Recorder``."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """See ``Recorder``."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """See ``Recorder``."""


class _Instruments:
    """Instruments made on first use, with a bound on the label values that each may see.

    The bound is a last guard: whatever a client sends, an exporter must not grow without end.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._made: dict[str, Any] = {}
        self._seen: dict[str, set[tuple[str, ...]]] = {}

    def add(self, name: str, by: float = 1.0, **labels: str) -> None:
        """See ``Recorder``."""
        if by > 0:
            self._add(self._instrument(name), by, self._labels(name, labels))

    def observe(self, name: str, value: float, **labels: str) -> None:
        """See ``Recorder``."""
        self._observe(self._instrument(name), max(0.0, value), self._labels(name, labels))

    def set(self, name: str, value: float, **labels: str) -> None:
        """See ``Recorder``."""
        self._set(self._instrument(name), value, self._labels(name, labels))

    def _instrument(self, name: str) -> Any:
        with self._guard:
            if name not in self._made:
                self._made[name] = self._make(BY_NAME[name])
            return self._made[name]

    def _labels(self, name: str, given: dict[str, str]) -> dict[str, str]:
        wanted = BY_NAME[name].labels
        if set(given) != set(wanted):
            raise KeyError(f"{name} has the labels {wanted}, not {tuple(given)}")
        if not wanted:
            return {}
        values = tuple(str(given[label])[:_LONGEST_LABEL] for label in wanted)
        with self._guard:
            seen = self._seen.setdefault(name, set())
            if values not in seen:
                if len(seen) >= _MOST_SERIES:
                    values = (OTHER,) * len(wanted)
                seen.add(values)
        return dict(zip(wanted, values, strict=True))

    def _make(self, metric: Metric) -> Any:
        raise NotImplementedError

    def _add(self, instrument: Any, by: float, labels: dict[str, str]) -> None:
        raise NotImplementedError

    def _observe(self, instrument: Any, value: float, labels: dict[str, str]) -> None:
        raise NotImplementedError

    def _set(self, instrument: Any, value: float, labels: dict[str, str]) -> None:
        raise NotImplementedError


class RayRecorder(_Instruments):
    """Ray's own metrics: seen at every node's exporter as ``ray_<name>``, in a replica with its deployment and id."""

    def _make(self, metric: Metric) -> Any:
        from ray.serve import metrics

        tag_keys: Any = metric.labels  # annotated there as a tuple of one
        if metric.kind == "histogram":
            return metrics.Histogram(metric.name, metric.meaning, list(metric.buckets), tag_keys)
        kind = metrics.Counter if metric.kind == "counter" else metrics.Gauge
        return kind(metric.name, metric.meaning, tag_keys)

    def _add(self, instrument: Any, by: float, labels: dict[str, str]) -> None:
        instrument.inc(by, labels)

    def _observe(self, instrument: Any, value: float, labels: dict[str, str]) -> None:
        instrument.observe(value, labels)

    def _set(self, instrument: Any, value: float, labels: dict[str, str]) -> None:
        instrument.set(value, labels)


class ProcessRecorder(_Instruments):
    """A Prometheus registry in this process, for use without Ray."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self.registry = registry

    def text(self) -> str:
        """What was told so far, in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry).decode()

    def _make(self, metric: Metric) -> Any:
        import prometheus_client

        if metric.kind == "histogram":
            return prometheus_client.Histogram(
                metric.name, metric.meaning, metric.labels, buckets=metric.buckets, registry=self.registry
            )
        kind = prometheus_client.Counter if metric.kind == "counter" else prometheus_client.Gauge
        return kind(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def _add(self, instrument: Any, by: float, labels: dict[str, str]) -> None:
        (instrument.labels(**labels) if labels else instrument).inc(by)

    def _observe(self, instrument: Any, value: float, labels: dict[str, str]) -> None:
        (instrument.labels(**labels) if labels else instrument).observe(value)

    def _set(self, instrument: Any, value: float, labels: dict[str, str]) -> None:
        (instrument.labels(**labels) if labels else instrument).set(value)


@cache
def process_recorder() -> Recorder:
    """The one of this process outside Ray; it keeps nothing where prometheus_client is not installed."""
    if importlib.util.find_spec("prometheus_client") is None:
        return NoRecorder()
    from prometheus_client import CollectorRegistry

    return ProcessRecorder(CollectorRegistry())


@cache
def _ray_recorder() -> Recorder:
    return RayRecorder()


def recorder() -> Recorder:
    """Ray's where this process belongs to a Ray, else the process' own."""
    ray = sys.modules.get("ray")
    return _ray_recorder() if ray is not None and ray.is_initialized() else process_recorder()
