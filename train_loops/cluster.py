"""What all jobs share: their log, the Ray they work on, the folder they stand in, and Ray's errors in plain words."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from rocktop_ray.errors import RocktopError, SettingsError

LOGGERS = ("__main__", "actors", "rocktop_ray", "train_loops")
"""Of this project, and all below them."""
_SENT_ALONG = "_ray_pkg_"
"""How the names of Ray's copies of working directories begin."""


def log_lines() -> None:
    """What this project tells goes to the standard error stream with its time, of other libraries only warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    for room in LOGGERS:
        logging.getLogger(room).setLevel(logging.INFO)


def run_program(app: typer.Typer) -> None:
    """A job as a program: errors are one line, with an exit status of their own."""
    log_lines()
    try:
        app(standalone_mode=True)
    except RocktopError as error:
        typer.echo(f"error: {error.message}", err=True)
        sys.exit(error.exit_code)


@dataclass(frozen=True)
class Joined:
    """A Ray that this process is connected to."""

    own: bool
    """Started by this process, on this machine alone, and ended with it."""


@contextmanager
def joined_ray(cores: int) -> Iterator[Joined]:
    """The Ray of ``RAY_ADDRESS`` (a submitted job has it), else one of this process' own with that many cores.

    An own one wants a token that only this process and its workers know, unless ``RAY_AUTH_MODE`` says otherwise.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        _prepare_own()
    import ray

    if ray.is_initialized():
        yield Joined(own=False)
        return
    folder = None
    try:
        if address:
            ray.init(logging_level=logging.WARNING)
        else:
            folder = tempfile.mkdtemp(prefix="rt", dir="/tmp")  # sockets' paths must stay short
            ray.init(
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=200 << 20,
                _temp_dir=folder,
                logging_level=logging.WARNING,
            )
        yield Joined(own=folder is not None)
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _prepare_own() -> None:
    """What the processes of a Ray of one's own find in their environment."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "ray" not in sys.modules:  # it reads the mode once, when it is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ.get("RAY_AUTH_MODE", "token") == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one into the home


def check_lasting(place: str) -> None:
    """Raises SettingsError if what is written to ``place`` would go with the job: its working directory is a copy."""
    copied = any(part.startswith(_SENT_ALONG) for part in Path.cwd().parts)
    if copied and not place.startswith(("s3:", "file:")) and not Path(place).is_absolute():
        raise SettingsError(
            f"{place} would lie in the job's own folder, which Ray removes: write a whole path or s3://bucket/prefix",
            stage="training",
        )


def plain_error(error: BaseException) -> RocktopError | None:
    """The worker's own error inside one of Ray's, the one that can not be helped by trying again first."""
    found: list[RocktopError] = []
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        cause = getattr(one, "cause", None)  # of a task's error, which passes for one of its cause's kind
        if isinstance(one, RocktopError):
            found.append(cause if isinstance(cause, RocktopError) else one)
            continue
        failures = getattr(one, "worker_failures", {})  # of Ray Train: by rank
        inside = [*failures.values()] if isinstance(failures, Mapping) else []
        inside += [one.__cause__, cause, getattr(one, "controller_failure", None)]
        waiting += [each for each in inside if isinstance(each, BaseException)]
    return min(found, key=lambda each: each.retryable, default=None)


@contextmanager
def plain_errors(*others: type[Exception]) -> Iterator[None]:
    """Gives a worker's own error in place of Ray's wrapping of it, and a word on one that Ray itself has.

    ``others``: errors of Ray's libraries that are not of Ray's own kind.
    """
    import ray

    kinds: tuple[type[Exception], ...] = (ray.exceptions.RayError, *others)
    try:
        yield
    except kinds as error:
        cause = plain_error(error)
        if cause is not None:
            raise cause from None
        raise RocktopError(
            f"the workers stopped ({type(error).__name__}); run again, it goes on where it was", stage="training"
        ) from error
