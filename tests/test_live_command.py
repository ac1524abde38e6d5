"""``rocktop live``: files, pipes and a stand-in for a sound card, through a real small server and without one."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command_line import rocktop
from live_echo import EchoServer, abort, refuse
from websockets.asyncio.server import ServerConnection

from rocktop_ray import cli
from rocktop_ray.commands import live_run
from rocktop_ray.errors import StreamLostError
from rocktop_ray.live.messages import CloseCode, Problem, Start

RATE = 8000


@pytest.fixture()
def server() -> Iterator[EchoServer]:
    """An echo server in a thread of its own."""
    echo, ready, loop = EchoServer(), threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        async with echo.running():
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield echo
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    loop.close()


@pytest.fixture()
def take(tmp_path: Path) -> Path:
    path = tmp_path / "take.wav"
    soundfile.write(path, song(), RATE, subtype="FLOAT")
    return path


def song(samples: int = 12_345) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, 0.5, samples).astype(np.float32)


def read(path: Path) -> tuple[np.ndarray, int]:
    audio, rate = soundfile.read(path, dtype="float32")
    return audio, rate


def test_a_file_comes_back_as_long_as_it_is(
    server: EchoServer, take: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.wav"
    code, said, err = rocktop(capsys, "live", take, "-o", out, "--url", server.url, "--protect", "0.2", "--stats")
    audio, rate = read(out)
    assert (code, rate) == (0, RATE) and np.array_equal(audio, song())
    assert "out.wav: 1.54 s, delay 88 ms" in said and "compute 1.0/2.0/3.0 ms" in err
    start = server.first[0]
    assert isinstance(start, Start) and start == Start("bundle", RATE, "f32", 320, "free", {"protect": 0.2})


def test_loud_results_are_turned_down_as_a_whole(
    server: EchoServer, take: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.flac"
    assert rocktop(capsys, "live", take, "-o", out, "--url", server.url, "--key", "16", "--rate", "16000")[0] == 0
    audio, rate = read(out)
    assert rate == 16_000 and abs(len(audio) - 2 * len(song())) <= 1
    assert np.abs(audio).max() == pytest.approx(10 ** (-1 / 20), abs=1e-5)


def test_a_lost_connection_is_told_and_not_heard(
    server: EchoServer, take: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def drop(socket: ServerConnection, count: int) -> None:
        if count == 12:
            abort(socket)

    server.do = drop
    code, _, err = rocktop(capsys, "live", take, "-o", tmp_path / "out.wav", "--url", server.url, "--block", "20")
    assert code == 0 and np.array_equal(read(tmp_path / "out.wav")[0], song())
    assert "connection lost" in err and "going on after" in err


def test_a_file_in_live_pace_takes_its_time(
    server: EchoServer, take: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert rocktop(capsys, "live", take, "-o", tmp_path / "out.wav", "--url", server.url, "--pace", "live")[0] == 0
    assert time.monotonic() - began > 1.5
    assert np.array_equal(read(tmp_path / "out.wav")[0], song())


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--pace", "fast"], 64, "live, free"),
        (["--raw", "s24"], 64, "f32, s16"),
        (["--raw", "s16"], 64, "--raw: only with raw samples (-)"),
        (["--device", "3"], 64, "--device: only with a microphone or a loudspeaker"),
        (["--output-device", "3", "--buffer", "40"], 64, "--output-device, --buffer: only with a loudspeaker"),
        (["--wire", "s16", "--patience", "0"], 64, "--wire, --patience: only with --url"),
        (["--key", "99"], 64, "key must be between"),
        (["--url", "ftp://x"], 64, "address"),
        (["--url", "ws://me:secret@127.0.0.1:9"], 64, "--api-key"),
        (["--url", "ws://127.0.0.1:9"], 69, "cannot connect"),
        (["--url", "ws://127.0.0.1:9", "--local", "--pitch", "fcpe"], 64, "--local, --pitch: only without a server"),
        (["--rate", "4000"], 64, "8000 to 192000"),
        (["--voice", "nobody"], 66, "nobody"),
    ],
)
def test_wrong_words(
    take: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    got, out, err = rocktop(capsys, "live", take, "-o", tmp_path / "out.wav", *words)
    assert (got, out) == (code, "") and says in err and len(err.strip().splitlines()) == 1 and "secret" not in err
    assert not (tmp_path / "out.wav").exists()


def test_a_take_is_not_written_over(server: EchoServer, take: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = rocktop(capsys, "live", take, "-o", take, "--url", server.url)
    assert code == 64 and "over itself" in err and np.array_equal(read(take)[0], song())


def test_a_refusal_leaves_no_file(
    server: EchoServer, take: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def full(socket: ServerConnection, count: int) -> None:
        if count == 20:
            await refuse(socket, CloseCode.TOO_MUCH, Problem("too_much", "Too much", "more than I take", 413))

    server.do = full
    code, _, err = rocktop(capsys, "live", take, "-o", tmp_path / "out.wav", "--url", server.url)
    assert code == 77 and "more than I take" in err and not (tmp_path / "out.wav").exists()
    assert rocktop(capsys, "live", tmp_path / "none.wav", "-o", tmp_path / "out.wav", "--url", server.url)[0] == 65


class Pipe:
    """In place of ``sys.stdin`` and ``sys.stdout``."""

    encoding = "utf-8"

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)

    def write(self, text: str) -> None:
        raise AssertionError(f"text between the samples: {text!r}")


@pytest.mark.parametrize(
    ("words", "data", "says"),
    [
        (["--raw", "s16"], (song() * 32767).astype("<i2").tobytes(), ""),
        (["--key", "16"], song().tobytes(), ""),
        ([], b"\xff" * 4000, "not numbers"),
        ([], b"", "the input is empty"),
    ],
    ids=["s16", "loud", "garbage", "nothing"],
)
def test_raw_samples_go_through_pipes(
    server: EchoServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    data: bytes,
    says: str,
) -> None:
    out = Pipe()
    monkeypatch.setattr(sys, "stdin", Pipe(data + b"\1"))  # half a sample at the end counts for nothing
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["rocktop", "live", "-", "-o", "-", "--url", server.url, "--rate", "8000", *words])
    monkeypatch.setenv("ROCKTOP_API_KEY", "hush")
    if says:
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 65 and says in capsys.readouterr().err
        return
    with contextlib.suppress(SystemExit):
        cli.main()
    got = out.buffer.getvalue()
    assert server.headers == ["Bearer hush"]
    if "s16" in words:
        assert got == data
    else:
        limited = np.frombuffer(got, "<f4")
        assert len(limited) == len(song()) and 0.85 < np.abs(limited).max() <= 10 ** (-1 / 20)


def command(*words: object) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "rocktop_ray", "live", *map(str, words)], **pipes)


def test_interrupt_ends_a_pipe_well_and_keeps_it(server: EchoServer, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    with command("-", "-o", out, "--url", server.url, "--rate", RATE) as process:
        assert process.stdin is not None
        process.stdin.write(song(3200).tobytes())
        process.stdin.flush()
        deadline = time.monotonic() + 120
        while server.blocks < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0  # with its input still open
        said, err = process.communicate()
    assert b"out.wav: 0.40 s" in said and not err, err
    assert np.array_equal(read(out)[0], song(3200))


def test_a_reader_that_goes_is_one_clear_error(server: EchoServer, take: Path) -> None:
    with command(take, "-o", "-", "--url", server.url, "--rate", "48000") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(1000)
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 74 and err.strip() == b"rocktop: store: whoever read the output is gone"


def test_interrupt_keeps_the_beginning_of_a_file(
    server: EchoServer, take: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupt(socket: ServerConnection, count: int) -> None:
        if count == 10:
            os.kill(os.getpid(), signal.SIGINT)

    server.do = interrupt
    soundfile.write(take, song(160_000), RATE, subtype="FLOAT")  # far from its end, however late the signal is heeded
    code, _, err = rocktop(capsys, "live", take, "-o", tmp_path / "out.wav", "--url", server.url, "--pace", "live")
    kept = read(tmp_path / "out.wav")[0]
    assert code == 130 and "stopped; the first" in err
    assert 3200 <= len(kept) < 160_000 and np.array_equal(kept, song(160_000)[: len(kept)])


class FakeCard:
    """A sound card whose microphone hears ``take``, and that keeps what it plays."""

    def __init__(self, take: np.ndarray, speed: float = 1.0, stop: Callable[[], None] | None = None) -> None:
        self.rate, self.troubles = RATE, 0
        self.played: list[np.ndarray] = []
        self._take, self._speed, self._stop = take, speed, stop
        self._running = True
        self._threads: list[threading.Thread] = []

    def start(self, heard: Callable[[np.ndarray], None] | None, wanted: Callable[[int], np.ndarray] | None) -> None:
        for work, callback in ((self._record, heard), (self._play, wanted)):
            if callback is not None:
                self._threads.append(threading.Thread(target=work, args=(callback,), daemon=True))
                self._threads[-1].start()

    def _record(self, heard: Callable[[np.ndarray], None]) -> None:
        began = time.monotonic()
        for number, start in enumerate(range(0, len(self._take), 80)):
            if not self._running:
                return
            time.sleep(max(0.0, began + number * 0.01 / self._speed - time.monotonic()))
            heard(self._take[start : start + 80])
        if self._stop is not None:
            self._stop()

    def _play(self, wanted: Callable[[int], np.ndarray]) -> None:
        began, number = time.monotonic(), 0
        while self._running:
            number += 1
            time.sleep(max(0.0, began + number * 0.01 / self._speed - time.monotonic()))
            self.played.append(wanted(80))

    def stop(self) -> None:
        self._running = False
        for thread in self._threads:
            thread.join(1)


def wanted(server: EchoServer, **other: Any) -> live_run.Wanted:
    values: dict[str, Any] = dict.fromkeys(live_run.Wanted.__dataclass_fields__)
    values |= {"url": server.url, "voice": "bundle", "settings": {}, "bypass": False, "raw": "f32", "wire": "f32"}
    values |= {"patience": 5.0, "stats": False, "buffer": 0.1, "block": 20.0}
    return live_run.Wanted(**values | other)


def test_from_microphone_to_loudspeaker(server: EchoServer) -> None:
    low = np.fft.rfft(song(16_000))
    low[1600:] = 0  # nothing above 800 Hz: what a drifting clock stretches stays alike
    take = np.fft.irfft(low).astype(np.float32)
    likeness = []
    for _ in range(5):  # where the machine stands still, a part is left out
        card = FakeCard(take, stop=lambda: os.kill(os.getpid(), signal.SIGINT))
        live_run.run(wanted(server), lambda _, card=card: card)
        heard, part = np.concatenate(card.played), take[7000:8000]
        likeness.append((np.correlate(heard, part, "valid") / np.sum(part**2)).max())
        if likeness[-1] > 0.9:
            break
    assert likeness[-1] > 0.9, likeness
    start = server.first[0]
    assert isinstance(start, Start) and (start.pace, start.block) == ("live", 160)


def test_from_microphone_to_a_file_kept_when_the_server_goes(server: EchoServer, tmp_path: Path) -> None:
    async def away(socket: ServerConnection, number: int) -> bool:
        return abort(socket) if number else False

    async def drop(socket: ServerConnection, count: int) -> None:
        if count == 20:
            await (await socket.ping())  # all answers before have arrived
            abort(socket)

    server.welcome, server.do = away, drop
    words = wanted(server, out=str(tmp_path / "out.wav"), patience=0.3)
    with pytest.raises(StreamLostError, match=r"within 0\.3 s") as lost:
        live_run.run(words, lambda _: FakeCard(song(12_000), speed=2))  # less than may wait to be sent
    assert re.search(r"; the first 0\.[23]\d s are in .*out\.wav$", lost.value.message)
    kept = read(tmp_path / "out.wav")[0]
    assert 1600 < len(kept) < 4000 and np.array_equal(kept, song(40_000)[: len(kept)])
