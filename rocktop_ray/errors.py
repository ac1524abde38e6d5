"""The one error hierarchy.

Every error that a user can meet derives from ``RocktopError``. It says which stage failed, whether trying again can
help, and what to do. Borders (command line, HTTP, RunPod) map it to their own form once: see ``exit_code`` and
``http_status``. Library code raises these and lets programming errors (TypeError, AssertionError...) pass untouched.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class RocktopError(Exception):
    """Base of all errors shown to users.

    Class attributes (an instance may override ``stage`` and ``retryable``):
        code: stable machine-readable name, snake case.
        stage: where it happened: input, download, audio, content, pitch, retrieval, voice, acoustic, vocoder, output,
            models, store, queue, jobs, training, tracking or live.
        http_status: status of an HTTP answer.
        exit_code: exit status of the command line (sysexits-like, 64-78; 130 for cancelled).
        retryable: True if the same call may succeed later.
    """

    code = "internal_error"
    stage = "internal"
    http_status = 500
    exit_code = 70
    retryable = False

    def __init__(self, message: str, *, stage: str | None = None, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        if stage is not None:
            self.stage = stage
        if retryable is not None:
            self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as it is, whatever a class's constructor wants: errors travel between processes."""
        return _restored, (type(self), self.args, self.__dict__)

    def as_dict(self) -> dict[str, object]:
        """The error as plain data: code, stage, message, retryable."""
        return {"code": self.code, "stage": self.stage, "message": self.message, "retryable": self.retryable}


def _restored(kind: type[RocktopError], args: tuple[Any, ...], state: dict[str, Any]) -> RocktopError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class SettingsError(RocktopError):
    """A setting is unknown, of the wrong type or out of its range."""

    code, stage, http_status, exit_code = "invalid_settings", "input", 422, 64


class AudioError(RocktopError):
    """The audio cannot be used: not audio, truncated, empty, non-finite."""

    code, stage, http_status, exit_code = "invalid_audio", "audio", 422, 65


class AudioLimitError(AudioError):
    """The audio is larger than a limit: bytes, seconds, channels or rate."""

    code, http_status = "audio_too_large", 413


class AudioFormatError(AudioError):
    """A container, codec, rate or bitrate is not supported for reading or writing."""

    code = "unsupported_format"


class UnsafeFileError(RocktopError):
    """A model file asks to run code, or holds what a model file must not hold. It was not loaded."""

    code, stage, http_status, exit_code = "unsafe_file", "voice", 422, 65


class VoiceFormatError(RocktopError):
    """A model file does not fit: the message is a report of what was expected and what was found."""

    code, stage, http_status, exit_code = "invalid_voice", "voice", 422, 65


class VoiceNotFoundError(RocktopError):
    """No voice of that name in the library, or no file at that path."""

    code, stage, http_status, exit_code = "voice_not_found", "voice", 404, 66


class VoiceChangedError(RocktopError):
    """The voice was replaced or removed between being chosen and being read."""

    code, stage, http_status, exit_code, retryable = "voice_changed", "voice", 409, 75, True


class IndexFormatError(RocktopError):
    """A retrieval index cannot be read, or does not fit the voice."""

    code, stage, http_status, exit_code = "invalid_index", "retrieval", 422, 65


class ModelMissingError(RocktopError):
    """Weights that a stage needs are not installed; the message says how to get them."""

    code, stage, http_status, exit_code = "model_missing", "models", 503, 69


class FetchError(RocktopError):
    """A download failed or did not match its checksum."""

    code, stage, http_status, exit_code, retryable = "fetch_failed", "models", 502, 69, True


class UrlUnreachableError(FetchError):
    """The server behind a foreign address cannot be reached, or answers with a fault of its own."""

    code, stage = "url_unreachable", "download"


class UrlRefusedError(FetchError):
    """A foreign address is not one that this system opens: scheme, host, port, address or redirect."""

    code, stage, http_status, exit_code, retryable = "url_refused", "download", 422, 64, False


class UrlNotFoundError(FetchError):
    """Nothing lies behind a foreign address."""

    code, stage, http_status, exit_code, retryable = "url_not_found", "download", 404, 66, False


class UrlForbiddenError(FetchError):
    """The server wants credentials, or a signed link has run out."""

    code, stage, http_status, exit_code, retryable = "url_forbidden", "download", 403, 77, False


class UrlTimeoutError(FetchError):
    """The server was silent for too long, or too slow in all."""

    code, stage, http_status = "url_timeout", "download", 504


class UrlTooLargeError(FetchError):
    """A foreign file is larger than the limit."""

    code, stage, http_status, exit_code, retryable = "url_too_large", "download", 413, 65, False


class UrlContentError(FetchError):
    """What lies behind a foreign address is not the kind of file asked for."""

    code, stage, http_status, exit_code, retryable = "url_content", "download", 422, 65, False


class StorageError(RocktopError):
    """The disk or object store refused: full, read-only, no permission, gone."""

    code, stage, http_status, exit_code = "storage_failed", "store", 507, 74


