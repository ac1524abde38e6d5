"""What went wrong, in RVC-Nano's words: stage, type, message, and whether the worker must be replaced."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rocktop_ray.errors import (
    AudioError,
    AudioFormatError,
    AudioLimitError,
    BucketMissingError,
    FetchError,
    IndexFormatError,
    ModelMissingError,
    RocktopError,
    SettingsError,
    StorageDeniedError,
    StorageError,
    StorageTimeoutError,
    UnsafeFileError,
    UrlContentError,
    UrlForbiddenError,
    UrlNotFoundError,
    UrlRefusedError,
    UrlTimeoutError,
    UrlTooLargeError,
    VoiceFormatError,
    VoiceNotFoundError,
)

Phase = Literal["input_validation", "download", "audio_processing", "model_loading", "inference", "encoding", "upload"]
"""Stages of v1."""
File = Literal["vocal", "model", "index"]

_ACCELERATORS = ("cuda", "hip", "xpu", "mps", "cublas", "cudnn", "rocm", "nccl")
_LOST = (
    *("cuda error", "hip error", "xpu error", "acceleratorerror", "device-side assert", "device lost", "cublas_status"),
    *("cudnn_status", "cudnn error", "no cuda gpus are available", "ecc error", "driver shutting down"),
)


@dataclass(frozen=True)
class Fault:
    """A failure to report."""

    stage: str
    kind: str
    message: str
    http_status: int
    refresh_worker: bool = False
    trace: str | None = None
    """Where in our code a fault of ours arose: files and lines, none of their values."""

    def as_dict(self) -> dict[str, Any]:
        """As metadata holds it."""
        return {
            "error_type": self.kind,
            "error_message": self.message,
            "error_stage": self.stage,
            "http_status": self.http_status,
            "stack_trace": self.trace,
        }


def explain(error: BaseException, phase: Phase, file: File | None = None) -> Fault:
    """The fault that ``error`` means when it was raised in ``phase``, while ``file`` was handled."""
    if broken := _broken(error, phase):
        return broken
    if not isinstance(error, RocktopError):
        steps = traceback.extract_tb(error.__traceback__)
        where = "".join(f"{'/'.join(Path(at.filename).parts[-3:])}:{at.lineno} {at.name}\n" for at in steps)
        message = f"Unexpected error: {type(error).__name__}; the worker's log has more"
        return Fault("unknown", type(error).__name__, message, 500, trace=where)
    stage, said, status = _say(error, phase, file)
    return Fault(stage, error.code, f"{said}: {error.message}", status)


def _say(error: RocktopError, phase: Phase, file: File | None) -> tuple[str, str, int]:
    """Stage, first words of the message, HTTP status."""
    if phase == "input_validation":
        return phase, "Invalid input", 400
    if phase == "upload":
        return phase, *_upload(error)
    if isinstance(error, FetchError) and error.stage == "download":
        return _download(error, file or "vocal")
    if isinstance(error, IndexFormatError):
        return "model_loading", "Invalid index file", 422
    if isinstance(error, UnsafeFileError | VoiceFormatError):
        return "model_loading", "Invalid RVC model file", 422
    if isinstance(error, ModelMissingError | VoiceNotFoundError):
        return "model_loading", "Failed to load model", error.http_status
    if isinstance(error, AudioError):
        if error.stage == "output":
            return "encoding", "Audio encoding failed", 500
        if isinstance(error, AudioLimitError):
            return "audio_processing", "Audio is too long", 422
        if isinstance(error, AudioFormatError):
            return "audio_processing", "Invalid or unsupported audio format", 422
        return "audio_processing", "Failed to load audio", 422
    if error.stage == "pitch":
        return "inference", "Pitch extraction failed", error.http_status
    if error.stage == "content":
        return "inference", "Feature extraction failed", error.http_status
    if isinstance(error, StorageError) and phase == "download":
        return "download", "Failed to keep the download", error.http_status
    return phase if phase != "download" else "model_loading", "Voice conversion failed", error.http_status


def _download(error: FetchError, file: File) -> tuple[str, str, int]:
    named = file.capitalize()
    if isinstance(error, UrlRefusedError):
        return "input_validation", "Invalid URL", 400
    if isinstance(error, UrlNotFoundError):
        return "download", f"{named} file not found at URL", 404
    if isinstance(error, UrlForbiddenError):
        return "download", f"Access forbidden to {file} file", 403
    if isinstance(error, UrlTimeoutError):
        return "download", f"Download timeout of {file} file", 504
    if isinstance(error, UrlTooLargeError):
        return "download", f"{named} file is too large", 413
    if isinstance(error, UrlContentError):
        if file == "vocal":
            return "audio_processing", "Invalid or unsupported audio format", 422
        return "model_loading", "Invalid RVC model file" if file == "model" else "Invalid index file", 422
    return "download", f"Cannot reach URL of {file} file", 502


def _upload(error: RocktopError) -> tuple[str, int]:
    if isinstance(error, SettingsError):
        return "S3 storage not configured", 502
    if isinstance(error, StorageDeniedError):
        return "S3 authentication failed", 403
    if isinstance(error, BucketMissingError):
        return "S3 bucket error", 502
    if isinstance(error, StorageTimeoutError):
        return "Upload timeout", 504
    return "S3 upload failed", 502


def _broken(error: BaseException, phase: Phase) -> Fault | None:
    """Faults after which this worker is of no use. Errors of the hierarchy are none, but may come from one."""
    for cause in _causes(error):
        if isinstance(cause, RocktopError):
            continue
        name, text = type(cause).__name__, f"{type(cause).__name__}: {cause}".lower()
        device = any(word in text for word in _ACCELERATORS)
        stage = phase if phase == "model_loading" else "inference"
        if name == "OutOfMemoryError" or ("out of memory" in text and device):
            message = "CUDA out of memory: the GPU has no room for this request; the worker will be replaced"
            return Fault(stage, name, message, 500, refresh_worker=True)
        if any(word in text for word in _LOST):
            message = "Tensor operation failed: the GPU does not work any more; the worker will be replaced"
            return Fault(stage, name, message, 500, refresh_worker=True)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from; Ray wraps what a replica raised."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        wrapped = getattr(at, "cause", None)
        at = wrapped if isinstance(wrapped, BaseException) else at.__cause__ or at.__context__
