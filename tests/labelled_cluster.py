"""A Ray of three nodes on this machine, in a process of its own: a head without cores, and two labelled workers.

Tells its address; a line on its input takes the first worker away; the end of its input ends it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LABEL = "rocktop.io/vendor"
VENDORS = ("nvidia", "amd")


@contextmanager
def labelled_cluster() -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """The environment of its drivers, and what takes the first of ``VENDORS`` away."""
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_DEDUP_LOGS": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]),
    }
    environment.pop("RAY_ADDRESS", None)
    with subprocess.Popen(
        [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def lose() -> None:
            process.stdin.write("lose\n")
            process.stdin.flush()

        try:
            address = next((line.split()[1] for line in process.stdout if line.startswith("address ")), "")
            assert address, "the cluster did not start"
            yield {**environment, "RAY_ADDRESS": address}, lose
        finally:
            process.stdin.close()
            process.wait(60)


def main() -> None:
    import shutil

    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="rtl", dir="/tmp")  # sockets' paths must stay below 107 characters
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    memory = 100 << 20
    cluster = Cluster()
    try:
        cluster.add_node(
            num_cpus=0,
            include_dashboard=False,
            object_store_memory=memory,
            temp_dir=folder,
            _system_config=quick,
        )
        nodes = [
            cluster.add_node(num_cpus=1, object_store_memory=memory, temp_dir=folder, labels={LABEL: vendor})
            for vendor in VENDORS
        ]
        sys.stdout.write(f"address {cluster.address}\n")
        sys.stdout.flush()
        for _ in sys.stdin:
            cluster.remove_node(nodes.pop(0), allow_graceful=False)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
