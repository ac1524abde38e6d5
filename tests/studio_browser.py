"""The studio in a real Chromium, before the real gateway: a browser, pages that are watched, and small deeds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from gateway_server import serving_gateway
from serve_cluster import PITCH, small_home

from rocktop_ray.audio.encode import encode_bytes
from rocktop_ray.protocols import Array
from serve_apps import studio

WAIT = 60_000
"""Milliseconds that anything may take on a busy machine."""
RECORDED_HZ = 440.0
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream"),
    *("--use-fake-ui-for-media-stream", "--disable-dev-shm-usage"),
)


def chromium() -> str:
    """Path of the Chromium that is installed; skips the test where there is none."""
    pytest.importorskip("playwright", reason="the studio's browser tests need playwright (pip install playwright)")
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("the studio's browser tests need Chromium (Debian: apt-get install chromium)")


def sine(seconds: float, hz: float, rate: int = 48_000, level: float = 0.4) -> Array:
    """A sung-like tone: harmonics, a little vibrato, so that a pitch extractor finds it."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(hz * (1 + 0.01 * np.sin(2 * np.pi * 5 * time))) / rate
    wave = sum(np.sin(k * phase) / k for k in range(1, 8))
    return (level * wave / np.abs(wave).max()).astype(np.float32)


def wav(seconds: float = 1.2, hz: float = 220.0, rate: int = 48_000) -> bytes:
    """A take as a WAV file."""
    return encode_bytes(sine(seconds, hz, rate), "wav16", rate=rate)


@contextmanager
def browsing(folder: Path, microphone: bytes | None = None) -> Iterator[Any]:
    """A Chromium whose microphone plays a WAV file again and again, by default a 440 Hz tone."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    heard = folder / "microphone.wav"
    heard.write_bytes(microphone or wav(3.0, RECORDED_HZ))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*FLAGS, f"--use-file-for-fake-audio-capture={heard}"]
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page, with everything that must not happen written down."""

    page: Any
    url: str
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    excused: tuple[str, ...] = ()
    """Parts of complaints that a test provokes."""

    def check(self) -> None:
        """Raises AssertionError: an error, a violation of the policy, or a request to another host."""
        assert self.hosts <= {urlsplit(self.url).netloc}, self.hosts
        left = [line for line in self.complaints if not any(part in line for part in self.excused)]
        assert not left, left

    def until(self, expression: str) -> None:
        """Ask until it is true. (Playwright's own way needs eval, which the page's policy forbids.)"""
        end = time.monotonic() + WAIT / 1000
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never came true: {expression}"
            self.page.wait_for_timeout(50)

    def open(self) -> Watched:
        """The studio, ready to work."""
        self.page.goto(self.url)
        self.page.wait_for_selector("#server[data-state=ready]", timeout=WAIT)
        self.until("document.querySelector('#voice-select').options.length > 0")
        return self

    def choose(self, voice: str = "anna") -> Watched:
        """A small voice, and the extractor that needs no weights."""
        self.page.select_option("#voice-select", voice)
        self.page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
        self.page.wait_for_selector(f"#set-pitch option[value={PITCH}]", state="attached", timeout=WAIT)
        self.page.select_option("#set-pitch", PITCH)
        return self

    def add(self, *takes: tuple[str, bytes]) -> None:
        """Takes through the file picker."""
        files = [{"name": name, "mimeType": "audio/wav", "buffer": data} for name, data in takes]
        self.page.set_input_files("#files", files)

    def drop(self, name: str, data: bytes, kind: str = "audio/wav") -> None:
        """A file dropped onto the page."""
        self.page.evaluate(
            """([name, bytes, type]) => {
              const carried = new DataTransfer();
              carried.items.add(new File([new Uint8Array(bytes)], name, { type }));
              for (const kind of ["dragenter", "dragover", "drop"]) {
                const facts = { dataTransfer: carried, bubbles: true, cancelable: true };
                document.body.dispatchEvent(new DragEvent(kind, facts));
              }
            }""",
            [name, list(data), kind],
        )

    def convert(self, count: int = 1) -> list[str]:
        """Press the button; the ids of all finished jobs when there are ``count``."""
        self.page.click("#go")
        return self.finished(count)

    def finished(self, count: int) -> list[str]:
        """Ids of jobs, in the order of the list, when ``count`` are done."""
        found = "document.querySelectorAll('.result.done').length"
        self.until(f"{found} >= {count}")
        ids: list[str] = self.page.eval_on_selector_all(".result.done", "(nodes) => nodes.map((n) => n.dataset.job)")
        return ids

    def loaded(self, slot: str = "b") -> None:
        """Wait until a slot can be played."""
        self.page.wait_for_selector(f".ab .{slot}:not(:disabled)", state="attached", timeout=WAIT)

    def seconds(self) -> float:
        """Where the transport is."""
        minutes, _, seconds = self.page.text_content(".transport .time").partition(":")
        return 60 * int(minutes) + float(seconds)


def modules_only(browser: Any) -> Any:
    """A page that has the studio's modules but no server: every request is answered here."""
    files = studio.page_files()

    def answer(route: Any) -> None:
        name = route.request.url.partition("/studio/")[2]
        if name in files:
            route.fulfill(body=files[name].data, content_type=files[name].media_type)
        else:
            route.fulfill(body="<!doctype html><title>modules</title>", content_type="text/html")

    opened = browser.new_page()
    opened.route("**/*", answer)
    opened.goto("http://localhost:9/")
    return opened


def axe(page: Any) -> list[str]:
    """What axe-core finds wrong. It comes in through the debugger, which the page's policy does not bind."""
    package = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    source = (Path(package.__file__).parent / "axe.min.js").read_text()
    page.context.new_cdp_session(page).send("Runtime.evaluate", {"expression": source})
    found = page.evaluate(
        """async (rules) => {
          const passing = document.getAnimations().filter((one) => one.effect?.getComputedTiming().endTime < Infinity);
          const over = Promise.allSettled(passing.map((one) => one.finished));
          await Promise.race([over, new Promise((go) => setTimeout(go, 5000))]);
          return axe.run(document, { runOnly: rules });
        }""",
        RULES,
    )  # a colour on its way to another is none that anybody has to read
    assert len(found["passes"]) > 15
    return [f"{rule['id']}: {[node['target'] for node in rule['nodes']]}" for rule in found["violations"]]


@contextmanager
def watched(browser: Any, url: str, **options: Any) -> Iterator[Watched]:
    """A fresh page in a context of its own; what must not happen is checked at the end."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    page = context.new_page()
    page.set_default_timeout(WAIT)
    watch = Watched(page, url + "/")
    page.on("console", lambda line: line.type in ("error", "warning") and watch.complaints.append(line.text))
    page.on("pageerror", lambda error: watch.complaints.append(f"{error} {error.stack}"))
    page.on("request", lambda request: _note(watch, request.url))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => console.error('policy', e.violatedDirective, e.blockedURI))"
    )
    try:
        yield watch
        watch.check()
    finally:
        context.close()


def _note(watch: Watched, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("blob", "data"):
        watch.hosts.add(parts.netloc)


@contextmanager
def studio_server(folder: Path, **sections: Any) -> Iterator[Any]:
    """The gateway with small voices ``anna`` and ``berta``."""
    chromium()
    if not (folder / "home").exists():
        small_home(folder / "home")
    with serving_gateway(folder, **sections) as gateway:
        yield gateway
