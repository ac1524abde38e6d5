"""Metrics: the table, the recorders, what the parts tell, the watch over cache and disks."""

import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from metrics_text import parsed, value
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from rocktop_ray.errors import AudioError, StorageError
from rocktop_ray.store.cache import ContentCache
from serve_apps.observe import catalogue
from serve_apps.observe.catalogue import BY_NAME, METRICS
from serve_apps.observe.exposition import merged
from serve_apps.observe.http import HttpMeter
from serve_apps.observe.meter import Meter
from serve_apps.observe.metrics import Metrics
from serve_apps.observe.recorders import NoRecorder, ProcessRecorder
from serve_apps.observe.watch import Watch

DOCS = Path(__file__).parent.parent / "docs" / "observe.md"


# the table


def test_names_follow_the_conventions_and_are_declared_once():
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"rocktop_[a-z_]+[a-z]", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (metric.kind == "histogram") == bool(metric.buckets)
        assert list(metric.buckets) == sorted(set(metric.buckets)) and all(bound > 0 for bound in metric.buckets)
        assert metric.meaning and metric.unit


def test_labels_are_none_that_ray_serve_adds_and_none_that_users_fill():
    for metric in METRICS:
        assert not {"deployment", "replica", "application", "le", "voice", "request_id", "key"} & set(metric.labels)


def test_the_documentation_shows_the_table():
    assert catalogue.markdown() in DOCS.read_text()


# recorders


def test_values_reach_the_registry():
    recorder = ProcessRecorder(CollectorRegistry())
    recorder.add("rocktop_orders_total", outcome="done")
    recorder.add("rocktop_orders_total", 2, outcome="done")
    recorder.observe("rocktop_stage_seconds", 0.3, stage="content")
    recorder.set("rocktop_voices_loaded", 3)
    text = recorder.text()
    assert value(text, "rocktop_orders_total", outcome="done") == 3
    assert value(text, "rocktop_stage_seconds_bucket", stage="content", le="0.2") == 0
    assert value(text, "rocktop_stage_seconds_bucket", stage="content", le="0.5") == 1
    assert value(text, "rocktop_voices_loaded") == 3


def test_a_counter_that_does_not_grow_is_not_told():
    recorder = ProcessRecorder(CollectorRegistry())
    recorder.add("rocktop_orders_total", 0, outcome="done")
    assert recorder.text() == ""


@pytest.mark.parametrize(
    "call",
    [
        lambda r: r.add("rocktop_unheard_of_total"),
        lambda r: r.add("rocktop_orders_total"),
        lambda r: r.add("rocktop_orders_total", voice="anna"),
        lambda r: r.set("rocktop_voices_loaded", 1, outcome="done"),
    ],
)
def test_names_and_labels_that_are_not_declared_are_a_fault_of_ours(call):
    with pytest.raises(KeyError):
        call(ProcessRecorder(CollectorRegistry()))


def test_series_are_bounded_whatever_clients_send():
    recorder = ProcessRecorder(CollectorRegistry())
    for number in range(3000):
        recorder.add("rocktop_http_requests_total", method="GET", route="/" + "x" * number, status="404")
    (family,) = (f for f in text_string_to_metric_families(recorder.text()) if f.name == "rocktop_http_requests")
    samples = [sample for sample in family.samples if sample.name.endswith("_total")]
    assert len(samples) <= 401
    assert sum(sample.value for sample in samples) == 3000
    assert max(len(sample.labels["route"]) for sample in samples) <= 100


def test_threads_lose_nothing():
    recorder = ProcessRecorder(CollectorRegistry())

    def work():
        for _ in range(500):
            recorder.add("rocktop_errors_total", code="invalid_audio", stage="audio", fault="client")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(recorder.text(), "rocktop_errors_total", code="invalid_audio") == 2000


def test_the_recorder_that_keeps_nothing_takes_everything():
    recorder = NoRecorder()
    recorder.add("rocktop_orders_total", outcome="done")
    recorder.observe("rocktop_stage_seconds", 1, stage="content")
    recorder.set("rocktop_jobs", 1, status="queued")


# what the parts tell


def told():
    recorder = ProcessRecorder(CollectorRegistry())
    return Metrics(recorder), recorder.text


def test_an_order_is_told_with_its_factor_and_its_error():
    metrics, text = told()
    meter: Meter = metrics
    meter.order_began(0.5)
    meter.order_ended("done", 6.0, audio_seconds=10.0, work_seconds=5.5)
    meter.order_ended("failed", 0.1, error=AudioError("not audio"))
    meter.order_ended("failed", 0.1, error=StorageError("full"))
    meter.order_ended("cancelled", 1.0)
    meter.stage("content", 1.0, 10.0)
    meter.batch("content", 1.0, 500, [0.001, 0.0])
    meter.retried("vocoder")
    shown = text()
    assert value(shown, "rocktop_orders_total", outcome="cancelled") == 1
    assert value(shown, "rocktop_work_seconds_total") / value(shown, "rocktop_audio_seconds_total") == 0.55
    assert value(shown, "rocktop_real_time_factor_count") == 1
    assert value(shown, "rocktop_errors_total", code="invalid_audio", stage="audio", fault="client") == 1
    assert value(shown, "rocktop_errors_total", code="storage_failed", fault="service") == 1
    assert value(shown, "rocktop_batch_wait_seconds_count", stage="content") == 2
    assert value(shown, "rocktop_batch_calls_sum", stage="content") == 2
    assert value(shown, "rocktop_retries_total", stage="vocoder") == 1


