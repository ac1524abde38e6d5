"""Voices in a folder and in a real S3 store, with the cache of a node, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_voices import tiny_file

from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.guarded_fetch import FetchPolicy
from serve_apps.config import FetchConfig, ServeConfig, VoicesConfig
from serve_apps.voices import VoiceShelf

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, Server

UNITS, F0 = np.ones((20, 256), np.float32), np.full(20, 220, np.float32)
POLICY = FetchPolicy(trusted=("127.0.0.1",), total_seconds=20)


@pytest.fixture(name="s3_place")
def s3_place_fixture(s3: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("S3_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setenv("S3_ACCESS_KEY", ACCESS_KEY)
    monkeypatch.setenv("S3_SECRET_KEY", SECRET_KEY)
    return f"s3://{BUCKET}/{request.node.name.partition('[')[0]}"


@pytest.fixture(name="place", params=["folder", "s3"])
def place_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "voices") if request.param == "folder" else request.getfixturevalue("s3_place")


@pytest.fixture(name="pth")
def pth_fixture(tmp_path: Path) -> Path:
    return voice_file(tmp_path / "4f2c")


@pytest.fixture(name="index")
def index_fixture(tmp_path: Path) -> Path:
    return index_file(tmp_path / "9e1d")


@pytest.fixture(name="cache")
def cache_fixture(tmp_path: Path) -> ContentCache:
    return ContentCache(tmp_path / "cache", 1 << 30)


def voice_file(path: Path, seed: int = 0) -> Path:
    torch.save(tiny_file(seed=seed), path)
    return path


def index_file(path: Path, seed: int = 0, dim: int = 256) -> Path:
    RetrievalIndex.build(np.random.default_rng(seed).standard_normal((30, dim))).save(path)
    return path


def shelf_at(place: str, tmp_path: Path, node: str = "cache") -> VoiceShelf:
    return VoiceShelf.open(
        ServeConfig(voices=VoicesConfig(library=place), fetch=FetchConfig(cache=str(tmp_path / node)))
    )


def sound(voice) -> np.ndarray:
    return voice.model.wave(voice.model.latent(UNITS, F0), F0)
