"""The retrieval index of a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dataset_parts import job, recordings
from typer.testing import CliRunner

from rocktop_ray.errors import SettingsError, TrainingError
from rocktop_ray.features.index import RetrievalIndex, list_count
from train_loops.dataset.build import build_dataset
from train_loops.dataset.reader import Dataset
from train_loops.dataset.runners import LocalRunner
from train_loops.index import app, build_index


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    build_dataset(job(recordings(folder / "in"), folder / "set", slicing="fixed"), LocalRunner())
    return folder / "set"


def rows(vectors: np.ndarray) -> list[bytes]:
    return sorted(row.tobytes() for row in vectors)


def moments(dataset: Dataset) -> np.ndarray:
    """Units by take and time, from whole examples: where slices overlap, the first one's."""
    found: dict[tuple[str, int], np.ndarray] = {}
    for example in dataset:
        first = example.start // (dataset.manifest.config.rate // 50)
        for number, unit in enumerate(example.units):
            found.setdefault((example.take, first + number), unit)
    return np.stack(list(found.values()))


def test_every_moment_once(place):
    dataset = Dataset.open(place, held_out=0)
    index = build_index(dataset)
    expected = moments(dataset)
    assert len(expected) < dataset.frames.sum() // 2  # slices overlap
    assert rows(index.arrays.vectors) == rows(expected)
    assert len(index.arrays.sizes) == list_count(len(expected))
    assert build_index(dataset).to_bytes() == index.to_bytes()


def test_speakers_and_held_out(place):
    dataset = Dataset.open(place, held_out=0.3)
    anna, berta = (build_index(dataset, speaker=name).count for name in ("anna", "berta"))
    assert anna + berta == build_index(dataset).count
    assert rows(build_index(dataset.training).arrays.vectors) == rows(moments(dataset.training))
    with pytest.raises(SettingsError, match="no speaker 'carla'"):
        build_index(dataset, speaker="carla")
    with pytest.raises(TrainingError, match="no content units"):
        build_index(dataset[:0])
    with pytest.raises(SettingsError, match="max_vectors"):
        build_index(dataset, max_vectors=0)


def test_only_units_are_read_and_a_sample_bounds_them(place, monkeypatch):
    dataset = Dataset.open(place, held_out=0)
    expected = moments(dataset)
    monkeypatch.setattr(Dataset, "__getitem__", None)
    given = []
    build = RetrievalIndex.build

    def spy(vectors, **options):
        given.append(vectors)
        return build(vectors, **options)

    monkeypatch.setattr(RetrievalIndex, "build", spy)
    index = build_index(dataset, max_vectors=60, seed=3)
    assert len(given[0]) == 120 < len(expected)
    assert set(rows(given[0])) <= set(rows(expected))
    assert index.count == 60  # k-means centres
    assert build_index(dataset, max_vectors=60, seed=3).to_bytes() == index.to_bytes()
    other = build_index(dataset, max_vectors=60, seed=4)
    assert rows(other.arrays.vectors) != rows(index.arrays.vectors)


def test_the_sample_is_spread_over_the_dataset(place, monkeypatch):
    dataset = Dataset.open(place, held_out=0)
    dim, frames = dataset.manifest.networks.dim, dataset.frames // 2
    ends = frames.cumsum()
    monkeypatch.setattr(
        Dataset, "units", lambda self, at: np.tile(np.arange(ends[at] - frames[at], ends[at])[:, None], dim)
    )
    found = []
    monkeypatch.setattr(
        RetrievalIndex, "build", lambda vectors, **_: found.append(vectors[:, 0]) or SimpleNamespace(count=0)
    )
    build_index(dataset, max_vectors=200)
    (numbers,) = found
    assert len(numbers) == 400 and (np.diff(numbers) > 0).all()
    assert np.histogram(numbers, 4, (0, ends[-1]))[0].min() >= 70  # 100 expected, 3.5 deviations


def test_a_dataset_of_another_width_is_refused(place):
    dataset = Dataset.open(place)
    networks = replace(dataset.manifest.networks, dim=dataset.manifest.networks.dim + 1)
    dataset.manifest = replace(dataset.manifest, networks=networks)
    with pytest.raises(TrainingError, match="not the one of the manifest"):
        build_index(dataset)


def test_command(place, tmp_path):
    result = CliRunner().invoke(app, [str(place), "--out", str(tmp_path / "x" / "anna.index"), "--local"])
    assert result.exit_code == 0, result.output
    index = RetrievalIndex.read(tmp_path / "x" / "anna.index")
    assert index.to_bytes() == build_index(Dataset.open(place, held_out=0)).to_bytes()
    lists = len(index.arrays.sizes)
    assert f"{index.count} vectors of {index.dim} numbers in {lists} list" in result.output
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["anna.index"]
    for out in ("anna.pth", str(tmp_path) + "/", "s3://anna.index"):
        failed = CliRunner().invoke(app, [str(place), "--out", out, "--local"])
        assert isinstance(failed.exception, SettingsError)
    missing = CliRunner().invoke(app, [str(tmp_path), "--out", str(tmp_path / "y.index"), "--local"])
    assert isinstance(missing.exception, TrainingError)
    assert not (tmp_path / "y.index").exists()


@pytest.mark.xdist_group("ray")
def test_as_a_task_of_ray(ray_cluster, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [str(place), "--out", "anna.index", "--speaker", "anna"])
    assert result.exit_code == 0, result.output
    here = build_index(Dataset.open(place, held_out=0), speaker="anna")
    assert RetrievalIndex.read(tmp_path / "anna.index").to_bytes() == here.to_bytes()
    failed = CliRunner().invoke(app, [str(place), "--out", "b.index", "--speaker", "carla"])
    assert isinstance(failed.exception, SettingsError)
    assert not (tmp_path / "b.index").exists()