def test_every_metric_of_the_table_can_be_told():
    metrics, text = told()
    metrics.order_began(0.1)
    metrics.order_ended("failed", 1.0, audio_seconds=1.0, work_seconds=1.0, error=AudioError("x"))
    metrics.stage("pitch", 1.0, 1.0)
    metrics.batch("pitch", 1.0, 50, [0.1])
    metrics.retried("order")
    metrics.voice_opened(0.4)
    metrics.jobs(queued=3, running=1)
    metrics.job_began("convert", 0.2)
    metrics.job_finished("convert", "done")
    metrics.answered("GET", "/v1/jobs/{id}", 200, 0.1, 10, 20)
    metrics.ongoing(1)
    metrics.live_turn(0.01, [0.002], 2)
    metrics.live_ears(0.004, 2)
    metrics.live_heard(0.003)
    metrics.live_house(0.5, 2, 1, 1, 1000)
    metrics.live_refused("load")
    metrics.live_sessions(3)
    metrics.live_began(0.1)
    metrics.live_computed(0.01, 0.002)
    metrics.live_answered("converted", 0.04, 0.03)
    metrics.live_ended("ended")
    shown = set(parsed(merged([text()])))
    looked_up = (
        "rocktop_cache",
        "rocktop_disk",
        "rocktop_exporters",
        "rocktop_voices",
        "rocktop_voice_l",
        "rocktop_voice_e",
    )
    elsewhere = {name for name in BY_NAME if name.startswith(looked_up)} - {"rocktop_voice_load_seconds"}
    assert {name.removesuffix("_total") for name in set(BY_NAME) - elsewhere} == shown


def test_requests_are_counted_by_declared_route_however_they_end():
    metrics, text = told()
    app = FastAPI()
    app.add_middleware(HttpMeter, metrics=metrics)

    @app.get("/v1/jobs/{id}")
    def job(id: str):
        if id == "broken":
            raise RuntimeError("broken")
        return id

    with TestClient(app, raise_server_exceptions=False) as client:
        for path in ("/v1/jobs/1", "/v1/jobs/2", "/v1/jobs/broken", "/no/such/path"):
            client.get(path)
        client.request("BREW", "/v1/jobs/1")
    shown = text()
    assert value(shown, "rocktop_http_requests_total", method="GET", route="/v1/jobs/{id}", status="200") == 2
    assert value(shown, "rocktop_http_requests_total", method="GET", route="/v1/jobs/{id}", status="500") == 1
    assert value(shown, "rocktop_http_requests_total", method="GET", route="none", status="404") == 1
    assert value(shown, "rocktop_http_requests_total", method="other", status="405") == 1
    assert value(shown, "rocktop_http_bytes_total", direction="out") > 0
    assert value(shown, "rocktop_http_ongoing") == 0


# the cache, the disks


class Kept(NoRecorder):
    def __init__(self):
        self.values = {}

    def add(self, name, by=1.0, **labels):
        assert set(labels) == set(BY_NAME[name].labels)
        self.values[name] = self.values.get(name, 0) + by

    def set(self, name, value, **labels):
        assert set(labels) == set(BY_NAME[name].labels)
        self.values[(name, *labels.values())] = value


class Voices:
    """Stands for ``actors.voice_cache.VoiceCache``."""

    def __init__(self):
        self.now = SimpleNamespace(misses=4, evictions=1, loaded=3)

    def stats(self):
        return self.now


def test_the_watch_tells_growth_once_and_free_space(tmp_path):
    cache, voices, kept = ContentCache(tmp_path / "cache", 1000), Voices(), Kept()
    places = {"store": str(tmp_path), "away": "s3://bucket/prefix", "gone": "/not/there"}
    watch = Watch(kept, cache=cache, voices=voices, places=places)
    cache._count(hits=3, misses=1, fetched_bytes=10)
    assert watch.look()
    voices.now = SimpleNamespace(misses=6, evictions=1, loaded=2)
    assert watch.look()
    assert kept.values["rocktop_cache_hits_total"] == 3
    assert kept.values["rocktop_cache_fetched_bytes_total"] == 10
    assert kept.values["rocktop_voice_loads_total"] == 6
    assert kept.values["rocktop_voice_evictions_total"] == 1
    assert kept.values[("rocktop_voices_loaded",)] == 2
    assert kept.values[("rocktop_cache_limit_bytes",)] == 1000
    assert kept.values[("rocktop_disk_free_bytes", "store")] > 0
    assert ("rocktop_disk_free_bytes", "away") not in kept.values


def test_the_watch_ends_when_asked_or_when_nothing_is_left_and_tells_what_happened_last(tmp_path, monkeypatch):
    monkeypatch.setattr("serve_apps.observe.watch.SECONDS", 0.02)
    kept, cache = Kept(), ContentCache(tmp_path / "cache", 1000)
    with Watch(kept, cache=cache) as watch:
        cache._count(hits=1)
    assert kept.values["rocktop_cache_hits_total"] == 1
    assert not watch._thread.is_alive()
    watch = Watch(kept, cache=cache).start()
    del cache
    watch._thread.join(timeout=60)
    assert not watch._thread.is_alive()
