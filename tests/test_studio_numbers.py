"""The arithmetic of the studio's modules, run in Chromium and compared with numpy, soundfile and the library."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi import FastAPI
from studio_browser import browsing, modules_only, sine

from rocktop_ray.audio.formats import FORMATS
from rocktop_ray.audio.loudness import loudness
from rocktop_ray.features.pitch.curves import SCALES
from rocktop_ray.settings import _RANGES, ConvertSettings
from serve_apps import studio
from serve_apps.requests import ConversionRequest

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield modules_only(browser)


def test_spectra_agree_with_numpy(page: Any) -> None:
    signal = np.random.default_rng(0).standard_normal(5000)
    power = page.evaluate(
        """async (signal) => {
          const { Fft } = await import("/studio/fft.js");
          return [...new Fft(1024).power(signal, 2500, new Float64Array(513))];
        }""",
        signal.tolist(),
    )
    window = np.hanning(1025)[:-1]
    expected = np.abs(np.fft.rfft(signal[1988:3012] * window) * 4 / 1024) ** 2
    np.testing.assert_allclose(power, expected, rtol=1e-9, atol=1e-15)


def test_a_full_scale_sine_reads_0_db(page: Any) -> None:
    highest = page.evaluate("""async () => {
          const { Fft } = await import("/studio/fft.js");
          const sine = Float32Array.from({ length: 8192 }, (_, n) => Math.sin((2 * Math.PI * 100 * n) / 2048));
          return Math.max(...new Fft(2048).power(sine, 4096, new Float64Array(1025)));
        }""")
    assert 10 * np.log10(highest) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(("rate", "level"), [(48_000, 0.4), (44_100, 0.05), (16_000, 0.4)])
def test_loudness_is_the_librarys(page: Any, rate: int, level: float) -> None:
    audio = sine(2.0, 196.0, rate, level) * np.repeat([1.0, 0.1, 0.5, 0.001], rate // 2).astype(np.float32)
    told = page.evaluate(
        "async ([s, rate]) => (await import('/studio/loudness.js')).loudness(Float32Array.from(s), rate)",
        [audio.tolist(), rate],
    )
    assert told == pytest.approx(loudness(audio, rate), abs=0.05)


@pytest.mark.parametrize(("bits", "subtype", "tolerance"), [(32, "FLOAT", 0), (24, "PCM_24", 2.5 / 2**23)])
@pytest.mark.parametrize("channels", [1, 2])
def test_recorded_files_hold_what_was_captured(
    page: Any, bits: int, subtype: str, tolerance: float, channels: int
) -> None:
    blocks = [np.random.default_rng(n).uniform(-1, 1, (301, channels)).astype(np.float32) for n in range(3)]
    data = page.evaluate(
        """async ([blocks, rate, channels, bits]) => {
          const { WavWriter } = await import("/studio/wav.js");
          const writer = new WavWriter(rate, channels, bits);
          for (const block of blocks) writer.push(Float32Array.from(block));
          return [...new Uint8Array(await writer.blob().arrayBuffer())];
        }""",
        [[block.ravel().tolist() for block in blocks], 44_100, channels, bits],
    )
    with soundfile.SoundFile(io.BytesIO(bytes(data))) as file:
        assert (file.subtype, file.samplerate, file.channels) == (subtype, 44_100, channels)
        read = file.read(dtype="float64", always_2d=True)
    np.testing.assert_allclose(read, np.concatenate(blocks), rtol=0, atol=tolerance)


TRANSPORT = """async ([place, loop, switchAt, seconds]) => {
  const { Transport } = await import("/studio/transport.js");
  const rate = 48000, length = seconds * rate;
  const context = new OfflineAudioContext(1, length, rate);
  const ramp = () => {
    const buffer = new AudioBuffer({ length: rate, sampleRate: rate });
    buffer.copyToChannel(Float32Array.from({ length: rate }, (_, n) => n / rate), 0);
    return { buffer, seconds: 1, lufs: -20 };
  };
  const transport = new Transport();
  transport.open(context);
  transport.setClip("A", ramp());
  transport.setClip("B", ramp());
  if (loop) transport.setLoop(loop, true);
  transport.seek(place);
  transport.playing = true;
  transport.start();
  const places = [];
  context.suspend(switchAt).then(() => {
    transport.swap();
    places.push(transport.position, context.currentTime - transport.startedAt);
    context.resume();
  });
  const rendered = await context.startRendering();
  return { samples: [...rendered.getChannelData(0)], places, heard: transport.heard };
}"""


def test_switching_between_a_and_b_moves_no_sample(page: Any) -> None:
    """Both clips are the same ramp: if either were a sample off, the sum would step by 1/48000 when it is switched."""
    told = page.evaluate(TRANSPORT, [0.25, None, 0.4, 0.8])
    samples = np.array(told["samples"])
    start = round(0.03 * 48_000)
    expected = (np.arange(len(samples) - start) / 48_000 + 0.25)[: len(samples) - start]
    inside = expected < 0.99  # a busy Chromium once ended the clip 64 samples early, which is not what is asked here
    np.testing.assert_allclose(samples[start:][inside], expected[inside], rtol=0, atol=2e-6)
    assert told["heard"] == "B" and (samples[:start] == 0).all()
    assert told["places"][0] == pytest.approx(0.25 + told["places"][1], abs=1e-6), "the clock says what is heard"


def test_a_loop_is_exact_and_the_clock_follows(page: Any) -> None:
    told = page.evaluate(TRANSPORT, [0.5, {"start": 0.5, "end": 0.6}, 0.4, 0.8])
    samples = np.array(told["samples"])[round(0.03 * 48_000) :]
    expected = 0.5 + (np.arange(len(samples)) % 4800) / 48_000
    np.testing.assert_allclose(samples, expected, rtol=0, atol=2e-6)
    assert told["places"][0] == pytest.approx(0.5 + told["places"][1] % 0.1, abs=1e-6)


def test_matching_turns_the_louder_one_down(page: Any) -> None:
    gains = page.evaluate("""async () => {
          const { Transport } = await import("/studio/transport.js");
          const transport = new Transport();
          transport.clips = { A: { lufs: -14, seconds: 1 }, B: { lufs: -20, seconds: 1 } };
          transport.matched = true;
          return ["A", "B"].map((slot) => { transport.heard = slot; return transport.level(slot); });
        }""")
    assert gains == pytest.approx([10 ** (-6 / 20), 1.0])


def test_the_forms_fields_are_the_apis(page: Any) -> None:
    told = page.evaluate("""async () => {
          const { FIELDS, SCALES } = await import("/studio/settings.js");
          return { fields: FIELDS.map(({ when, show, ...field }) => field), scales: SCALES };
        }""")
    fields = {field["name"]: field for field in told["fields"]}
    assert set(told["scales"]) == set(SCALES)
    assert set(fields) <= set(ConversionRequest.model_fields)
    defaults = ConvertSettings()
    assert set(ConvertSettings.__dataclass_fields__) <= set(fields)
    for name in ConvertSettings.__dataclass_fields__:
        assert fields[name]["standard"] == getattr(defaults, name), name
        if name in _RANGES and name != "seed":  # JavaScript counts exactly to 2^53 only
            assert (fields[name]["low"], fields[name]["high"]) == _RANGES[name], name
    assert {value for value, _ in fields["format"]["choices"]} == set(FORMATS)
    assert all(len(field["help"]) > 20 for field in fields.values())


def test_numbers_are_written_as_the_field_does(page: Any) -> None:
    told = page.evaluate("""async () => {
          const u = await import("/studio/units.js");
          return [u.clock(83.25), u.clock(59.9996), u.clock(3723, 0), u.pitchName(440), u.pitchName(233.7),
            u.pitchName(0), u.bytes(5900000), u.decibels(-0.04), u.decibels(-Infinity), u.signed(-3),
            u.noteName(60), u.hertz(69)];
        }""")
    assert told[:3] == ["1:23.250", "1:00.000", "1:02:03"]
    assert told[3:6] == ["A4 0 ct", "A♯3 +5 ct", ""]
    assert told[6:] == ["5.9 MB", "0.0 dB", "−∞ dB", "−3", "C4", 440]


def test_the_router_is_part_of_an_application() -> None:
    app = FastAPI()
    app.include_router(studio.router())
    assert not app.openapi()["paths"], "files of the page are no API"
