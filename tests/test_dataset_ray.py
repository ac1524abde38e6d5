"""The same work in actors of Ray Data: the same bytes, also when one of them is killed."""

import os
import signal
import threading
import time
from dataclasses import replace

import psutil
import pytest
from dataset_parts import files, job, recordings

from rocktop_ray.errors import ModelMissingError
from train_loops.dataset.build import build_dataset
from train_loops.dataset.features import Builders
from train_loops.dataset.runners import LocalRunner, RayRunner

pytestmark = pytest.mark.xdist_group("ray")
pytest.importorskip("pandas", reason="Ray Data needs pandas: pip install 'rocktop-ray[train]'")


def kill_one(killed: list[int], parts) -> None:
    """SIGKILL to one worker that makes features, once some part is there."""
    end = time.monotonic() + 120
    while not killed and time.monotonic() < end:
        if any(parts.glob("*/*/*.parquet")):
            for child in psutil.Process().children(recursive=True):
                if " ".join(child.cmdline()).startswith("ray::MapWorker(Map(_FeatureActor)"):
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)
                    return
        time.sleep(0.02)


def test_workers_of_ray(ray_cluster, tmp_path):
    source = recordings(tmp_path / "in")
    here = build_dataset(job(source, tmp_path / "here"), LocalRunner())
    made = job(source, tmp_path / "there", slow=True)
    runner = RayRunner(2, cpus=0.5)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(killed, tmp_path / "there" / "parts"))
    killer.start()
    there = build_dataset(made, runner)
    killer.join()
    assert killed
    assert there == here
    assert files(tmp_path / "there") == files(tmp_path / "here")


def missing(name, *, device):
    raise ModelMissingError("the weights are not installed", stage="models")


def test_a_workers_error_is_itself(ray_cluster, tmp_path):
    made = replace(job(recordings(tmp_path / "in"), tmp_path / "out"), builders=Builders(missing, missing))
    with pytest.raises(ModelMissingError, match="not installed"):
        build_dataset(made, RayRunner(1, cpus=0.1))
