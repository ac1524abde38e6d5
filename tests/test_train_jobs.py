"""The three jobs of training by ``ray job submit`` on a real cluster of one node: stopped, then finished."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from urllib.request import urlopen

import psutil
import pytest
from dataset_parts import RATE, files, song, write
from free_ports import free_ports
from training_data import as_file, recipe_16k, training_config

from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.store.storage import open_storage
from rocktop_ray.voices.rvc_format import read_rvc
from train_loops.rvc.asked import Asked, ended_by_signal

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(900)]
pytest.importorskip("pandas", reason="Ray Data needs pandas: pip install 'rocktop-ray[train]'")

PROJECT = Path(__file__).parent.parent
TAKES = 24
_PATIENCE = 240.0


@dataclass(frozen=True)
class Cluster:
    """A Ray of one node with a dashboard, as ``ray start --head`` makes it."""

    address: str
    client: JobSubmissionClient
    folder: Path
    environment: dict[str, str]

    def submit(self, command: str) -> str:
        """By the SDK; the job's id."""
        return self.client.submit_job(entrypoint=command, entrypoint_num_cpus=0.1, runtime_env=self.runtime())

    def runtime(self) -> dict[str, Any]:
        return {"working_dir": str(PROJECT), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}

    def until(self, job: str, condition: Callable[[], bool] = lambda: False) -> bool:
        """Waits until the condition holds (True) or the job has ended."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if condition():
                return True
            if self.client.get_job_status(job).is_terminal():
                return condition()
            time.sleep(0.05)
        raise TimeoutError(self.client.get_job_logs(job)[-5000:])

    def finish(self, job: str, status: str = "SUCCEEDED") -> str:
        """Waits for the job's end and returns its log."""
        self.until(job)
        log = self.client.get_job_logs(job)
        assert self.client.get_job_status(job).value == status, log[-5000:]
        return log

    def stop(self, job: str) -> str:
        assert self.client.stop_job(job)
        return self.finish(job, "STOPPED")


@contextmanager
def started(home: Path) -> Iterator[Cluster]:
    """Nothing of it is left afterwards; ``ray stop`` is not used, since it ends every Ray of the machine."""
    folder = Path(tempfile.mkdtemp(prefix="rtj", dir="/tmp"))  # sockets' paths must stay below 107 characters
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "OMP_NUM_THREADS": "1",
        "ROCKTOP_HOME": str(home),
    }
    environment.pop("RAY_ADDRESS", None)
    names = ("dashboard-port", "port", "ray-client-server-port", "dashboard-agent-listen-port")
    names += ("dashboard-agent-grpc-port", "metrics-export-port", "runtime-env-agent-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2", "--num-gpus=0"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"),
        *(f"--object-store-memory={200 << 20}", *(f"--{name}={value}" for name, value in ports.items())),
    ]
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{ports['dashboard-port']}"
        wait_for(address, head, folder / "head.log")
        with patch.dict(os.environ, {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}):
            from ray.job_submission import JobSubmissionClient

            yield Cluster(address, JobSubmissionClient(address), folder, environment)
    finally:
        end(head)
        shutil.rmtree(folder, ignore_errors=True)


