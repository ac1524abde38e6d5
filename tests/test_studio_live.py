"""The studio's live mode in a real Chromium with a microphone of noise, before a server that echoes and fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import gateway_server
import numpy as np
import pytest
from live_page import INPUT, LEVEL, OUTPUT, keep_takes, noise, recorded, row, start, until_row
from live_stand_in import StandIn
from studio_browser import Watched, axe, browsing, studio_server, watched

from rocktop_ray.audio.encode import encode_bytes
from rocktop_ray.live.messages import Bypass, Change, ChangeVoice, CloseCode, End, Notice, Problem, Resume, Start

pytestmark = pytest.mark.xdist_group("browser")
TAP = """
  // What goes into the page's capture and what leaves it, side by side: delay is measured from outside.
  window.tapped = [[], []];
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (...to) {
    const { context } = this;
    const at = this instanceof MediaStreamAudioSourceNode ? 0 : to[0] === context.destination ? 1 : null;
    if (at !== null && !context.quiet) {
      if (!context.tap) {
        context.quiet = true;
        context.merger = new ChannelMergerNode(context, { numberOfInputs: 2 });
        context.tap = context.createScriptProcessor(4096, 2, 1);
        context.tap.onaudioprocess = ({ inputBuffer }) =>
          [0, 1].forEach((n) => window.tapped[n].push(...inputBuffer.getChannelData(n)));
        context.merger.connect(context.tap);
        connect.call(context.tap, context.destination);
        context.quiet = false;
      }
      connect.call(this, context.merger, 0, at);
    }
    return connect.apply(this, to);
  };
