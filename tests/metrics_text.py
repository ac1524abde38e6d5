"""What a metrics answer says, as Prometheus' own reader understands it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def parsed(text):
    """Family name -> samples, by Prometheus' own reader."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text, name, **labels):
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]
