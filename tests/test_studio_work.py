"""The studio as people use it, in a real Chromium before the real gateway: convert, hear, compare, keep."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from studio_browser import RECORDED_HZ, Watched, browsing, studio_server, watched, wav
from tiny_voices import tiny_file

pytestmark = pytest.mark.xdist_group("browser")
SECONDS = "document.querySelector('.transport .time').textContent.split(':')[1]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with studio_server(tmp_path_factory.mktemp("studio")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def browser(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browsing(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def studio(browser: Any, server: Any) -> Iterator[Watched]:
    with watched(browser, server.url) as watch:
        yield watch.open().choose()


def test_drop_convert_play_switch_and_download(studio: Watched, server: Any) -> None:
    page = studio.page
    studio.drop("verse one.wav", wav())
    studio.loaded("a")
    page.fill("#set-key", "3")
    page.press("#set-key", "Enter")
    (job,) = studio.convert()
    studio.loaded("b")
    page.click("button.play")
    first = studio.seconds()
    studio.until("document.querySelector('.transport .time').textContent > '0:00.200'")
    assert studio.seconds() > first
    assert page.get_attribute(".ab .b", "aria-pressed") == "true"
    page.keyboard.press("x")
    assert page.get_attribute(".ab .a", "aria-pressed") == "true"
    with page.expect_download() as coming:
        page.click(".result.done >> text=Download")
    with server.client() as client:
        facts = client.get(f"/v1/jobs/{job}").json()
        assert Path(coming.value.path()).read_bytes() == client.get(facts["links"]["result"]).content
    assert coming.value.suggested_filename == "verse one anna +3.flac"
    assert facts["settings"]["key"] == 3 and facts["name"] == "verse one.wav" and facts["result"]["pitch"] == "pm"
    assert page.get_attribute(".lane.roll", "aria-label") == "Melodies of A and B, from E3 to F4"


def test_record_from_an_input(studio: Watched) -> None:
    page = studio.page
    page.keyboard.press("r")
    page.wait_for_selector(".recorder.on")
    studio.until("document.querySelector('.recorder .time').textContent >= '0:01.0'")
    assert float(page.get_attribute(".level", "aria-valuenow")) > -30
    page.keyboard.press("r")
    studio.loaded("a")
    name = page.text_content(".take-name")
    assert name.startswith("take 20") and name.endswith(".wav")
    (job,) = studio.convert()
    data = page.evaluate(
        "async (id) => [...new Uint8Array(await (await fetch(`/v1/jobs/${id}/source`)).arrayBuffer())]", job
    )
    with soundfile.SoundFile(io.BytesIO(bytes(data))) as file:
        assert file.subtype == "FLOAT" and file.channels == 1
        audio, rate = file.read(), file.samplerate
    assert len(audio) / rate > 0.8
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    assert np.fft.rfftfreq(len(audio), 1 / rate)[spectrum.argmax()] == pytest.approx(RECORDED_HZ, rel=0.02)


def test_import_use_and_remove_a_voice(studio: Watched, tmp_path: Path) -> None:
    page = studio.page
    voice = tmp_path / "carla.pth"
    torch.save(tiny_file(seed=7), voice)
    page.click("text=Voices…")
    page.set_input_files("#import-files", voice)
    page.fill("#import-licence", "for tests only")
    page.click("dialog >> text=Import >> nth=-1")
    page.wait_for_selector("[data-voice=carla]")
    assert "for tests only" in page.text_content("[data-voice=carla]")
    assert page.eval_on_selector("#voice-select", "(node) => node.value") == "carla"
    page.click("[aria-label='Remove carla']")
    page.click("dialog >> nth=-1 >> text=Cancel")
    assert page.is_visible("[data-voice=carla]")
    page.click("[aria-label='Remove carla']")
    page.click("dialog >> nth=-1 >> .danger")
    page.wait_for_selector("[data-voice=carla]", state="detached")


def test_a_damaged_voice_is_refused_in_words(studio: Watched, tmp_path: Path) -> None:
    studio.excused = ("422",)
    page = studio.page
    (tmp_path / "broken.pth").write_bytes(b"no weights here")
    page.click("text=Voices…")
    page.click("dialog >> button[type=submit]")
    assert "Choose the voice's file" in page.text_content(".import [role=status]")
    page.set_input_files("#import-files", tmp_path / "broken.pth")
    page.click("dialog >> button[type=submit]")
    page.wait_for_selector(".import .bad")
    assert len(page.text_content(".import .bad")) > 30


def test_what_fails_says_why(studio: Watched) -> None:
    page = studio.page
    studio.add(("not music.wav", b"RIFF and nothing that follows"))
    page.click("#go")
    page.wait_for_selector(".result.failed .bad")
    assert len(page.text_content(".result.failed .bad")) > 20
    assert page.is_visible(".notice.error")
    studio.drop("lyrics.txt", b"words", kind="text/plain")
    page.wait_for_selector(".notice >> text=lyrics.txt")


def test_several_takes_are_a_batch(studio: Watched, server: Any) -> None:
    page = studio.page
    takes = [(f"line {n}.wav", wav(0.5, 200 + 40 * n)) for n in range(3)]
    studio.add(*takes)
    studio.until("document.querySelector('#go').textContent === 'Convert 3 takes'")
    jobs = studio.convert(3)
    with page.expect_download() as coming:
        page.click("text=All as ZIP")
    with zipfile.ZipFile(coming.value.path()) as archive, server.client() as client:
        results = {client.get(f"/v1/jobs/{job}/result").content for job in jobs}
        assert {archive.read(name) for name in archive.namelist()} == results and len(results) == 3


def test_reloading_finds_the_takes_and_two_results_are_compared(studio: Watched) -> None:
    page = studio.page
    studio.add(("verse.wav", wav()))
    studio.convert()
    page.fill("#set-key", "5")
    page.press("#set-key", "Enter")
    page.click(".result.done >> text=Again")
    studio.finished(2)
    page.reload()
    studio.finished(2)
    studio.loaded("a")
    page.click(".result >> nth=1 >> .slot-button.a")
    studio.until("document.querySelector('.slot.a .name').textContent.includes('result')")
    assert "key 0" in page.text_content(".slot.a .name")
    assert "key +5" in page.text_content(".slot.b .name")
    page.click(".result >> nth=0 >> text=Settings")
    assert page.input_value("#set-key") == "5"
    page.click("[aria-label='Remove result 2']")
    studio.until("document.querySelectorAll('.result').length === 1")


def test_with_the_keyboard_alone(studio: Watched) -> None:
    page = studio.page
    page.evaluate(
        "document.querySelector('#files').addEventListener('click', (e) => (e.preventDefault(), window.picked = true))"
    )
    page.keyboard.press("o")
    studio.until("window.picked === true")
    studio.add(("verse.wav", wav(3.0)))
    studio.loaded("a")
    page.keyboard.press("Control+Enter")
    studio.finished(1)
    studio.loaded("b")
    page.keyboard.press("ArrowRight")
    studio.until(f"Math.abs({SECONDS} - 1) < 0.01")
    page.keyboard.press("[")
    page.keyboard.press("Shift+ArrowRight")
    studio.until(f"Math.abs({SECONDS} - 3) < 0.01")
    page.keyboard.press("Home")
    page.keyboard.press("m")
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert 1.0 <= studio.seconds() <= 3.0, "plays inside the loop"
    page.keyboard.press("Space")
    page.keyboard.press("?")
    assert page.is_visible("dialog >> text=Keyboard and mouse")
    page.keyboard.press("Escape")
    seen = set()
    for _ in range(90):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                """() => { const node = document.activeElement, style = getComputedStyle(node);
                return `${node.id || node.getAttribute('aria-label') || node.textContent.trim()}|` +
                  (parseFloat(style.outlineWidth) >= 2 || style.outlineStyle === 'auto' || node === document.body); }"""
            )
        )
    assert not [name for name in seen if name.endswith("|false")], "focus is always seen"
    names = " ".join(seen)
    for needed in ("record", "open", "go", "voice-select", "set-key", "Hear A", "Play", "Loop", "Download", "Volume"):
        assert needed in names, needed


def test_the_server_goes_and_comes_back(studio: Watched) -> None:
    studio.excused = ("ERR_INTERNET_DISCONNECTED", "ERR_FAILED")
    page = studio.page
    studio.add(("verse.wav", wav()))
    studio.loaded("a")
    page.context.set_offline(True)
    page.click("#go")
    page.wait_for_selector("#offline:not([hidden])")
    assert page.is_visible(".notice >> text=Try again")
    page.context.set_offline(False)
    page.wait_for_selector("#offline", state="hidden")
    page.click(".notice >> text=Try again")
    studio.finished(1)
