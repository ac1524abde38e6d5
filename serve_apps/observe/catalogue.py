"""Every metric that the system tells, in one table: the only place where names, labels and meanings stand.

Labels take few values each: stages, error codes, routes as they are declared. Never a voice, a request, an address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0)
WAITS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 300.0, 1200.0)
TURNS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5)
FACTORS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 5.0)
BLOCKS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1.0)
CALLS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)
FRAMES = (50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 12000.0, 16000.0)


@dataclass(frozen=True)
class Metric:
    """One metric as Prometheus shows it. ``buckets`` are upper bounds, for histograms."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: tuple[Metric, ...] = (
    # orders: one conversion each
    Metric(
        "rocktop_orders_total", "counter", "orders", "conversions that ended: done, failed or cancelled", ("outcome",)
    ),
    Metric("rocktop_order_seconds", "histogram", "s", "time from an order's arrival to its end", ("outcome",), SECONDS),
    Metric(
        "rocktop_queue_wait_seconds", "histogram", "s", "time that an order waited for a place in a replica", (), WAITS
    ),
    Metric(
        "rocktop_real_time_factor",
        "histogram",
        "s/s",
        "time in the stages per second of the take, of finished orders",
        (),
        FACTORS,
    ),
    Metric("rocktop_audio_seconds_total", "counter", "s", "length of the takes converted"),
    Metric(
        "rocktop_work_seconds_total",
        "counter",
        "s",
        "time in the stages of the takes converted; over the audio: the mean factor",
    ),
    Metric(
        "rocktop_errors_total",
        "counter",
        "errors",
        "orders that failed; fault: client where the answer is 4xx, else service",
        ("code", "stage", "fault"),
    ),
    Metric(
        "rocktop_retries_total",
        "counter",
        "calls",
        "calls made again after a replica was lost",
        ("stage",),
    ),
    # stages
    Metric(
        "rocktop_stage_seconds", "histogram", "s", "work of one call of a stage, without waiting", ("stage",), SECONDS
    ),
    Metric(
        "rocktop_stage_work_seconds_total",
        "counter",
        "s",
        "work of a stage; over the audio it is its factor",
        ("stage",),
    ),
    Metric("rocktop_stage_audio_seconds_total", "counter", "s", "audio that went through a stage", ("stage",)),
    Metric("rocktop_batch_seconds", "histogram", "s", "one batch of a stage (split placement)", ("stage",), SECONDS),
    Metric("rocktop_batch_calls", "histogram", "calls", "calls joined in one batch", ("stage",), CALLS),
    Metric("rocktop_batch_frames", "histogram", "frames", "content frames (20 ms) in one batch", ("stage",), FRAMES),
    Metric("rocktop_batch_wait_seconds", "histogram", "s", "time that a call waited for its batch", ("stage",), WAITS),
    # voices
    Metric("rocktop_voices_loaded", "gauge", "voices", "voices held ready in a replica"),
    Metric("rocktop_voice_loads_total", "counter", "voices", "voices opened by a replica"),
    Metric("rocktop_voice_load_seconds", "histogram", "s", "opening of one voice", (), SECONDS),
    Metric("rocktop_voice_evictions_total", "counter", "voices", "voices let go to keep the bound"),
    # live: the computing
    Metric("rocktop_live_turn_seconds", "histogram", "s", "one turn: about a hop of each stream in it", (), TURNS),
    Metric("rocktop_live_turn_streams", "histogram", "streams", "streams computed together in a turn", (), CALLS),
    Metric("rocktop_live_wait_seconds", "histogram", "s", "time that blocks waited for their first turn", (), WAITS),
    Metric("rocktop_live_work_seconds_total", "counter", "s", "time in turns; over the time that passed: how busy"),
    Metric("rocktop_live_ears_seconds", "histogram", "s", "of a turn: waiting for ears elsewhere", (), TURNS),
    Metric("rocktop_live_hearing_seconds", "histogram", "s", "of it: what the ears computed there", (), TURNS),
    Metric("rocktop_live_ears_again_total", "counter", "calls", "calls that one of the ears left for another one"),
    Metric("rocktop_live_load", "gauge", "share", "share of the time that is promised to live sessions"),
    Metric("rocktop_live_seats", "gauge", "sessions", "sessions that sit", ("pace",)),
    Metric("rocktop_live_refused_total", "counter", "sessions", "sessions that were not let in", ("reason",)),
    Metric("rocktop_live_parked", "gauge", "sessions", "sessions kept for a client that may come back"),
    Metric("rocktop_live_parked_bytes", "gauge", "bytes", "their states"),
    # downloads kept
    Metric("rocktop_cache_hits_total", "counter", "requests", "downloads answered by the cache"),
    Metric("rocktop_cache_misses_total", "counter", "requests", "downloads that had to be made"),
    Metric("rocktop_cache_changed_total", "counter", "requests", "misses because the address had another version"),
    Metric("rocktop_cache_corrupt_total", "counter", "files", "kept files that were damaged, and fetched again"),
    Metric("rocktop_cache_evictions_total", "counter", "files", "files removed to keep the bound"),
    Metric("rocktop_cache_fetched_bytes_total", "counter", "bytes", "bytes downloaded"),
    Metric("rocktop_cache_served_bytes_total", "counter", "bytes", "bytes of hits"),
    Metric("rocktop_cache_files", "gauge", "files", "files in the cache's folder"),
    Metric("rocktop_cache_bytes", "gauge", "bytes", "size of the cache's folder"),
    Metric("rocktop_cache_limit_bytes", "gauge", "bytes", "most that the cache keeps"),
    Metric("rocktop_disk_free_bytes", "gauge", "bytes", "free space for the store or the cache", ("place",)),
    # jobs
    Metric("rocktop_jobs", "gauge", "jobs", "jobs that wait or run", ("status",)),
    Metric("rocktop_jobs_finished_total", "counter", "jobs", "jobs that ended", ("kind", "status")),
    Metric("rocktop_job_wait_seconds", "histogram", "s", "time from a job's creation to its start", ("kind",), WAITS),
    # live sessions
    Metric("rocktop_live_sessions", "gauge", "sessions", "live sessions connected to a gateway"),
    Metric(
        "rocktop_live_connections_total",
        "counter",
        "connections",
        "connections that ended: ended, parked (the session may go on), failed or refused",
        ("outcome",),
    ),
    Metric(
        "rocktop_live_blocks_total",
        "counter",
        "blocks",
        "blocks answered: converted, bypassed, late or lost (the take instead)",
        ("answer",),
    ),
    Metric("rocktop_live_audio_seconds_total", "counter", "s", "length of the blocks answered"),
    Metric(
        "rocktop_live_answer_seconds",
        "histogram",
        "s",
        "time from a block's arrival to its answer, of blocks with deadlines",
        (),
        BLOCKS,
    ),
    Metric("rocktop_live_compute_seconds", "histogram", "s", "work of one call for a live session", (), BLOCKS),
    Metric("rocktop_live_queue_seconds", "histogram", "s", "time that a call for a live session waited", (), BLOCKS),
    Metric(
        "rocktop_live_delay_seconds",
        "histogram",
        "s",
        "by how much answers are older than their blocks, at the start of a session",
        (),
        BLOCKS,
    ),
    # HTTP
    Metric("rocktop_http_requests_total", "counter", "requests", "requests answered", ("method", "route", "status")),
    Metric("rocktop_http_request_seconds", "histogram", "s", "time to the end of the answer", ("route",), SECONDS),
    Metric("rocktop_http_ongoing", "gauge", "requests", "requests being answered by a gateway"),
    Metric("rocktop_http_bytes_total", "counter", "bytes", "bodies received (in) and sent (out)", ("direction",)),
    # the exposition itself, made at the gateway
    Metric("rocktop_exporters", "gauge", "nodes", "nodes whose metrics are in this answer, or missing", ("state",)),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


def markdown() -> str:
    """The table as docs/observe.md shows it."""
    rows = ["| metric | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.meaning} |")
    return "\n".join(rows) + "\n"
