"""The arithmetic of the studio's live mode, run in Chromium: frames as the library reads them, the play-out buffer."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studio_browser import browsing, modules_only

from rocktop_ray.live.messages import Audio, CloseCode, Flags
from rocktop_ray.live.protocol import pack_audio, parse_client
from rocktop_ray.settings import ConvertSettings

pytestmark = pytest.mark.xdist_group("browser")
RATE = 48_000

RING = """
  async ({ rate, target, events, quanta }) => {
    // events: [at which quantum, [samples, position]]; what is played comes back, and how it went.
    const { PlayoutBuffer } = await import("/studio/live_ring.js");
    const buffer = new PlayoutBuffer(rate, target);
    const played = new Float64Array(128 * quanta);
    const out = new Float32Array(128);
    const places = new Float64Array(3 * quanta);
    let next = 0;
    for (let n = 0; n < quanta; n++) {
      while (next < events.length && events[next][0] <= n) {
        const [, first, count, position] = events[next++];
        const tone = Float32Array.from({ length: count }, (_, k) => Math.sin((first + k) * 0.05));
        buffer.push(tone, position);
      }
      buffer.pull(out);
      played.set(out, 128 * n);
      places.set([buffer.position, buffer.held, buffer.step], 3 * n);
    }
    const packed = (values) => {
      const bytes = new Uint8Array(values.buffer);
      const parts = [];
      for (let at = 0; at < bytes.length; at += 8192) parts.push(String.fromCharCode(...bytes.subarray(at, at + 8192)));
      return btoa(parts.join(""));
    };
    const { underruns, skipped, target: aim, valley } = buffer;
    return { played: packed(played), places: packed(places), underruns, skipped, aim, valley };
  }
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield modules_only(browser)


@settings(max_examples=10, deadline=None)
@given(
    seq=st.integers(0, 2**32 - 1),
    position=st.integers(0, 2**53 - 1),
    flags=st.integers(0, 15),
    values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20),
)
def test_frames_are_those_of_the_library(page: Any, seq: int, position: int, flags: int, values: list[float]) -> None:
    packed = bytes(
        page.evaluate(
            """async ([seq, position, values]) => {
              const { packAudio } = await import("/studio/live_protocol.js");
              return [...new Uint8Array(packAudio({ seq, position, samples: Float32Array.from(values) }))];
            }""",
            [seq, position, values],
        )
    )
    audio = Audio(seq, position, np.array(values, np.float32))
    assert parse_client(packed) == audio and packed == pack_audio(audio)
    answer = pack_audio(Audio(seq, position, audio.samples, Flags(flags)))
    read = page.evaluate(
        """async (bytes) => {
          const { unpackAudio } = await import("/studio/live_protocol.js");
          const block = unpackAudio(new Uint8Array(bytes).buffer);
          return { ...block, samples: [...block.samples] };
        }""",
        list(answer),
    )
    assert read == {"seq": seq, "position": position, "flags": flags, "samples": audio.samples.tolist()}


def test_every_close_code_has_words(page: Any) -> None:
    told = page.evaluate(
        """async (codes) => {
          const { closed } = await import("/studio/live_protocol.js");
          const error = { detail: "the reason", retry_after: 3.2 };
          return codes.map((code) => [closed(code, "", null, true), closed(code, "", error, false)]);
        }""",
        [int(code) for code in CloseCode] + [1006],
    )
    assert len({running["text"] for running, _ in told}) == len(told)
    for running, beginning in told:
        assert running["next"] in ("resume", "renew", "stop", "key")
        assert beginning["next"] in ("stop", "key"), "what cannot begin is not tried again and again"
        assert "The reason." in beginning["text"] and "Try again in 4 s." in beginning["text"]


def test_a_stream_is_told_what_it_follows(page: Any) -> None:
    told = page.evaluate("""async () => {
          const { defaultsOf, streamOf } = await import("/studio/settings.js");
          return streamOf(defaultsOf({ defaults: { protect: 0.2 } }));
        }""")
    assert ConvertSettings.from_mapping(told).protect == 0.2 and "auto_key" not in told


def blocks(count: int, length: int, every: float, late: dict[int, int] | None = None) -> list[list[int]]:
    """Blocks of one tone, the n-th at quantum ``n * every`` plus its lateness."""
    late = late or {}
    return [[round(n * every) + late.get(n, 0), n * length, length, n * length] for n in range(count)]


