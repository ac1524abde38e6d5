"""The studio on other screens, with other eyes, and with a key: phone, both themes, axe's rules, a long take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studio_browser import WAIT, axe, browsing, sine, studio_server, watched, wav

from rocktop_ray.audio.encode import encode_bytes
from serve_apps.gateway.key_ring import KeyFile

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with studio_server(tmp_path_factory.mktemp("studio")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def browser(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browsing(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, server: Any, theme: str) -> None:
    with watched(browser, server.url, color_scheme=theme) as studio:
        page = studio.open().choose().page
        assert axe(page) == []
        page.click("#mode-live")
        assert axe(page) == []
        page.click("#mode-take")
        studio.add(("verse.wav", wav(0.6)))
        studio.convert()
        studio.loaded("b")
        page.click("#record")
        page.wait_for_selector(".recorder .go:not(:disabled)")
        assert axe(page) == []
        page.click(".recorder >> text=Cancel")
        page.click("text=Voices…")
        page.wait_for_selector("dialog [data-voice=anna]")
        assert axe(page) == []
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert axe(page) == []


def test_the_theme_is_kept(browser: Any, server: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with watched(browser, server.url, color_scheme="light") as studio:
        page = studio.open().page
        light = page.evaluate(ground)
        page.click("#theme")
        dark = page.evaluate(ground)
        assert dark != light
        page.reload()
        assert page.evaluate(ground) == dark


@pytest.mark.parametrize("width", [320, 360, 768, 1024])
def test_nothing_is_cut_off_on_small_screens(browser: Any, server: Any, width: int) -> None:
    touch = {"viewport": {"width": width, "height": 740}, "has_touch": True, "device_scale_factor": 2}
    with watched(browser, server.url, **touch) as studio:
        page = studio.open().page
        studio.add(("a take with quite a long name, second try.wav", wav(0.6)))
        for pane in ("takes", "stage", "live", "setup"):
            if width <= 820:
                page.tap(f".tabs [data-pane={pane}]")
            elif pane == "live":
                page.tap("#mode-live")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            beyond = page.evaluate(
                """(width) => [...document.querySelectorAll("button, select, input, canvas")]
                  .filter((node) => node.checkVisibility() && node.getBoundingClientRect().right > width + 0.5)
                  .map((node) => node.outerHTML.slice(0, 80))""",
                width,
            )
            assert beyond == []
        page.tap(".tabs [data-pane=stage]" if width <= 820 else "#mode-take")
        lane = "document.querySelector('.lane.spectrum')"
        studio.until(f"Math.abs({lane}.width - 2 * {lane}.getBoundingClientRect().width) <= 1")


def test_a_key_is_asked_for_and_kept_for_the_tab(browser: Any, server: Any, tmp_path: Path) -> None:
    secret = KeyFile(tmp_path / "keys.json").add("ann", admin=True)
    with (
        studio_server(tmp_path, security={"keys": str(tmp_path / "keys.json")}) as guarded,
        watched(browser, guarded.url) as studio,
    ):
        studio.excused = ("401",)
        page = studio.page
        page.goto(studio.url)
        page.wait_for_selector("dialog >> text=API key")
        page.fill("#ask-text", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog >> text=does not accept")
        page.fill("#ask-text", secret)
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog", state="detached")
        studio.choose()
        studio.add(("verse.wav", wav(0.6)))
        studio.convert()
        studio.loaded("b")
        page.reload()
        studio.finished(1)
        assert page.evaluate("localStorage.getItem('rocktop.key')") is None


def test_a_long_take_does_not_stop_the_page(browser: Any, server: Any, tmp_path: Path) -> None:
    """Ten minutes are decoded, measured and drawn, and no task of the page's thread lasts half a second."""
    take = tmp_path / "long.wav"
    take.write_bytes(encode_bytes(np.tile(sine(60.0, 220.0, 8_000), 10), "wav16", rate=8_000))
    with watched(browser, server.url) as studio:
        page = studio.open().page
        page.evaluate("""() => {
              window.tasks = [0];
              const note = (list) => window.tasks.push(...list.getEntries().map((entry) => entry.duration));
              new PerformanceObserver(note).observe({ type: "longtask" });
            }""")
        began = time.monotonic()
        page.set_input_files("#files", take)
        page.wait_for_selector(".ab .a:not(:disabled)", timeout=2 * WAIT)
        spent = 1000 * (time.monotonic() - began)
        page.click("[aria-label^='Zoom in']")
        page.wait_for_timeout(300)
        assert "10:00" in page.text_content(".total")
        assert max(page.evaluate("window.tasks")) < max(3000, spent / 4)  # ms, on a busy machine
