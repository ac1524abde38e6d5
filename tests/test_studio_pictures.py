"""The pictures of docs/studio.md, taken with the bundle: run this file with STUDIO_PICTURES=docs/pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gateway_server
import pytest
from gateway_server import serving_gateway
from live_page import start, until_row
from live_stand_in import StandIn
from PIL import Image
from studio_browser import browsing, watched

from rocktop_ray import paths

SAMPLE = Path(__file__).parent.parent / "assets" / "samples" / "vocadito_10.wav"
pytestmark = [
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif("STUDIO_PICTURES" not in os.environ, reason="set STUDIO_PICTURES to a folder to take pictures"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("studio")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(paths.home() / "models")
    with serving_gateway(folder) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Streams that only echo: a picture shows the page, not a measurement."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(paths.home() / "models")
    build = gateway_server.build_api
    echo = StandIn(delay_ms=63)
    with (
        patch.object(gateway_server, "build_api", lambda services: echo.around(build(services))),
        serving_gateway(folder) as gateway,
    ):
        yield gateway


def save(page: Any, name: str) -> None:
    path = Path(os.environ["STUDIO_PICTURES"]) / f"studio-{name}.png"
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


@pytest.mark.parametrize("name", ["live-light", "live-dark", "live-phone"])
def test_take_a_picture_of_the_live_mode(live: Any, tmp_path: Path, name: str) -> None:
    phone = name == "live-phone"
    screen = {"viewport": {"width": 360, "height": 720} if phone else {"width": 1360, "height": 820}}
    with (
        browsing(tmp_path, SAMPLE.read_bytes()) as browser,
        watched(browser, live.url, **screen, color_scheme="light" if name == "live-light" else "dark") as studio,
    ):
        page = studio.open().page
        page.click(".tabs [data-pane=live]" if phone else "#mode-live")
        page.select_option("#live-reserve", "40")  # as on a machine that has time
        start(studio)
        page.click("#live-hear")
        page.click("#live-panel .record")
        studio.until("document.querySelector('#live-panel .row .time').textContent > '0:02.0'")
        page.keyboard.press("r")
        page.wait_for_selector(".take", state="attached")
        until_row(studio, "Load", r"\d+ %")
        page.wait_for_timeout(6000)
        save(page, name)


@pytest.mark.parametrize("name", ["light", "dark", "phone"])
def test_take_a_picture(server: Any, tmp_path: Path, name: str) -> None:
    phone = name == "phone"
    screen = {"viewport": {"width": 360, "height": 720} if phone else {"width": 1360, "height": 820}}
    with (
        browsing(tmp_path) as browser,
        watched(browser, server.url, **screen, color_scheme="light" if name == "light" else "dark") as studio,
    ):
        page = studio.open().page
        page.evaluate(
            "(() => { const key = document.querySelector('#set-key');"
            "key.value = 12; key.dispatchEvent(new Event('change')); })()"
        )
        page.set_input_files("#files", SAMPLE)
        studio.loaded("a")
        page.keyboard.press("Control+Enter")
        studio.finished(1)
        studio.loaded("b")
        studio.until("document.querySelector('.lane.roll').ariaLabel.includes('from')")
        if phone:
            page.click(".tabs [data-pane=stage]")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        if name == "light":
            page.keyboard.press("a")
        page.wait_for_timeout(1500)
        save(page, name)
