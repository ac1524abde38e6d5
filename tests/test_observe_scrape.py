"""Metrics: one valid answer out of many exporters, and the route that gives it."""

import asyncio
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_text import parsed, value
from prometheus_client import CollectorRegistry

from rocktop_ray.store.cache import ContentCache
from serve_apps.config import FetchConfig, ServeConfig
from serve_apps.observe.exposition import merged
from serve_apps.observe.recorders import ProcessRecorder
from serve_apps.observe.scrape import Exporters

# one answer from many

NODE = """\
# HELP ray_rocktop_orders_total orders
# TYPE ray_rocktop_orders_total counter
ray_rocktop_orders_total{{Component="core",NodeAddress="{node}",Version="2",otel_scope_name="r",outcome="done"}} 7.5
# HELP ray_rocktop_stage_seconds s
# TYPE ray_rocktop_stage_seconds histogram
ray_rocktop_stage_seconds_bucket{{NodeAddress="{node}",le="0.1",otel_scope_version="",stage="content"}} 1.0
ray_rocktop_stage_seconds_bucket{{NodeAddress="{node}",le="+Inf",stage="content"}} 5.0
ray_rocktop_stage_seconds_count{{NodeAddress="{node}",stage="content"}} 5.0
ray_rocktop_stage_seconds_sum{{NodeAddress="{node}",stage="content"}} 2.75
# TYPE ray_node_cpu gauge
ray_node_cpu{{NodeAddress="{node}"}} 2.0
# TYPE ray_serve_num_ongoing gauge
ray_serve_num_ongoing{{deployment="Con\\"v\\\\er\\nter"}} NaN
"""


def test_nodes_are_joined_under_our_names_and_families_stay_whole():
    text = merged([NODE.format(node="a"), NODE.format(node="b")])
    families = parsed(text)
    assert set(families) == {"rocktop_orders", "rocktop_stage_seconds", "ray_serve_num_ongoing"}
    assert families["rocktop_orders"].type == "counter"
    assert families["rocktop_stage_seconds"].type == "histogram"
    assert sum(sample.value for sample in families["rocktop_orders"].samples) == 15
    assert len(families["rocktop_stage_seconds"].samples) == 8
    assert text.count("# TYPE") == 3
    assert "otel" not in text and "Version" not in text
    (ongoing,) = families["ray_serve_num_ongoing"].samples
    assert ongoing.labels == {"deployment": 'Con"v\\er\nter'}


def test_the_same_exporter_twice_counts_once():
    once, twice = merged([NODE.format(node="a")]), merged([NODE.format(node="a")] * 2)
    assert once == twice


@pytest.mark.parametrize(
    "line",
    [
        'rocktop_orders_total{outcome="do',
        "rocktop_orders_total{outcome=done} 1",
        "rocktop_orders_total many",
        "rocktop_orders_total",
        "# TYPE rocktop_orders_total",
        "# TYPE rocktop_orders_total surprise",
        "# TYPE rocktop_bad{name counter",
        "# HELP rocktop_x a lone \\ and \\q",
        "<html>",
        "\x00\x01",
    ],
)
def test_a_broken_line_does_not_spoil_the_rest(line):
    text = merged([line + "\n" + NODE.format(node="a"), line])
    assert value(text, "rocktop_orders_total") == 7.5


@given(st.lists(st.text(alphabet='rocktp_ay# TYPEHL{}="\\,\n\r\u2028 0.1eNa', max_size=120), max_size=4))
@settings(max_examples=150, deadline=None)
def test_anything_gives_a_valid_answer(texts):
    parsed(merged(["rocktop_" + text for text in texts] + texts))


def test_merging_own_registry_leaves_out_times_of_birth():
    recorder = ProcessRecorder(CollectorRegistry())
    recorder.add("rocktop_orders_total", outcome="done")
    text = merged([recorder.text()])
    assert "_created" not in text and value(text, "rocktop_orders_total") == 1


# asking the nodes


class _Exporter(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        body = NODE.format(node=self.server.server_port).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def exporter():
    server = HTTPServer(("127.0.0.1", 0), _Exporter)
    server.asked = 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_nodes_that_are_gone_are_told_and_those_there_are_asked_once(exporter, monkeypatch):
    monkeypatch.setattr("serve_apps.observe.scrape._SECONDS", 60.0)
    exporters = Exporters(lambda: [f"127.0.0.1:{exporter.server_port}", "127.0.0.1:1"] * 2)

    async def ask_often():
        return await asyncio.gather(*(exporters.texts() for _ in range(5)))

    for answers in asyncio.run(ask_often()):
        assert sorted(answer is None for answer in answers) == [False, True]
    assert exporter.asked == 1


def test_a_ray_that_does_not_answer_does_not_hold_the_route(monkeypatch):
    monkeypatch.setattr("serve_apps.observe.scrape._SECONDS", 0.2)
    stop = threading.Event()
    exporters = Exporters(lambda: stop.wait(600) or [])
    began = time.monotonic()
    try:
        assert asyncio.run(exporters.texts()) == [None]
        assert time.monotonic() - began < 60
    finally:
        stop.set()


def test_the_route_answers_outside_ray(tmp_path, monkeypatch):
    from serve_apps.observe.recorders import process_recorder
    from serve_apps.observe.routes import router

    monkeypatch.setitem(sys.modules, "ray", None)  # another test's Ray may run in this process
    process_recorder.cache_clear()  # and another test's gateway may still tell of its own cache
    config = ServeConfig(store=str(tmp_path), fetch=FetchConfig(cache=str(tmp_path / "cache")))
    services = SimpleNamespace(config=config, cache=ContentCache(tmp_path / "cache", 1000))
    app = FastAPI()
    app.include_router(router(services))
    process_recorder().add("rocktop_retries_total", stage="content")
    with TestClient(app) as client:
        end = time.monotonic() + 60
        while "rocktop_cache_limit_bytes" not in (answer := client.get("/metrics")).text and time.monotonic() < end:
            time.sleep(0.05)  # its first look is taken by a thread
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert value(answer.text, "rocktop_retries_total", stage="content") >= 1
    assert value(answer.text, "rocktop_cache_limit_bytes") == 1000
