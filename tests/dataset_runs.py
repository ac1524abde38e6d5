"""A dataset that tests share, and a runner that counts what is asked of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_parts import job, recordings

from train_loops.dataset.build import build_dataset
from train_loops.dataset.runners import LocalRunner


class Counting(LocalRunner):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        self.scanned: list[str] = []
        self.made: list[str] = []

    def scan(self, job, tasks):
        self.scanned += [task["key"] for task in tasks]
        return super().scan(job, tasks)

    def features(self, job, identity, tasks):
        self.made += [task["key"] for task in tasks]
        return super().features(job, identity, tasks)


@pytest.fixture(name="source", scope="module")
def source_fixture(tmp_path_factory) -> Path:
    return recordings(tmp_path_factory.mktemp("takes"))


@pytest.fixture(name="made", scope="module")
def made_fixture(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "set"
    build_dataset(job(source, out), LocalRunner())
    return out