def end_with_parent() -> None:
    """Asks Linux to end this process when the tests are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def wait_for(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    """Until jobs can be submitted."""
    end = time.monotonic() + 200
    while time.monotonic() < end and head.poll() is None:
        with suppress(OSError), urlopen(f"{address}/api/jobs/", timeout=20) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise RuntimeError("Ray did not start:\n" + log.read_text(errors="replace")[-5000:])


def end(head: subprocess.Popen[bytes]) -> None:
    """The head ends its own processes; what is left after that is killed."""
    tree = [head_process := psutil.Process(head.pid), *head_process.children(recursive=True)]
    head.terminate()
    _, left = psutil.wait_procs(tree, timeout=60)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait()


@pytest.fixture(scope="module")
def cluster(ray_home: Path) -> Iterator[Cluster]:
    with started(ray_home) as made:
        yield made


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs") / "takes"
    for number in range(TAKES):
        write(folder / f"{number:02}.wav", song(6 + number % 3, number))
    return folder


def options(takes: Path, out: Path) -> list[str]:
    """Networks of ``ray_home``, which are small, and 16 kHz."""
    return [str(takes), "--out", str(out), "--encoder", "hubert-v1", "--pitch", "pm", "--set", f"rate={RATE}"]


@pytest.fixture(scope="module")
def undisturbed(ray_home: Path, takes: Path) -> Path:
    """The dataset as one process makes it, without Ray."""
    out = takes.parent / "undisturbed"
    environment = {**os.environ, "ROCKTOP_HOME": str(ray_home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "train_loops.preprocess", *options(takes, out), "--local"]
    subprocess.run(command, env=environment, cwd=PROJECT, check=True, capture_output=True)
    return out


def receipts(dataset: Path) -> int:
    return len(list(dataset.glob("receipts/*")))


def test_preprocess_is_stopped_and_goes_on(cluster: Cluster, takes: Path, undisturbed: Path) -> None:
    out = takes.parent / "set"
    command = ["python", "-m", "train_loops.preprocess", *options(takes, out)]
    submit = [
        *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.address, "--no-wait"),
        *("--submission-id", "first", "--working-dir", ".", "--entrypoint-num-cpus", "0.1", "--", *command),
    ]
    subprocess.run(submit, env=cluster.environment, cwd=PROJECT, check=True, capture_output=True)
    assert cluster.until("first", lambda: receipts(out) >= 3), cluster.client.get_job_logs("first")[-5000:]
    log = cluster.stop("first")
    assert f"{TAKES} takes of 1 speakers" in log
    done = receipts(out)
    assert done < TAKES
    assert not (out / "manifest.json").exists()

    log = cluster.finish(cluster.submit(" ".join(command)))
    told = next(line for line in log.splitlines() if "pieces of work are done" in line)
    assert f"{TAKES} of them are known, 0 to look at" in log
    assert int(told.split()[2]) >= done
    assert f"pieces of takes: {TAKES - int(told.split()[2])} of" in log
    assert "fingerprint" in log
    assert files(out) == files(undisturbed)


def test_what_is_sent_along_is_code(cluster: Cluster) -> None:
    """Of a checkout; data beside it stays where it is (``.rayignore``)."""
    cluster.finish(cluster.submit("python -c pass"))
    packages = list(cluster.folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/"))
    assert packages
    for package in packages:
        assert {path.name for path in package.iterdir()} <= {"actors", "rocktop_ray", "serve_apps", "train_loops"}
        assert sum(path.stat().st_size for path in package.rglob("*") if path.is_file()) < 40 << 20


def test_training_is_stopped_and_goes_on(cluster: Cluster, undisturbed: Path, tmp_path: Path) -> None:
    recipe = recipe_16k(batch_size=4)
    recipe = replace(recipe, synthesizer=replace(recipe.synthesizer, content_dim=256, speakers=1))
    rare = {"every_steps": 100_000, "every_minutes": 0.0}  # so that only the stop makes a checkpoint
    config = training_config(undisturbed, tmp_path / "out", recipe=recipe.as_mapping(), checkpoints=rare)
    as_file(config, tmp_path / "run.yaml")
    command = f"python -m train_loops.rvc --config-dir {tmp_path} --config-name run stop.steps="
    run = tmp_path / "out" / "anna"

    job = cluster.submit(f"{command}100000")
    began = cluster.until(job, lambda: "step 8 of 100000" in cluster.client.get_job_logs(job))
    assert began, cluster.client.get_job_logs(job)[-5000:]
    log = cluster.stop(job)
    assert "asked to end" in log
    assert " left (steps)" in log
    done = int(log.rpartition("ended as asked after ")[2].split()[0])
    assert [path.name[:15] for path in (run / "checkpoints").glob("step-*")] == [f"step-{done:010}"]

    log = cluster.finish(cluster.submit(f"{command}{done + 8}"))
    assert f"goes on at step {done}:" in log
    assert f"step {done + 8} of {done + 8}" in log
    assert read_rvc(run / "anna.pth").config.content_dim == 256
    assert json.loads((run / "run.json").read_text())["outcome"]["at"]["step"] == done + 8


def test_index(cluster: Cluster, undisturbed: Path, tmp_path: Path) -> None:
    cluster.finish(cluster.submit(f"python -m train_loops.index {undisturbed} --out {tmp_path}/anna.index"))
    assert RetrievalIndex.read(tmp_path / "anna.index").dim == 256


def test_places_that_would_go_with_the_job_are_refused(cluster: Cluster, takes: Path) -> None:
    log = cluster.finish(cluster.submit(f"python -m train_loops.preprocess {takes} --out set"), "FAILED")
    assert "error: set would lie in the job's own folder" in log


def test_the_first_signal_asks_and_the_second_ends(tmp_path: Path) -> None:
    asked = Asked(open_storage(tmp_path))
    heard: list[int] = []
    earlier = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with ended_by_signal(asked):
            assert not asked()
            signal.raise_signal(signal.SIGTERM)
            assert asked()
            assert not heard
            signal.raise_signal(signal.SIGTERM)
            assert heard == [signal.SIGTERM]
        asked.forget()
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 2
        (tmp_path / "file").write_bytes(b"")
        lost = Asked(open_storage(tmp_path / "file"))  # a store that cannot be written
        with ended_by_signal(lost):
            signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 3
        assert not lost()
    finally:
        signal.signal(signal.SIGTERM, earlier)
