"""A killed process is heard of before its memory is torn down, and what starts in its place stands back."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from serve_apps.live.compute.quiet import quietly
from serve_apps.live.transport.lifeline import hang_out, until_death
from serve_apps.nursery import Nursery, children, ready
from serve_apps.priority import hold_back, let_go, may_return, stand_back, standing_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads, and their file tables")
CHILD = """
import socket, threading
from serve_apps.live.transport.lifeline import hang_out
server = socket.create_server(("127.0.0.1", 0))
print(hang_out("127.0.0.1") or 0, server.getsockname()[1], flush=True)
kept = server.accept()[0]
kept.recv(1)
kept.close()
threading.Event().wait()
"""


def test_a_lifeline_breaks_with_its_process_and_holds_nothing_else() -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    assert child.stdout is not None
    line, port = map(int, child.stdout.readline().split())
    try:
        if not line:
            pytest.skip("this system allows no thread a file table of its own")
        usual = socket.create_connection(("127.0.0.1", port))

        async def run() -> None:
            waiting = asyncio.create_task(until_death("127.0.0.1", line))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            usual.sendall(b"x")
            usual.settimeout(60)
            assert usual.recv(1) == b""  # what the process closes is closed: the thread has no copy of it
            await asyncio.sleep(0.1)
            assert not waiting.done()
            os.kill(child.pid, signal.SIGKILL)
            assert await asyncio.wait_for(waiting, 60)

        asyncio.run(run())
    finally:
        child.kill()
        child.wait()


def test_where_there_is_no_lifeline_nobody_waits_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert asyncio.run(until_death("127.0.0.1", port)) is False


def test_a_lifeline_of_this_process_leaves_its_files_alone() -> None:
    port = hang_out("127.0.0.1")
    if port is None:
        pytest.skip("this system allows no thread a file table of its own")
    socket.create_connection(("127.0.0.1", port)).close()
    with Path(os.devnull).open("rb") as file:
        assert file.read() == b""


def test_loading_stands_back_and_leaves_others_alone() -> None:
    def priority() -> tuple[int, int]:
        return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = priority()
    policy, nice = asyncio.run(quietly(priority))
    assert nice >= 15 and policy == (os.SCHED_IDLE if may_return() else before[0])
    assert priority() == before

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(quietly(fail))


def test_a_starting_process_is_held_back_until_it_is_ready() -> None:
    if not may_return():
        pytest.skip("priorities cannot be given back here")
    nursery = Nursery(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        nursery.look()
        assert child.pid in children(os.getpid()) and not ready(child.pid)
        assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
        let_go(child.pid)
        assert os.sched_getscheduler(child.pid) == os.SCHED_OTHER
        hold_back(child.pid)
        nursery.close()
        nursery.run()
        assert os.sched_getscheduler(child.pid) == os.SCHED_OTHER
    finally:
        child.kill()
        child.wait()


def test_a_process_is_let_go_once_it_has_been_ready_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    if not may_return():
        pytest.skip("priorities cannot be given back here")
    is_ready = [False]
    monkeypatch.setattr("serve_apps.nursery.ready", lambda _: is_ready[0])
    nursery = Nursery(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def held() -> bool:
        nursery.look()
        return os.sched_getscheduler(child.pid) == os.SCHED_IDLE

    try:
        for looks in (True, False, True):
            is_ready[0], began = looks, time.monotonic()
            assert held()
        while held():
            assert time.monotonic() < began + 60
            time.sleep(0.1)
        assert time.monotonic() > began + 0.2, "at once"
        is_ready[0] = False
        assert not held(), "let go for good"
    finally:
        child.kill()
        child.wait()
    assert nursery._expecting == 0.0
    nursery.look()
    assert nursery._expecting > time.monotonic()


def test_a_replica_is_ready_once_it_is_initialised() -> None:
    program = "import sys, time; time.sleep(60)"
    for title, done in (
        ("ray::ServeReplica:rocktop:Live", True),
        ("ray::ServeReplica:rocktop:Live.initialize_and_get_metadata", False),
        ("ray::ServeReplica:rocktop:Live.__init__", False),
        ("ray::IDLE", False),
    ):
        child = subprocess.Popen([title, "-c", program], executable=sys.executable)
        try:
            deadline = time.monotonic() + 60
            while not (found := Path(f"/proc/{child.pid}/cmdline").read_bytes()).startswith(b"ray::"):
                assert time.monotonic() < deadline, found
            assert ready(child.pid) is done, title
        finally:
            child.kill()
            child.wait()


def test_a_thread_stands_back_for_a_moment() -> None:
    if not may_return():
        pytest.skip("priorities cannot be given back here")
    seen = []
    for wanted in (True, False):
        with standing_back(wanted):
            seen.append(os.sched_getscheduler(0))
    assert seen == [os.SCHED_IDLE, os.SCHED_OTHER] and os.sched_getscheduler(0) == os.SCHED_OTHER


def test_threads_that_stand_back_by_themselves_stay_there() -> None:
    if not may_return():
        pytest.skip("priorities cannot be given back here")
    back, done = threading.Event(), threading.Event()

    def load() -> None:
        stand_back(threading.get_native_id())
        back.set()
        done.wait(60)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        assert back.wait(60) and thread.native_id is not None
        let_go(os.getpid())
        assert os.sched_getscheduler(thread.native_id) == os.SCHED_IDLE
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    finally:
        done.set()
        thread.join()
