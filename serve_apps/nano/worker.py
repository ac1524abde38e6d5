"""One request of RVC-Nano's API from its input to its reply: fetch, convert, deliver, tell."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from rocktop_ray.audio.formats import check_output
from rocktop_ray.errors import CancelledError, FetchError, ModelMissingError, RocktopError, StorageError
from rocktop_ray.features.pitch.registry import weights_of
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.catalogue import lookup
from rocktop_ray.store.fetch import location
from rocktop_ray.store.guarded_fetch import FetchPolicy
from rocktop_ray.store.sources import UrlSource
from serve_apps.jobs.protocol import JobProgress
from serve_apps.labels import url_label
from serve_apps.nano import contract
from serve_apps.nano.bucket import EncodedTake, ResultBucket
from serve_apps.nano.contract import NanoInput
from serve_apps.nano.faults import Fault, File, Phase, explain
from serve_apps.nano.kept import Conversion, KeptConversions
from serve_apps.nano.metadata import Record, model_version
from serve_apps.orders import Advanced, Conversions, Finished, Order, Report, Started, VoiceRef
from serve_apps.spool import RESULTS, TAKES, Spool
from serve_apps.voices import VoiceShelf

Tell = Callable[[JobProgress], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a request came to."""

    reply: dict[str, Any]
    """The body of v1; without ``audio_url`` where the audio is still to be put into it: see ``with_audio``."""
    audio: str | None = None
    """Key in the spool of the audio that belongs into the reply. Whoever uses it deletes it."""


@dataclass
class _Work:
    """A request at work."""

    record: Record
    source: str
    target: str
    phase: Phase = "input_validation"
    file: File | None = None