class ObjectMissingError(StorageError):
    """No object of that key in the store."""

    code, http_status, exit_code = "object_missing", 404, 66


class ObjectChangedError(StorageError):
    """An object is not, or no longer, the one that the caller named by its ETag."""

    code, http_status = "object_changed", 412


class StorageDeniedError(StorageError):
    """The store refuses the configured credentials, or they do not allow this."""

    code, http_status, exit_code = "storage_denied", 502, 77


class BucketMissingError(StorageError):
    """The configured bucket does not exist."""

    code, http_status, exit_code = "bucket_missing", 502, 78


class StorageUnavailableError(StorageError):
    """The store is down, or too busy to answer."""

    code, http_status, retryable = "storage_unavailable", 503, True


class StorageTimeoutError(StorageUnavailableError):
    """The store was silent for too long, or too slow in all."""

    code, http_status = "storage_timeout", 504


class TrainingError(RocktopError):
    """Training cannot start, or cannot go on: no usable examples, a loss that is no number, a run that does not fit."""

    code, stage, http_status, exit_code = "training_failed", "training", 500, 70


class WorkerLostError(TrainingError):
    """A worker of a training run ended, failed or fell silent; the run can go on from its last checkpoint."""

    code, http_status, exit_code, retryable = "worker_lost", 503, 75, True


class TrackingError(RocktopError):
    """MLflow refuses, or cannot be reached (``retryable``)."""

    code, stage, http_status, exit_code = "tracking_failed", "tracking", 502, 69


class StreamStateError(RocktopError):
    """The kept state of a live stream does not fit the stream, or is damaged; the stream can be started anew."""

    code, stage, http_status, exit_code = "stream_state", "live", 409, 65


class StateMissingError(RocktopError):
    """Whoever computes a live stream does not hold its state: send it along."""

    code, stage, http_status, exit_code, retryable = "state_missing", "live", 409, 75, True


class SessionTakenError(RocktopError):
    """Another connection has this live session."""

    code, stage, http_status, exit_code = "session_taken", "live", 409, 75


class SessionGoneError(RocktopError):
    """No such live session: it ended, it was given up, or the secret is not its own."""

    code, stage, http_status, exit_code = "session_gone", "live", 410, 66


class ProtocolError(RocktopError):
    """The other side of a stream sent what its protocol does not have."""

    code, stage, http_status, exit_code = "bad_message", "live", 400, 76


class StreamLostError(RocktopError):
    """The connection of a live stream cannot be made, or broke and could not be made again in time."""

    code, stage, http_status, exit_code, retryable = "stream_lost", "live", 503, 69, True


class StreamRefusedError(RocktopError):
    """The server does not let this client stream: its key, its address, or how much it sends."""

    code, stage, http_status, exit_code = "stream_refused", "live", 403, 77


class DeviceError(RocktopError):
    """A sound device is not there, is used by another program, or cannot do what is asked; or none can be used."""

    code, stage, http_status, exit_code = "device_failed", "live", 503, 69


class CancelledError(RocktopError):
    """The caller asked the work to stop."""

    code, stage, http_status, exit_code = "cancelled", "internal", 499, 130


class BusyError(RocktopError):
    """As many requests wait for a free place as may; ``retry_after`` is a guess in seconds of when there is one."""

    code, stage, http_status, exit_code, retryable = "busy", "queue", 429, 75, True

    def __init__(self, message: str, *, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StageLostError(RocktopError):
    """The processes that do the work died again and again, or cannot start."""

    code, stage, http_status, exit_code, retryable = "stage_lost", "internal", 503, 75, True


class QueueFullError(RocktopError):
    """As many jobs wait as may; ``retry_after`` is an estimate in seconds of when there is room."""

    code, stage, http_status, exit_code, retryable = "queue_full", "jobs", 429, 75, True

    def __init__(self, message: str, *, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class JobNotFoundError(RocktopError):
    """No job of that id, or it was removed, or it is another client's."""

    code, stage, http_status, exit_code = "job_not_found", "jobs", 404, 66


class JobStateError(RocktopError):
    """A job is not in the state that this asks for: it has no result (yet), or still runs."""

    code, stage, http_status, exit_code = "job_state", "jobs", 409, 75


class JobCrashedError(RocktopError):
    """The process that worked on a job was killed again and again; it is not tried any more."""

    code, stage, exit_code = "job_crashed", "jobs", 70


class JobTimedOutError(RocktopError):
    """A job was not done in the time that its client gave it."""

    code, stage, http_status, exit_code = "job_timed_out", "jobs", 504, 75


def storage_error(error: OSError, place: object, doing: str = "use", *, stage: str | None = None) -> StorageError:
    """What the operating system refused, as an error to raise: ``cannot {doing} {place}: why``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"no space left for {place}; free some and try again", stage=stage)
    return StorageError(f"cannot {doing} {place}: {error.strerror or error}", stage=stage)


@contextmanager
def storage_errors(place: object, doing: str = "use", *, stage: str | None = None) -> Iterator[None]:
    """Turn every OSError of the block into the StorageError of ``storage_error``."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, place, doing, stage=stage) from error
