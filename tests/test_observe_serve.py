"""On a real Ray Serve: what replicas tell arrives at /metrics, and their logs are lines of JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve_cluster import PITCH, small_config, take_bytes

from serve_apps.observe.catalogue import BY_NAME

pytestmark = pytest.mark.xdist_group("ray")

SECONDS = 90.0
"""Ray brings values to its exporters every ten seconds."""


@pytest.fixture(scope="module")
def api(ray_cluster: int, ray_home: Path) -> Iterator[httpx.Client]:
    from ray import serve

    from serve_apps.app import build_app

    config = small_config(ray_home, placement="split", store=str(ray_home / "observed"))
    serve.run(build_app(config), name="observed", route_prefix="/")
    with httpx.Client(base_url=f"http://127.0.0.1:{ray_cluster}", timeout=120) as client:
        yield client
    serve.delete("observed")


Series = dict[str, list[tuple[dict[str, str], float]]]


def series(text: str) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("application", "observed") == "observed":
                found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def total(found: Series, name: str, **labels: str) -> float:
    return sum(value for given, value in found.get(name, []) if labels.items() <= given.items())


def test_what_a_conversion_does_is_told_by_every_stage_at_one_address(api: httpx.Client) -> None:
    fields = {"voice": "anna", "pitch": PITCH}
    assert api.post("/v1/convert", files={"take": ("a.wav", take_bytes())}, data=fields).status_code == 200
    assert api.post("/v1/convert", files={"take": ("a.wav", b"no audio" * 99)}, data=fields).status_code == 422
    deadline = time.monotonic() + SECONDS
    wanted = {"content", "pitch", "retrieval", "acoustic", "vocoder"}
    while True:  # each process tells when it is its turn
        found = series(api.get("/metrics").text)
        stages = {labels["stage"] for labels, _ in found.get("rocktop_stage_work_seconds_total", [])}
        whole = (
            stages == wanted
            and total(found, "rocktop_orders_total") >= 2
            and total(found, "rocktop_errors_total", fault="client") >= 1
            and total(found, "rocktop_batch_calls_count", stage="content", deployment="ContentEncoder") >= 1
            and total(found, "rocktop_http_requests_total", route="/v1/convert", status="200") >= 1
            and total(found, "rocktop_http_requests_total", route="/v1/convert", status="422") >= 1
            and total(found, "rocktop_exporters", state="answered") == 1
            and total(found, "rocktop_exporters", state="missing") == 0
            and any(name.startswith("ray_serve_deployment_replica_healthy") for name in found)
        )
        if whole or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert stages == wanted
    assert total(found, "rocktop_orders_total", outcome="done", deployment="Converter") == 1
    assert total(found, "rocktop_orders_total", outcome="failed") == 1
    assert total(found, "rocktop_errors_total", fault="client") == 1
    assert 0.59 < total(found, "rocktop_audio_seconds_total") < 0.61
    assert total(found, "rocktop_batch_calls_count", stage="content", deployment="ContentEncoder") >= 1
    assert total(found, "rocktop_http_requests_total", route="/v1/convert", status="422", deployment="Gateway") == 1
    assert total(found, "rocktop_exporters", state="answered") == 1
    assert total(found, "rocktop_exporters", state="missing") == 0
    assert any(name.startswith("ray_serve_deployment_replica_healthy") for name in found)
    ours = {name for name in found if name.startswith("rocktop_")}
    for name in ours:
        base = next((name.removesuffix(end) for end in ("_bucket", "_sum", "_count") if name.endswith(end)), name)
        assert name in BY_NAME or BY_NAME[base].kind == "histogram", name
    assert not any(name.startswith("ray_rocktop") for name in found)
