"""The examples of docs/stream.md, run as they stand against the gateway's live route."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_server import LiveServer, serving_live

from rocktop_ray.errors import ProtocolError
from rocktop_ray.live.messages import TYPES, CloseCode, Unknown
from rocktop_ray.live.protocol import parse_client, parse_server
from serve_apps.live.session.line import Line

PAGE = (Path(__file__).parent.parent / "docs" / "stream.md").read_text()


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving_live(tmp_path_factory.mktemp("live")) as running:
        yield running


def take() -> np.ndarray:
    """Longer than the window."""
    return (0.3 * np.sin(np.arange(150_000) / 30)).astype(np.float32)


@pytest.fixture
def beyond(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of audio beyond the window that waited at the server, each time that it looked."""
    found: list[float] = []
    look = Line.look

    def looks(line: Line) -> None:
        found.append(line._course.waiting - line.window)
        look(line)

    monkeypatch.setattr(Line, "look", looks)
    return found


def test_the_python_client_runs(server: LiveServer, beyond: list[float]) -> None:
    scope: dict[str, Any] = {}
    exec(examples("python")[0], scope)
    result = asyncio.run(scope["convert"](server.url, take(), 24_000, voice="anna", key=2))
    assert len(result) == len(take()) and np.abs(result).max() > 0.01
    assert max(beyond) <= 0
    with pytest.raises(RuntimeError, match="nobody"):
        asyncio.run(scope["convert"](server.url, take(), 24_000, voice="nobody"))


def test_the_javascript_client_runs(server: LiveServer, tmp_path: Path, beyond: list[float]) -> None:
    node = shutil.which("node")
    help = "" if node is None else subprocess.run([node, "--help"], capture_output=True, text=True, check=True).stdout
    if node is None or "--experimental-websocket" not in help:
        pytest.skip("needs a Node.js that has WebSocket behind a flag")
    program = tmp_path / "client.js"
    call = "convert(process.argv[2], new Float32Array(150000).map((_, i) => 0.3 * Math.sin(i / 30)), 24000, "
    call += "{ voice: process.argv[3], key: 2 }).then((out) => console.log(JSON.stringify([...out])));"
    program.write_text(examples("javascript")[0] + call)

    def run(voice: str) -> subprocess.CompletedProcess[str]:
        words = [node, "--experimental-websocket", str(program), server.url, voice]
        return subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)

    done = run("anna")
    assert done.returncode == 0, done.stderr
    assert max(beyond) <= 0
    scope: dict[str, Any] = {}
    exec(examples("python")[0], scope)
    wanted = asyncio.run(scope["convert"](server.url, take(), 24_000, voice="anna", key=2))
    result = np.array(json.loads(done.stdout))
    assert len(result) == len(wanted) and np.abs(result - wanted).max() < 1e-3
    assert "4404" in run("nobody").stderr


def test_every_message_is_shown_and_is_one() -> None:
    shown = set()
    blocks = "\n".join(examples("json")) + "\n" + "\n".join(re.findall(r"`(\{\"type\".*?\})`", PAGE))
    for text in re.findall(r'\{"type": .*?\}(?=\n\{|\n\n|\n$|$)', blocks, re.DOTALL):
        message = None
        for parse in (parse_client, parse_server):
            try:
                read = parse(text.strip())
            except ProtocolError:
                continue
            message = read if not isinstance(read, Unknown) else message
        assert message is not None, text
        shown.add(TYPES[type(message)])
    assert shown == set(TYPES.values())


def test_every_close_code_is_there() -> None:
    table = PAGE.split("## Close codes")[1].split("##")[0]
    assert all(str(int(code)) in table for code in CloseCode)
