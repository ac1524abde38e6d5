"""What is kept about a request for analysis: as ``metadata.json`` beside the result, and as one line of the log."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rocktop_ray.store.addresses import redact
from serve_apps.nano.contract import BITRATE, FORMAT, RATE, TIMINGS, NanoInput
from serve_apps.nano.faults import Fault
from serve_apps.voices import Found

_log = logging.getLogger(__name__)
_LONGEST_TAG = 256
_MIB = 1 << 20


@dataclass
class Record:
    """What is known of a request so far. Times are seconds since 1970 UTC."""

    request_id: str
    job_id: str
    received_at: float
    started_at: float
    completed_at: float | None = None
    request: NanoInput | None = None
    tag: str | None = None
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds, by the names of ``TIMINGS``."""
    vocal_bytes: int | None = None
    vocal_found: Found | None = None
    model_sha256: str | None = None
    model_found: Found | None = None
    index_found: Found | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """See ``orders.Report.facts``."""
    result_seconds: float | None = None
    result_bytes: int | None = None
    result_key: str | None = None
    """In the bucket."""
    cache_hit_rate: float | None = None
    """Of the download cache of this process, 0..1."""
    fault: Fault | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data without a secret: addresses come without their queries."""
        request, facts = self.request, self.facts
        source, voice, peak = facts.get("source_format", {}), facts.get("voice", {}), facts.get("peak_dbfs")
        return {
            "request_id": self.request_id,
            "tag": self.tag[:_LONGEST_TAG] if self.tag else None,
            "job_id": self.job_id,
            "received_at": _when(self.received_at),
            "started_at": _when(self.started_at),
            "completed_at": _when(self.completed_at),
            "input_audio": {
                "url": redact(request.vocal_url) if request else None,
                "duration_seconds": self.result_seconds,
                "sample_rate": source.get("rate"),
                "channels": source.get("channels"),
                "format": source.get("codec"),
                "file_size_bytes": self.vocal_bytes,
            },
            "input_params": {
                "f0_up_key": request.f0_up_key if request else None,
                "index_rate": request.index_rate if request else None,
            },
            "model_info": {
                "url": redact(request.model_url) if request else None,
                "hash": self.model_sha256,
                "version": model_version(facts) or None,
                "cached": None if self.model_found is None else self.model_found == "hit",
                "has_f0": voice.get("uses_f0"),
                "target_sample_rate": voice.get("sample_rate"),
            },
            "index_url": redact(request.index_url) if request and request.index_url else None,
            "f0_method": facts.get("pitch"),
            "output_audio": {
                "key": self.result_key,
                "duration_seconds": self.result_seconds,
                "sample_rate": RATE,
                "channels": 1,
                "format": FORMAT,
                "codec": "opus",
                "bitrate": BITRATE,
                "file_size_bytes": self.result_bytes,
                "peak_dbfs": peak if peak is not None and math.isfinite(peak) else None,
            },
            "timing": {
                **{f"{name}_seconds": round(self.timings.get(name, 0.0), 4) for name in TIMINGS},
                "total_seconds": round((self.completed_at or self.started_at) - self.started_at, 4),
            },
            "resources": {
                **gpu_memory(),
                "model_cache_hit": voice["loaded"] == 0 if "loaded" in voice else None,
                "vocal_cache_hit": None if self.vocal_found is None else self.vocal_found == "hit",
                "index_cache_hit": None if self.index_found is None else self.index_found == "hit",
                "download_cache_hit_rate": self.cache_hit_rate,
            },
            "success": self.fault is None,
            "error": self.fault.as_dict() if self.fault else None,
        }

    def log(self) -> None:
        """One line: an error where the fault is ours, a warning where it is the client's."""
        status = self.fault.http_status if self.fault else 200
        level = logging.INFO if status < 400 else logging.WARNING if status < 500 else logging.ERROR
        _log.log(level, "nano request", extra={"request_id": self.request_id, "nano": self.as_dict()})


def model_version(facts: Mapping[str, Any]) -> str:
    """``v1`` or ``v2`` of an RVC voice; the family's name of another. ``facts``: see ``orders.Report.facts``."""
    voice = facts.get("voice", {})
    return str(voice.get("version") or voice.get("family") or "")


def gpu_memory() -> dict[str, float | None]:
    """MiB that this process uses of its GPU, and used at most; None where it computes without one."""
    torch = sys.modules.get("torch")  # a gateway has none, and needs none for this
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {"gpu_memory_used_mb": None, "gpu_memory_peak_mb": None}
    return {
        "gpu_memory_used_mb": round(torch.cuda.memory_allocated() / _MIB, 1),
        "gpu_memory_peak_mb": round(torch.cuda.max_memory_allocated() / _MIB, 1),
    }


def _when(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