class NanoWorker:
    """Carries out requests. Stateless between them; several may run at once."""

    def __init__(
        self,
        conversions: Conversions,
        spool: Spool,
        cache: ContentCache,
        voices: VoiceShelf,
        policy: FetchPolicy,
        *,
        bucket: Callable[[], ResultBucket | None],
        max_seconds: float = 4 * 3600.0,
    ) -> None:
        """
        Args:
            bucket: where results go; asked for every request. What it raises becomes that request's failure.
            max_seconds: longer takes are refused.
        """
        self._conversions, self._spool, self._cache, self._voices = conversions, spool, cache, voices
        self._policy, self._bucket, self._max_seconds = policy, bucket, max_seconds
        self._kept = KeptConversions(spool)

    async def run(
        self,
        data: object,
        job_id: str,
        tell: Tell,
        *,
        request_id: str,
        received_at: float | None = None,
        patient: bool = False,
    ) -> Outcome:
        """Carry out the request whose ``input`` is ``data``. A failure is an outcome too.

        Args:
            job_id: the same for every try of one job; files in the spool are named after it.
            request_id: a UUIDv7, the same for every try.
            patient: errors of stages and spool that a later try may not meet are raised instead, for a board that
                tries again.

        Raises CancelledError, and RocktopError where ``patient``.
        """
        now = time.time()
        record = Record(request_id, job_id, received_at or now, now, tag=contract.tag_of(data))
        work = _Work(record, f"{TAKES}/{job_id}.take", f"{RESULTS}/{job_id}.ogg")
        began, delivered = time.monotonic(), False
        try:
            outcome = await self._carry_out(data, work, tell, began)
            delivered = outcome.audio is not None
            return outcome
        except CancelledError:
            raise
        except Exception as error:  # the border: every fault becomes a body that says what to do
            if patient and _passing(error, work.phase):
                raise
            return Outcome(self._failed(error, work))
        finally:
            await asyncio.shield(asyncio.to_thread(self._clean, work, delivered))

    async def _carry_out(self, data: object, work: _Work, tell: Tell, began: float) -> Outcome:
        record = work.record
        request = record.request = contract.read_input(data)
        work.phase = "upload"  # a store that is half set up is found out before any work
        bucket = self._bucket()
        work.phase = "download"
        voice = await asyncio.to_thread(self._fetch_voice, request, work)
        vocal = await asyncio.to_thread(self._fetch_vocal, request, work)
        work.phase, work.file = "inference", None
        name = self._kept.name(vocal, voice.id, request.settings())
        kept = await asyncio.to_thread(self._kept.find, name) if bucket is not None else None
        done = kept or await self._convert(request, voice, work, tell)
        record.facts, record.result_seconds, record.result_bytes = done.facts, done.seconds, done.bytes
        url = None
        if bucket is not None:
            work.phase = "upload"
            try:
                url = await asyncio.to_thread(self._upload, bucket, done, work)
            except RocktopError:
                await asyncio.to_thread(self._keep, name, done)
                raise
        reply = contract.success_body(
            request,
            record.request_id,
            audio_url=url,
            duration_seconds=done.seconds,
            file_size_bytes=done.bytes,
            processing_time_seconds=time.monotonic() - began,
            model_version=model_version(done.facts),
            f0_method=done.facts.get("pitch"),
            timings=record.timings,
        )
        self._finish(record)
        if bucket is None:
            return Outcome(reply, done.key)
        try:
            await asyncio.to_thread(bucket.put_metadata, record.request_id, record.as_dict())
        except RocktopError as error:  # the client has its audio; what is missing is ours
            _log.warning("metadata of a request could not be stored", extra={"code": error.code, "why": error.message})
        return Outcome(reply)

    def _fetch_voice(self, request: NanoInput, work: _Work) -> VoiceRef:
        def step(name: str) -> None:
            work.file = "index" if name == "download_index" else "model"

        voice, fetch = self._voices.refer_url(
            self._cache, request.model_url, request.index_url, self._policy, on_step=step
        )
        record = work.record
        record.model_sha256, record.model_found, record.index_found = voice.sha256, fetch.model_found, fetch.index_found
        record.timings |= {"download_model": fetch.model_seconds, "download_index": fetch.index_seconds}
        return voice

    def _fetch_vocal(self, request: NanoInput, work: _Work) -> str:
        """Bring the take into the spool; its SHA-256."""
        work.file = "vocal"
        began = time.monotonic()
        with self._cache.get(UrlSource(request.vocal_url, self._policy, expect="audio")) as entry:
            self._spool.store.put_file(work.source, entry.path)
        work.record.cache_hit_rate = round(self._cache.stats().hit_rate, 4)
        work.record.timings["download_vocal"] = time.monotonic() - began
        work.record.vocal_bytes, work.record.vocal_found = entry.bytes, entry.found
        return entry.sha256

    async def _convert(self, request: NanoInput, voice: VoiceRef, work: _Work, tell: Tell) -> Conversion:
        preferred = contract.F0_METHOD if await asyncio.to_thread(_installed, contract.F0_METHOD) else None
        order = Order(
            request_id=work.record.request_id,
            voice=voice,
            source=work.source,
            output=check_output(contract.FORMAT, contract.RATE, contract.BITRATE),
            settings=request.settings(),
            target=work.target,
            pitch=preferred or contract.FALLBACK_F0_METHOD,
            max_seconds=self._max_seconds,
        )
        try:
            report = await self._order(order, tell)
        except ModelMissingError:  # it may be here, but not where the work is done
            if preferred is None:
                raise
            report = await self._order(replace(order, pitch=contract.FALLBACK_F0_METHOD), tell)
        stages = report.facts.get("stages", {})
        work.record.timings |= {
            "load_model": report.facts.get("voice", {}).get("loaded", 0.0),
            "pitch_extraction": stages.get("pitch", 0.0),
            "encoding": stages.get("encode", 0.0),
            "inference": sum(spent for stage, spent in stages.items() if stage not in ("pitch", "encode")),
        }
        return Conversion(work.target, report.seconds, report.bytes, report.facts)

    async def _order(self, order: Order, tell: Tell) -> Report:
        total: float | None = None
        report: Report | None = None
        async with aclosing(self._conversions.run(order)) as events:
            async for event in events:
                if isinstance(event, Started):
                    total = event.seconds
                    tell(JobProgress(0.0, total))
                elif isinstance(event, Advanced):
                    tell(JobProgress(event.seconds_done, total, event.stage))
                elif isinstance(event, Finished):
                    report = event.report
        if report is None:
            raise RuntimeError("a conversion ended without a report")
        return report

    def _upload(self, bucket: ResultBucket, done: Conversion, work: _Work) -> str:
        """The result's address."""
        record = work.record
        with self._spool.reading(work.source) as take:
            work.phase, began = "encoding", time.monotonic()
            with EncodedTake(take) as encoded:
                record.timings["encoding"] = record.timings.get("encoding", 0.0) + time.monotonic() - began
                work.phase, began = "upload", time.monotonic()
                with self._spool.reading(done.key) as result:
                    record.result_key, url = bucket.put_output(record.request_id, result)
                bucket.put_input(record.request_id, encoded)
        record.timings["upload"] = time.monotonic() - began
        return url

    def _keep(self, name: str, done: Conversion) -> None:
        try:
            self._kept.keep(name, done)
        except StorageError as error:
            _log.warning("a conversion could not be kept for a later try", extra={"code": error.code})

    def _failed(self, error: Exception, work: _Work) -> dict[str, Any]:
        fault = explain(error, work.phase, work.file)
        if work.record.request is not None:
            name = re.escape(PurePosixPath(work.source).name)
            label = url_label(work.record.request.vocal_url, "the vocal file")
            fault = replace(fault, message=re.sub(rf"[^\s:'\"]*{name}", lambda _: label, fault.message))
        self._finish(work.record, fault)
        return contract.failure_body(
            fault.message, work.record.request_id, work.record.tag, refresh_worker=fault.refresh_worker
        )

    def _finish(self, record: Record, fault: Fault | None = None) -> None:
        record.completed_at, record.fault = time.time(), fault
        record.log()

    def _clean(self, work: _Work, delivered: bool) -> None:
        """Nothing of a request stays in the spool but the audio that its reply still needs."""
        for key in (work.source, *(() if delivered else (work.target,))):
            try:
                self._spool.store.delete(key)
            except StorageError as error:
                _log.warning("a file of a request could not be removed", extra={"code": error.code})


def with_audio(spool: Spool, outcome: Outcome) -> dict[str, Any]:
    """The reply with its audio as a data URL where it has no other address. Raises ObjectMissingError, StorageError."""
    if outcome.audio is None:
        return outcome.reply
    data = base64.b64encode(spool.store.read(outcome.audio)).decode()
    body: dict[str, Any] = {}
    for name, value in outcome.reply.items():
        if name == "sample_rate":  # where v1 has it
            body["audio_url"] = f"data:{contract.MEDIA_TYPE};base64,{data}"
        body[name] = value
    return body


def _installed(extractor: str) -> bool:
    """Whether the weights of a pitch extractor are on this machine."""
    weights = weights_of(extractor)
    return weights is None or location(lookup(weights)).is_file()


def _passing(error: Exception, phase: Phase) -> bool:
    """Whether a board should try again: a stage or the spool was lost, not an address or bucket of the client's."""
    if not isinstance(error, RocktopError) or isinstance(error, FetchError):
        return False
    return error.retryable and phase in ("download", "inference")
