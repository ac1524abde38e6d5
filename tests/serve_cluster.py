"""One local Ray for all tests of a worker that need one, and a small home of voices and models for them.

Tests that use ``ray_cluster`` are marked ``@pytest.mark.xdist_group("ray")``. Every test run loads this module, so it
imports what is heavy where it is used.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from free_ports import free_port

if TYPE_CHECKING:
    from serve_apps.config import ServeConfig


PITCH = "pm"
"""The pitch extractor of these tests: it needs no weights."""


def small_home(home: Path, voices: tuple[str, ...] = ("anna", "berta")) -> Path:
    """A ``$ROCKTOP_HOME`` with a very small HuBERT and very small voices; the first voice has an index."""
    import numpy as np
    import torch
    from small_hubert import save_fairseq, small_state
    from tiny_voices import tiny_file

    from rocktop_ray.features.index import RetrievalIndex
    from rocktop_ray.voices.library import VoiceLibrary

    (home / "models").mkdir(parents=True)
    state, config = small_state()
    generator = torch.Generator().manual_seed(1)
    state["final_proj.weight"] = torch.randn(256, config["hidden_size"], generator=generator) * 0.2
    state["final_proj.bias"] = torch.zeros(256)
    layers = str(
        [(dim, k, s) for dim, k, s in zip(config["conv_dim"], [10, 3, 3, 3, 3, 2, 2], [5, *[2] * 6], strict=True)]
    )
    save_fairseq(home / "models" / "hubert_base.pt", state, 4, conv_pos_groups=4, conv_feature_layers=layers)
    library = VoiceLibrary(home / "voices")
    sources = home / "sources"
    sources.mkdir()
    for seed, name in enumerate(voices):
        torch.save(tiny_file(seed=seed), sources / f"{name}.pth")
        index = None
        if seed == 0:
            index = sources / f"{name}.index"
            RetrievalIndex.build(np.random.default_rng(0).standard_normal((30, 256))).save(index)
        library.import_(sources / f"{name}.pth", name=name, index=index)
    return home


def take_bytes(seconds: float = 0.6, hz: float = 220.0) -> bytes:
    """A take as a WAV file."""
    from stand_ins import tone

    from rocktop_ray.audio.encode import encode_bytes

    return encode_bytes(tone(seconds, hz=hz), "wav")


def small_config(home: Path, **changes: object) -> ServeConfig:
    """A deployment that fits beside others: shares of CPUs, one thread, nothing preloaded."""
    from serve_apps.config import ServeConfig

    tiny = {"cpus": 0.01}
    return ServeConfig.model_validate(
        {
            "threads": 1,
            "store": str(home / "serve"),
            "gateway": {"cpus": 0.01, "concurrency": 64},
            "converter": {"cpus": 0.01, "concurrency": 8},
            **dict.fromkeys(("content", "pitch", "acoustic", "vocoder"), tiny),
            "voices": {"preload": []},
            "live": {"replicas": 1, "cpus": 0.01, "preload": [], "ears": {"replicas": 1, "cpus": 0.01}},
            **changes,
        }
    )


@contextmanager
def local_ray(home: Path) -> Iterator[int]:
    """A Ray of this process' own, with Serve's HTTP proxy on the port that is given; all of it is gone afterwards."""
    import ray
    from ray import serve

    folder = tempfile.mkdtemp(prefix="rt", dir="/tmp")  # sockets' paths must stay below 107 characters
    port = free_port()
    environment = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # as rocktop-serve has it
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_apps.deaf.middlewares",  # the same
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)]),
    }
    with patch.dict(os.environ, environment):
        try:
            with patch.dict(os.environ, {"ROCKTOP_HOME": str(home)}):  # of the replicas; tests to come keep their own
                ray.init(
                    address="local",
                    num_cpus=2,
                    num_gpus=0,
                    include_dashboard=False,
                    object_store_memory=200 << 20,
                    _temp_dir=folder,
                    log_to_driver=False,
                    logging_level="warning",
                    configure_logging=False,
                )
            serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": None})
            yield port
        finally:
            if ray.is_initialized():
                serve.shutdown()
                ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of ``ray_cluster``: every replica's ``$ROCKTOP_HOME``."""
    return small_home(tmp_path_factory.mktemp("serve") / "home")


@pytest.fixture(scope="session")
def one_ray(ray_home: Path) -> Iterator[int]:
    """The one Ray of this test run."""
    with local_ray(ray_home) as port:
        yield port


@pytest.fixture(scope="module")
def ray_cluster(one_ray: int, ray_home: Path) -> Iterator[int]:
    """The port of Serve's proxy, in the one Ray of this test run. Applications are up to the test, and go with it."""
    with patch.dict(os.environ, {"ROCKTOP_HOME": str(ray_home)}):  # tests of other modules keep their own
        yield one_ray


def replica_pids(application: str, deployment: str) -> list[int]:
    """Processes of the running replicas of a deployment, in the Ray that this process started."""
    import psutil

    title = f"ray::ServeReplica:{application}:{deployment}"
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if " ".join(child.cmdline()).startswith(title):
                found.append(child.pid)
    return found


def kill_replica(application: str, deployment: str) -> int:
    """SIGKILL to one replica's process; its id."""
    pid = replica_pids(application, deployment)[0]
    os.kill(pid, signal.SIGKILL)
    return pid
