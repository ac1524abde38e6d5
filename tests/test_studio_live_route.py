"""The studio's live mode in a real Chromium before the real ``/v1/stream``, with a very small voice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import gateway_server
import numpy as np
import pytest
from live_page import OUTPUT, Relay, keep_takes, noise, recorded, row, start, until_row
from live_voices import TinyVoices
from studio_browser import Watched, browsing, studio_server, watched

from rocktop_ray.audio.encode import encode_bytes
from rocktop_ray.protocols import Array
from serve_apps.config import ServeConfig
from serve_apps.live.compute.local import LocalEngine
from serve_apps.live.desk import LocalDesk
from serve_apps.live.engine import Fed, Feed
from serve_apps.services import Services

pytestmark = pytest.mark.xdist_group("browser")


class Listening(LocalEngine):
    """Remembers what it was fed."""

    def __init__(self, config: ServeConfig) -> None:
        super().__init__(TinyVoices(), config.live)
        self.keys: set[float] = set()
        self.voices: set[str] = set()
        self.bypassed = self.skipped = 0
        self.loudest = 0.0
        """Of what was converted."""

    async def feed(self, feed: Feed, spare: Feed | None = None) -> Fed:
        self.voices.add(feed.voice.name)
        self.keys |= {piece.settings.key for piece in feed.pieces}
        self.bypassed += sum(piece.bypass for piece in feed.pieces)
        self.skipped += sum(piece.skip for piece in feed.pieces)
        fed = await super().feed(feed)
        for piece, wave in zip(feed.pieces, fed.waves, strict=True):
            if not piece.bypass and not piece.skip:
                self.loudest = max(self.loudest, float(np.abs(wave).max()))
        return fed


@pytest.fixture(scope="module")
def engines() -> list[Listening]:
    return []


@pytest.fixture(scope="module")
def server(engines: list[Listening], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    build = gateway_server.local_services

    def with_streams(config: ServeConfig, conversions: Any = None) -> Services:
        engines.append(Listening(config))
        return replace(build(config, conversions), live=engines[0], desk=LocalDesk(config.live))

    # However slow the machine is: the stream is let in, and its blocks are in time.
    patient = {"load": 100.0, "slack_ms": 1000.0}
    with (
        patch.object(gateway_server, "local_services", with_streams),
        studio_server(tmp_path_factory.mktemp("studio"), live=patient) as gateway,
    ):
        yield gateway
    engines[0].close()


@pytest.fixture(scope="module")
def relay(server: Any) -> Iterator[Relay]:
    made = Relay(int(server.url.rpartition(":")[2]))
    yield made
    made.close()


@pytest.fixture
def studio(relay: Relay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    microphone = encode_bytes(noise(), "wav16", rate=48_000)
    with (
        browsing(tmp_path_factory.mktemp("browser"), microphone) as browser,
        watched(browser, relay.url) as watch,
    ):
        watch.open().choose().page.click("#mode-live")
        yield watch


def record(studio: Watched) -> None:
    """A second and a half, into the list."""
    page = studio.page
    page.click("#live-panel .record")
    studio.until("document.querySelector('#live-panel .row .time').textContent > '0:01.5'")
    page.keyboard.press("r")
    page.wait_for_selector(".take.chosen >> text=live 20", timeout=60_000)


def same_from_the_first_sample(dry: Array, wet: Array) -> bool:
    size = 2 * len(dry)
    likeness = np.fft.irfft(np.fft.rfft(wet, size) * np.conj(np.fft.rfft(dry, size)))
    return bool(likeness.argmax() == 0 and likeness[0] > 0.9 * np.sum(dry**2))


def test_sing_change_compare_and_keep(studio: Watched, engines: list[Listening]) -> None:
    page, engine = studio.page, engines[0]
    keep_takes(studio)
    start(studio)
    studio.until(f"{OUTPUT} > -55")
    until_row(studio, "Conversion", r"^[1-9]\d* ms")
    studio.until("document.querySelector('.delay-total').textContent.endsWith('ms')")
    total, conversion = (
        float(text.split()[0]) for text in (page.text_content(".delay-total"), row(studio, "Conversion"))
    )
    assert conversion + 40 < total < 20_000, "no less than conversion and block"
    assert "muted" in page.text_content("#live-panel .state")
    page.click("#live-hear")
    assert "muted" not in page.text_content("#live-panel .state")

    page.fill("#set-key", "5")
    page.press("#set-key", "Enter")
    page.select_option("#voice-select", "berta")
    until_row(studio, "Load", r"\d+ %, 1 stream")
    for _ in range(600):
        if 5.0 in engine.keys and "berta" in engine.voices:
            break
        page.wait_for_timeout(100)
    assert engine.voices == {"anna", "berta"} and 5.0 in engine.keys

    assert not engine.bypassed
    record(studio)
    page.keyboard.down("a")
    for _ in range(600):
        if engine.bypassed > 15:  # what was converted before has left
            break
        page.wait_for_timeout(100)
    record(studio)
    page.keyboard.up("a")
    late = row(studio, "Late")
    page.keyboard.press("Space")
    studio.until("document.querySelector('#live-panel').dataset.phase === 'idle'")
    assert page.locator(".take").count() == 2

    page.click("#mode-take")
    studio.loaded("a")
    studio.loaded("b")
    dry, wet = recorded(studio)
    assert len(dry) > 44_100 and np.abs(dry).max() > 0.1
    # What was bypassed is the take, at the very sample: the delay that the server states is the one that there is.
    assert same_from_the_first_sample(dry, wet)
    # What was not is something else, unless the machine was too slow for it.
    dry, wet = recorded(studio, 1)
    assert np.sqrt(np.mean(wet**2)) > 1e-4 and engine.loudest > 1e-3
    if not engine.skipped and late.startswith("0 "):
        assert abs(np.sum(dry * wet)) < 0.5 * np.sqrt(np.sum(dry**2) * np.sum(wet**2))


def test_a_cut_connection_leaves_no_gap(studio: Watched, relay: Relay, engines: list[Listening]) -> None:
    """Recorded through the cut, bypassed throughout: every sample is there, and where it was sung."""
    studio.excused = ("WebSocket", "ERR_")
    page, engine = studio.page, engines[0]
    keep_takes(studio)
    start(studio)
    studio.until(f"{OUTPUT} > -55")
    before = engine.bypassed
    page.keyboard.down("a")
    for _ in range(600):
        if engine.bypassed > before + 15:
            break
        page.wait_for_timeout(100)
    page.click("#live-panel .record")
    studio.until("document.querySelector('#live-panel .row .time').textContent > '0:01.0'")
    relay.cut()
    until_row(studio, "Connections", "^1 resumed, 0 anew")
    studio.until("document.querySelector('#live-panel').dataset.phase === 'live'")
    page.wait_for_timeout(1000)
    page.keyboard.press("r")
    page.wait_for_selector(".take.chosen >> text=live 20", timeout=60_000)
    page.keyboard.up("a")
    page.click("#live-go")
    page.click("#mode-take")
    studio.loaded("b")
    dry, wet = recorded(studio)
    assert len(dry) > 2 * 44_100 and same_from_the_first_sample(dry, wet)