"""


@pytest.fixture(scope="module")
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture(scope="module")
def server(stand_in: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    build = gateway_server.build_api
    with (
        patch.object(gateway_server, "build_api", lambda services: stand_in.around(build(services))),
        studio_server(tmp_path_factory.mktemp("studio")) as gateway,
    ):
        yield gateway


@pytest.fixture(scope="module")
def browser(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browsing(tmp_path_factory.mktemp("browser"), encode_bytes(noise(), "wav16", rate=48_000)) as opened:
        yield opened


@pytest.fixture
def studio(browser: Any, server: Any, stand_in: StandIn) -> Iterator[Watched]:
    fresh = StandIn()
    vars(stand_in).update(vars(fresh))
    with watched(browser, server.url) as watch:
        watch.open().choose().page.click("#mode-live")
        yield watch


def test_start_hear_change_compare_and_stop(studio: Watched, stand_in: StandIn) -> None:
    page = studio.page
    assert "headphones" in page.text_content("#live-hear-why")
    start(studio)
    (begun,) = stand_in.said(Start)
    assert begun.voice == "anna" and begun.block == round(0.04 * begun.rate) and begun.settings["key"] == 0
    assert "pitch" not in begun.settings and "format" not in begun.settings
    expected = 20 * np.log10(LEVEL)
    studio.until(f"Math.abs({OUTPUT} - {expected}) < 2")
    studio.until(f"Math.abs({INPUT} - {expected}) < 2")
    # Another key, here: another loudness.
    page.fill("#set-key", "-12")
    page.press("#set-key", "Enter")
    studio.until(f"{OUTPUT} < -24")
    assert stand_in.said(Change)[-1].settings == {"key": -12}
    # As long as it is held, the take itself.
    page.hover(".hold")
    page.mouse.down()
    studio.until(f"{OUTPUT} > -22")
    page.mouse.up()
    studio.until(f"{OUTPUT} < -24")
    assert [said.on for said in stand_in.said(Bypass)] == [True, False]
    # Another voice: its settings follow.
    page.select_option("#voice-select", "berta")
    until_row(studio, "Load", "25 %")
    for _ in range(1200):
        if stand_in.said(ChangeVoice):
            break
        page.wait_for_timeout(50)
    assert stand_in.said(ChangeVoice)[0].voice == "berta"
    page.keyboard.press("Space")
    studio.until("document.querySelector('#live-panel').dataset.phase === 'idle'")
    assert stand_in.said(End)
    assert not [said for said in stand_in.heard if isinstance(said, Exception)]


def test_the_delay_that_is_shown_is_the_one_that_is_there(studio: Watched) -> None:
    studio.excused = ("ScriptProcessorNode",)
    page = studio.page
    page.add_init_script(TAP)
    studio.open()
    page.click("#mode-live")
    start(studio)
    studio.until("window.tapped[1].length > 4096")
    assert page.evaluate("Math.max(...window.tapped[1].map(Math.abs))") == 0, "starts muted"
    page.click("#live-hear")
    until_row(studio, "Conversion", "60 ms")
    studio.until("document.querySelector('.delay-total').textContent.endsWith('ms')")
    page.wait_for_timeout(2500)
    page.evaluate("window.tapped = [[], []]")
    for _ in range(120):
        page.wait_for_timeout(300)
        shown = float(page.text_content(".delay-total").split()[0]) - float(row(studio, "Devices").split()[0])
        went_in, came_out = (
            np.array(side) for side in page.evaluate("window.tapped.map((side) => side.slice(-60000))")
        )
        if len(went_in) < 50_000:
            continue
        rate = page.evaluate("new AudioContext().sampleRate")
        # By Fourier: where the output is most like the input.
        size = 2 * len(went_in)
        likeness = np.fft.irfft(np.fft.rfft(came_out, size) * np.conj(np.fft.rfft(went_in, size)))
        measured = 1000 * likeness[: len(went_in)].argmax() / rate
        if abs(measured - shown) < 15:
            assert measured > 60 + 40, "no less than conversion and block"
            return
        page.evaluate("window.tapped = [[], []]")
    raise AssertionError(f"shown {shown:.0f} ms, there {measured:.0f} ms")


def test_what_is_recorded_is_aligned_and_in_the_list(studio: Watched) -> None:
    page = studio.page
    keep_takes(studio)
    page.fill("#set-key", "-12")
    page.press("#set-key", "Enter")
    start(studio)
    page.click("#live-panel .record")
    studio.until("document.querySelector('#live-panel .row .time').textContent > '0:01.5'")
    page.keyboard.press("r")
    page.wait_for_selector(".take.chosen >> text=live 20")
    page.click("#live-go")
    page.click("#mode-take")
    studio.loaded("a")
    studio.loaded("b")
    dry, wet = recorded(studio)
    assert len(dry) == len(wet) > 40_000 and np.abs(dry).max() > LEVEL
    np.testing.assert_allclose(wet, dry / 2, atol=1e-6)
    assert "anna" in page.text_content(".result.done") and "live" in page.text_content(".result.done")
    # The take can be converted as any other.
    page.click(".result.done >> text=Again")
    studio.finished(2)


def test_a_dropped_connection_is_resumed_without_a_gap(studio: Watched, stand_in: StandIn) -> None:
    studio.excused = ("WebSocket",)
    stand_in.drops = 3
    start(studio)
    until_row(studio, "Connections", "3 resumed, 0 anew")
    studio.until("document.querySelector('#live-panel').dataset.phase === 'live'")
    studio.until(f"{OUTPUT} > -30")
    assert len(stand_in.said(Resume)) == 3 and len(stand_in.said(Start)) == 1
    assert "Connected again." in studio.page.text_content("#live-panel .log")
    assert not [said for said in stand_in.heard if isinstance(said, Exception)]


def test_a_session_that_is_gone_begins_anew(studio: Watched, stand_in: StandIn) -> None:
    studio.excused = ("WebSocket",)
    start(studio)
    stand_in.forgetful, stand_in.drops = True, 1
    until_row(studio, "Connections", "anew")
    studio.until("document.querySelector('#live-panel .log').textContent.includes('began anew')")
    studio.until(f"{OUTPUT} > -30")
    assert len(stand_in.said(Start)) == 2


def test_no_room_is_said_with_the_time_to_wait(studio: Watched, stand_in: StandIn) -> None:
    studio.excused = ("WebSocket",)
    page = studio.page
    stand_in.refusal = (CloseCode.NO_CAPACITY, Problem("busy", "Busy", "all streams are taken", 429, retry_after=7))
    page.click("#live-go")
    page.wait_for_selector(".notice.error >> text=Try again in 7 s")
    assert "no room" in page.text_content("#live-panel .state")
    stand_in.refusal = None
    page.click(".notice >> text=Try again >> nth=-1")
    studio.until("document.querySelector('#live-panel').dataset.phase === 'live'")


def test_late_blocks_and_notices_are_told(studio: Watched, stand_in: StandIn) -> None:
    stand_in.late_every = 4
    stand_in.notice = Notice("draining", "This server restarts soon; the stream moves on.", 10)
    start(studio)
    until_row(studio, "Late", r"^[1-9]\d* \(\d+ %\)")
    studio.until("document.querySelector('#live-panel .log').textContent.includes('restarts soon')")


def test_with_the_keyboard_alone(studio: Watched, stand_in: StandIn) -> None:
    page = studio.page
    page.keyboard.press("Space")
    studio.until("document.querySelector('#live-panel').dataset.phase === 'live'")
    page.keyboard.press("m")
    assert page.is_checked("#live-hear")
    page.keyboard.down("a")
    studio.until("document.querySelector('.hold').getAttribute('aria-pressed') === 'true'")
    page.keyboard.up("a")
    assert page.get_attribute(".hold", "aria-pressed") == "false"
    page.focus(".hold")
    page.keyboard.down("Space")
    assert page.get_attribute(".hold", "aria-pressed") == "true"
    page.keyboard.up("Space")
    assert page.get_attribute(".hold", "aria-pressed") == "false"
    assert axe(page) == []
    page.focus("#live-go")
    page.keyboard.press("Enter")
    studio.until("document.querySelector('#live-panel').dataset.phase === 'idle'")


def test_a_key_goes_into_the_first_message(studio: Watched, stand_in: StandIn) -> None:
    studio.excused = ("WebSocket",)
    page = studio.page
    stand_in.key = "a-key"
    page.click("#live-go")
    page.wait_for_selector("dialog >> text=API key")
    page.fill("#ask-text", "a-key")
    page.keyboard.press("Enter")
    studio.until("document.querySelector('#live-panel').dataset.phase === 'live'")
    assert [said.key for said in stand_in.said(Start)] == [None, "a-key"]
