"""What happens, told in the words of the parts; here it becomes values under the catalogue's names."""

from __future__ import annotations

from collections.abc import Sequence

from rocktop_ray.errors import RocktopError
from serve_apps.observe.meter import Outcome
from serve_apps.observe.recorders import Recorder, recorder


class Metrics:
    """A ``Meter`` for the graph, and the same for voices, jobs and HTTP. Quick, and safe to call from any thread."""

    def __init__(self, to: Recorder | None = None) -> None:
        """``to``: where values go; None is Ray where this process belongs to one, else this process' own registry."""
        self._to = to or recorder()

    # orders

    def order_began(self, waited: float) -> None:
        """See ``Meter``."""
        self._to.observe("rocktop_queue_wait_seconds", waited)

    def order_ended(
        self,
        outcome: Outcome,
        seconds: float,
        *,
        audio_seconds: float = 0.0,
        work_seconds: float = 0.0,
        error: RocktopError | None = None,
    ) -> None:
        """See ``Meter``."""
        self._to.add("rocktop_orders_total", outcome=outcome)
        self._to.observe("rocktop_order_seconds", seconds, outcome=outcome)
        self._to.add("rocktop_audio_seconds_total", audio_seconds)
        self._to.add("rocktop_work_seconds_total", work_seconds)
        if audio_seconds > 0 and work_seconds > 0:
            self._to.observe("rocktop_real_time_factor", work_seconds / audio_seconds)
        if error is not None:
            fault = "client" if error.http_status < 500 else "service"
            self._to.add("rocktop_errors_total", code=error.code, stage=error.stage, fault=fault)

    def stage(self, stage: str, seconds: float, audio_seconds: float) -> None:
        """See ``Meter``."""
        self._to.observe("rocktop_stage_seconds", seconds, stage=stage)
        self._to.add("rocktop_stage_work_seconds_total", seconds, stage=stage)
        self._to.add("rocktop_stage_audio_seconds_total", audio_seconds, stage=stage)

    def batch(self, stage: str, seconds: float, frames: int, waited: Sequence[float]) -> None:
        """See ``Meter``."""
        self._to.observe("rocktop_batch_seconds", seconds, stage=stage)
        self._to.observe("rocktop_batch_frames", frames, stage=stage)
        self._to.observe("rocktop_batch_calls", len(waited), stage=stage)
        for wait in waited:
            self._to.observe("rocktop_batch_wait_seconds", wait, stage=stage)

    def retried(self, stage: str) -> None:
        """See ``Meter``."""
        self._to.add("rocktop_retries_total", stage=stage)

    # voices

    def voice_opened(self, seconds: float) -> None:
        """A replica opened a voice. How many it holds and lets go is looked up by ``watch``."""
        self._to.observe("rocktop_voice_load_seconds", seconds)

    # live: computing, and who is let in

    def live_turn(self, seconds: float, waited: Sequence[float], streams: int) -> None:
        """A turn of the computing thread; ``waited``: of the feeds that it began."""
        self._to.observe("rocktop_live_turn_seconds", seconds)
        self._to.observe("rocktop_live_turn_streams", streams)
        self._to.add("rocktop_live_work_seconds_total", seconds)
        for wait in waited:
            self._to.observe("rocktop_live_wait_seconds", wait)

    def live_ears(self, seconds: float, asked: int) -> None:
        """What a turn waited for ears elsewhere, and how many of their replicas were asked."""
        self._to.observe("rocktop_live_ears_seconds", seconds)
        if asked > 1:
            self._to.add("rocktop_live_ears_again_total")

    def live_heard(self, seconds: float) -> None:
        """What ears computed for one call."""
        self._to.observe("rocktop_live_hearing_seconds", seconds)

    def live_house(self, load: float, live: int, free: int, parked: int, parked_bytes: int) -> None:
        """How full the desk is."""
        self._to.set("rocktop_live_load", load)
        self._to.set("rocktop_live_seats", live, pace="live")
        self._to.set("rocktop_live_seats", free, pace="free")
        self._to.set("rocktop_live_parked", parked)
        self._to.set("rocktop_live_parked_bytes", parked_bytes)

    def live_refused(self, reason: str) -> None:
        """A session was not let in: ``load``, ``late``, ``sessions`` or ``slow``."""
        self._to.add("rocktop_live_refused_total", reason=reason)

    # jobs

    def jobs(self, queued: int, running: int) -> None:
        """How many jobs wait and run now."""
        self._to.set("rocktop_jobs", queued, status="queued")
        self._to.set("rocktop_jobs", running, status="running")

    def job_began(self, kind: str, waited: float) -> None:
        """A job that had waited ``waited`` seconds is worked on."""
        self._to.observe("rocktop_job_wait_seconds", waited, kind=kind)

    def job_finished(self, kind: str, status: str) -> None:
        """A job is final."""
        self._to.add("rocktop_jobs_finished_total", kind=kind, status=status)

    # live sessions

    def live_sessions(self, sessions: int) -> None:
        """How many connections of live sessions there are now."""
        self._to.set("rocktop_live_sessions", sessions)

    def live_began(self, delay: float) -> None:
        """A session was let in; ``delay``: seconds by which its answers are older than their blocks."""
        self._to.observe("rocktop_live_delay_seconds", delay)

    def live_computed(self, seconds: float, waited: float) -> None:
        """One call of the engine for a session."""
        self._to.observe("rocktop_live_compute_seconds", seconds)
        self._to.observe("rocktop_live_queue_seconds", waited)

    def live_answered(self, answer: str, audio_seconds: float, seconds: float | None) -> None:
        """A block was answered, ``seconds`` after it came if it has a deadline. answer: see the catalogue."""
        self._to.add("rocktop_live_blocks_total", answer=answer)
        self._to.add("rocktop_live_audio_seconds_total", audio_seconds)
        if seconds is not None:
            self._to.observe("rocktop_live_answer_seconds", seconds)

    def live_ended(self, outcome: str) -> None:
        """A connection ended: see the catalogue."""
        self._to.add("rocktop_live_connections_total", outcome=outcome)

    # HTTP

    def answered(self, method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        """A request ended. ``route`` as declared, e.g. ``/v1/jobs/{id}``; bytes are those of the bodies."""
        self._to.add("rocktop_http_requests_total", method=method, route=route, status=str(status))
        self._to.observe("rocktop_http_request_seconds", seconds, route=route)
        self._to.add("rocktop_http_bytes_total", received, direction="in")
        self._to.add("rocktop_http_bytes_total", sent, direction="out")

    def ongoing(self, requests: int) -> None:
        """How many requests are being answered now."""
        self._to.set("rocktop_http_ongoing", requests)