def played(page: Any, events: list[list[int]], target: float | None, quanta: int) -> dict[str, Any]:
    told: dict[str, Any] = page.evaluate(RING, {"rate": RATE, "target": target, "events": events, "quanta": quanta})
    for name in ("played", "places"):
        told[name] = np.frombuffer(base64.b64decode(told[name]), "<f8")
    return told | {"places": told["places"].reshape(-1, 3)}


def test_on_time_is_exact_after_the_fade(page: Any) -> None:
    length = 15 * 128  # 40 ms
    told = played(page, blocks(60, length, 15), 0.02, 60 * 15)
    sound = told["played"]
    begin = 960  # the reserve of 20 ms
    assert not sound[:begin].any() and told["underruns"] == told["skipped"] == 0
    expected = np.sin(0.05 * np.arange(len(sound) - begin))
    np.testing.assert_allclose(sound[begin + 240 :], expected[240:], atol=1e-6)
    np.testing.assert_allclose(sound[begin : begin + 240], expected[:240] * np.arange(240) / 240, atol=1e-6)
    assert told["valley"] == pytest.approx(960, abs=128)
    positions = told["places"][:, 0]
    assert (np.diff(positions[8:]) == 128).all() and positions[-1] == len(sound) - begin


def test_what_is_late_within_the_reserve_is_not_heard(page: Any) -> None:
    late = dict.fromkeys(range(5, 50, 3), 6)  # 16 ms
    told = played(page, blocks(50, 15 * 128, 15, late), 0.02, 50 * 15)
    assert told["underruns"] == 0


def test_running_dry_is_counted_and_has_no_click(page: Any) -> None:
    told = played(page, blocks(50, 15 * 128, 15, {20: 40}), 0.02, 50 * 15)
    sound = told["played"]
    assert told["underruns"] == 1
    assert np.abs(np.diff(sound)).max() < 0.06, "no step larger than the tone's own slope of 0.05"
    assert told["aim"] == 960


def test_the_automatic_reserve_learns(page: Any) -> None:
    once, twice = {20: 40}, {20: 40, 60: 95}
    assert played(page, blocks(90, 15 * 128, 15, once), None, 90 * 15)["aim"] == round(0.03 * RATE)
    assert played(page, blocks(90, 15 * 128, 15, twice), None, 90 * 15)["aim"] == round(0.04 * RATE)


def test_too_much_reserve_is_played_off_unheard(page: Any) -> None:
    """30 ms too much go at 0.1 % in half a minute; the tone stays the same tone."""
    events = blocks(900, 15 * 128, 15)
    for event in events:
        event[0] = max(0, event[0] - 11)  # everything comes 30 ms earlier than the first block
    told = played(page, events, 0.02, 880 * 15)
    steps = told["places"][:, 2]
    assert steps.min() >= 0.999 and 1 < steps.max() <= 1.001
    assert told["underruns"] == told["skipped"] == 0
    assert abs(told["valley"] - 960) < 0.0045 * RATE
    sound = told["played"][RATE:]
    assert np.abs(np.diff(sound)).max() < 0.0502 and np.abs(sound).max() > 0.9999


def test_a_burst_after_a_pause_is_left_out_with_a_crossfade(page: Any) -> None:
    late = {n: 400 - 15 * (n - 20) for n in range(20, 46)}  # more than a second of nothing, then all at once
    told = played(page, blocks(120, 15 * 128, 15, late), 0.02, 120 * 15)
    assert told["underruns"] == 1 and told["skipped"] > 0.8 * RATE
    assert told["places"][-30:, 1].max() < 0.25 * RATE
    assert np.abs(np.diff(told["played"])).max() < 0.06 + 2 / 240, "crossfades, no steps"


def test_delay_is_what_the_places_say(page: Any) -> None:
    total, parts = page.evaluate("""async () => {
          const { Delay } = await import("/studio/live_delay.js");
          const delay = new Delay();
          let told;
          const facts = { delay: 2880, rate: 48000, block: 1920, trip: 0.02, hardware: 0.015 };
          for (let n = 0; n < 200; n++) told = delay.measure({ captured: 96000 + n, played: 91200 + n, ...facts });
          return [told.total, told.parts];
        }""")
    assert total == pytest.approx(0.1 + 0.06 + 0.015, abs=1e-4)
    assert sum(parts.values()) == pytest.approx(total, abs=1e-6)
