"""One file over HTTP: resumed by Range after a break, of a known size and checksum, never half written."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from rocktop_ray.errors import FetchError, StorageError, storage_errors
from rocktop_ray.store.catalogue import Checked
from rocktop_ray.store.digest import file_sha256

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

_CHUNK = 1 << 18
_MOST_TRIES = 100
_HOPELESS = {400, 401, 403, 404, 405, 410, 451}


def download(
    url: str,
    part: Path,
    expected: Checked,
    *,
    progress: Progress | None = None,
    attempts: int = 4,
    pause: float = 0.5,
    timeout: float = 30.0,
) -> None:
    """Fill ``part`` with the file at ``url`` (http or https), going on where an earlier call stopped, and check it.

    Tries again after a broken connection, until ``attempts`` tries in a row bring nothing. What has arrived is kept for
    the next call when the network fails, and removed when the content is wrong or the disk is full. Raises FetchError,
    StorageError.
    """
    trouble: Exception | None = None
    failures = 0
    for _ in range(_MOST_TRIES):
        before = _size(part)
        try:
            if before != expected.bytes:
                _transfer(url, part, expected, progress, timeout)
            if file_sha256(part) == expected.sha256:
                return
            part.unlink()
            trouble = FetchError(f"{url}: the content is not the known file (checksum differs)", retryable=False)
            if not before:  # a resumed file may be two versions glued together: one fresh start is fair
                raise trouble
        except urllib.error.HTTPError as error:
            trouble = error
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
            elif error.code in _HOPELESS or error.code < 400:  # a redirect that may not be followed
                break
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            trouble = error
        failures = 0 if _size(part) > before else failures + 1
        if failures >= attempts:
            break
        time.sleep(pause * 2**failures)
    if isinstance(trouble, FetchError):
        raise trouble
    raise FetchError(f"{url}: {_reason(trouble)}; try again, what has arrived is kept") from trouble


def _transfer(url: str, part: Path, expected: Checked, progress: Progress | None, timeout: float) -> None:
    done = _size(part)
    if done > expected.bytes:
        part.unlink()
        done = 0
    headers = {"User-Agent": "rocktop", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (the opener knows http and https only)
    if done:
        request.add_header("Range", f"bytes={done}-")
    with _opener().open(request, timeout=timeout) as answer:
        if done and answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0
        elif done and not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise http.client.HTTPException("the server answered with another range")
        with storage_errors(part):
            file = part.open("r+b" if done else "wb")
        with file:
            file.seek(done)
            _copy(answer, file, part, done, expected, progress)


def _copy(
    answer: http.client.HTTPResponse,
    file: BinaryIO,
    part: Path,
    done: int,
    expected: Checked,
    progress: Progress | None,
) -> None:
    while chunk := _read(answer):
        done += len(chunk)
        if done > expected.bytes:
            part.unlink()
            raise FetchError(f"{part.name}: the server sends more than the known file's size", retryable=False)
        try:
            with storage_errors(part):
                file.write(chunk)
                file.flush()
        except StorageError:
            part.unlink(missing_ok=True)
            raise
        if progress:
            progress(done, expected.bytes)
    if done < expected.bytes:
        raise http.client.HTTPException(f"the connection ended after {done} of {expected.bytes} bytes")


def _read(answer: http.client.HTTPResponse) -> bytes:
    """The next bytes; a broken connection is one kind of error, whatever layer broke (TLS raises plain OSErrors)."""
    try:
        return answer.read(_CHUNK)
    except OSError as error:
        raise ConnectionError(f"the connection broke ({error})") from error


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS only (also after redirects), honouring the proxy variables."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception | None) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return f"cannot connect ({error.reason})"
    return str(error) or type(error).__name__
