"""Stores of both kinds, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage, open_storage

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, Server

ILL = StorageSettings(
    endpoint_url="http://127.0.0.1:1",
    access_key="AKID",
    secret_key="hush",
    connect_seconds=60,
    read_seconds=60,
    attempts=2,
)
SILENT = replace(ILL, connect_seconds=0.3, read_seconds=0.3)
"""For one that does not answer."""


@pytest.fixture(name="s3_settings", scope="module")
def s3_settings_fixture(s3: Server) -> StorageSettings:
    return StorageSettings(endpoint_url=s3.endpoint, access_key=ACCESS_KEY, secret_key=SECRET_KEY)


@pytest.fixture(name="store", params=["file", "s3"])
def store_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "file":
        return open_storage(tmp_path / "store", StorageSettings(public_url="https://cdn.example.org/x/"))
    found = replace(request.getfixturevalue("s3_settings"), public_url="https://cdn.example.org/x/")
    return open_storage(f"s3://{BUCKET}/{request.node.name.partition('[')[0]}", found)
