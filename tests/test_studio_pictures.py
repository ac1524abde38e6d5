"""The pictures of docs/studio.md, taken with the bundle.

    STUDIO_PICTURES=docs/pictures STUDIO_URL=http://127.0.0.1:8000/ pytest tests/test_studio_pictures.py

The live mode is taken at the service of ``STUDIO_URL``, so the numbers in its pictures are measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_server import serving_gateway
from live_page import start, until_row
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
def live() -> str:
    """A service as ``make serve`` starts it, so that the numbers in the pictures are its own."""
    url = os.environ.get("STUDIO_URL")
    if not url:
        pytest.skip("set STUDIO_URL to the studio of a running service")
    return url.rstrip("/")


def save(page: Any, name: str) -> None:
    path = Path(os.environ["STUDIO_PICTURES"]) / f"studio-{name}.png"
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


@pytest.mark.parametrize("name", ["live-light", "live-dark", "live-phone"])
def test_take_a_picture_of_the_live_mode(live: str, tmp_path: Path, name: str) -> None:
    phone = name == "live-phone"
    screen = {"viewport": {"width": 360, "height": 720} if phone else {"width": 1360, "height": 820}}
    with (
        browsing(tmp_path, SAMPLE.read_bytes()) as browser,
        watched(browser, live, **screen, color_scheme="light" if name == "live-light" else "dark") as studio,
    ):
        page = studio.open().page
        page.click(".tabs [data-pane=live]" if phone else "#mode-live")
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
