"""The same work in actors of Ray Data: the same bytes, also when one of them is killed."""

from dataclasses import replace
from functools import partial

import pytest
from dataset_parts import dying_encoder, extractor, files, job, recordings

from rocktop_ray.errors import ModelMissingError
from train_loops.dataset.build import build_dataset
from train_loops.dataset.features import Builders
from train_loops.dataset.runners import LocalRunner, RayRunner

pytestmark = pytest.mark.xdist_group("ray")
pytest.importorskip("pandas", reason="Ray Data needs pandas: pip install 'rocktop-ray[train]'")


def test_workers_of_ray(ray_cluster, tmp_path):
    source = recordings(tmp_path / "in")
    here = build_dataset(job(source, tmp_path / "here"), LocalRunner())
    killed = tmp_path / "killed"
    dying = partial(dying_encoder, parts=tmp_path / "there" / "parts", killed=killed)
    made = replace(job(source, tmp_path / "there"), builders=Builders(dying, extractor))
    there = build_dataset(made, RayRunner(2, cpus=0.5))
    assert killed.exists()
    assert there == here
    assert files(tmp_path / "there") == files(tmp_path / "here")


def missing(name, *, device):
    raise ModelMissingError("the weights are not installed", stage="models")


def test_a_workers_error_is_itself(ray_cluster, tmp_path):
    made = replace(job(recordings(tmp_path / "in"), tmp_path / "out"), builders=Builders(missing, missing))
    with pytest.raises(ModelMissingError, match="not installed"):
        build_dataset(made, RayRunner(1, cpus=0.1))
