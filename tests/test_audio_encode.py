"""Writing: every format there and back, what is refused beforehand, nothing half-written."""

import errno
import io
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.audio import wav_writer
from rocktop_ray.audio.decode import open_reader, probe, read_take
from rocktop_ray.audio.encode import encode_bytes, open_writer, write_take
from rocktop_ray.audio.formats import FORMATS, bitrates, check_output, format_for, parse_bitrate
from rocktop_ray.errors import AudioError, AudioFormatError, SettingsError, StorageError

LEAST_SNR = {
    "wav": 200,
    "wav16": 70,
    "wav24": 118,
    "flac": 118,
    "flac16": 70,
    "ogg": 30,
    "webm": 30,
    "mp3": 35,
    "m4a": 35,
}
"""dB at the default bitrate for the chirp below; the level that LAME takes off is put back first."""
SPARE = {"mp3": 47}
"""Samples that a format may add: see libav_writer."""


def chirp(rate: int, seconds: float = 1.37) -> np.ndarray:
    time_ = np.arange(round(rate * seconds)) / rate
    return (0.3 * np.sin(2 * np.pi * (200 * time_ + 300 * time_**2)) * np.hanning(len(time_))).astype(np.float32)


def decoded(data: bytes) -> tuple[np.ndarray, int]:
    with open_reader(data) as reader:
        return np.concatenate(list(reader)), reader.info.rate


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_there_and_back(name, rate, channels):
    if name in ("ogg", "webm") and rate == 44_100:
        pytest.skip("Opus has no 44.1 kHz")
    audio = np.stack([chirp(rate), -0.5 * chirp(rate)][:channels], axis=1)
    data = encode_bytes(audio, name, rate, tags={"title": "Lied", "comment": "für Hörer"})
    assert data == encode_bytes(audio, name, rate, tags={"title": "Lied", "comment": "für Hörer"})
    back, back_rate = decoded(data)
    if name == "webm":  # Opus decodes at 48 kHz; ogg's reader goes back to the rate that was encoded
        assert back_rate == 48_000
        audio = np.stack([chirp(48_000), -0.5 * chirp(48_000)][:channels], axis=1)
    else:
        assert back_rate == rate
    assert len(audio) <= len(back) <= len(audio) + SPARE.get(name, 0)
    back = back[: len(audio)]
    if name == "mp3":
        back = back / 0.95
    error = np.sum(np.square(back - audio, dtype=np.float64))
    assert 10 * np.log10(np.sum(np.square(audio, dtype=np.float64)) / (error + 1e-30)) > LEAST_SNR[name]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("samples", [1, 100, 959, 48_001])
def test_lengths_are_exact(name, samples):
    back = read_take(encode_bytes(chirp(48_000)[:samples] + np.float32(0.01), name))
    spare = 647 if name == "webm" and samples < 960 else SPARE.get(name, 0)
    assert samples <= len(back) <= samples + spare


def test_wav_is_what_libsndfile_expects(tmp_path):
    audio = np.stack([chirp(44_100)] * 6, axis=1)
    for name, subtype in (("wav", "FLOAT"), ("wav16", "PCM_16"), ("wav24", "PCM_24")):
        path = tmp_path / f"{name}.wav"
        write_take(path, audio, 44_100, name, tags={"title": "odd"})
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (44_100, 6, subtype, len(audio))
        with soundfile.SoundFile(path) as file:
            assert file.title == "odd"
        size = path.stat().st_size
        assert struct.unpack("<I", path.read_bytes()[4:8])[0] == size - 8


def test_over_4_gib_becomes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(wav_writer, "_LIMIT", 100_000)
    path = tmp_path / "long.wav"
    write_take(path, chirp(48_000))
    assert path.read_bytes()[:4] == b"RF64"
    # The sizes that overflowed are written as the stand-in of 32 bits.
    data = bytearray(path.read_bytes())
    for at in (4, data.index(b"data") + 4):
        data[at : at + 4] = b"\xff\xff\xff\xff"
    assert np.array_equal(soundfile.read(io.BytesIO(bytes(data)), dtype="float32")[0], chirp(48_000))
    assert np.array_equal(read_take(bytes(data)), chirp(48_000))


@pytest.mark.parametrize("bits", [16, 24])
def test_dither_is_white_and_seeded(bits):
    """The error of a quiet tone is noise of 1/4 step² whatever the tone does; blocks do not matter."""
    name, step = f"wav{bits}", 2.0 ** (1 - bits)
    audio = (0.6 * step * np.sin(np.arange(48_000) * 0.05) + 0.1 * step).astype(np.float32)
    memory = io.BytesIO()
    with open_writer(memory, name) as writer:
        for start in range(0, len(audio), 777):
            writer.write(audio[start : start + 777])
    assert memory.getvalue() == encode_bytes(audio, name)
    assert memory.getvalue() != encode_bytes(audio, name, seed=1)
    error = (decoded(memory.getvalue())[0][:, 0] - audio) / step
    assert np.var(error) == pytest.approx(0.25, abs=0.01)
    assert abs(np.mean(error)) < 0.02
    assert abs(np.corrcoef(error, audio)[0, 1]) < 0.02
    silence = decoded(encode_bytes(np.zeros(1000, np.float32), name))[0]
    assert not silence.any()


def test_loud_samples_are_counted_and_clipped():
    loud = 2 * chirp(48_000) / 0.3
    memory = io.BytesIO()
    with open_writer(memory, "wav16") as writer:
        writer.write(loud)
    assert writer.clipped == np.count_nonzero(np.abs(loud) > 1)
    assert np.abs(decoded(memory.getvalue())[0]).max() <= 1.0
    assert np.array_equal(read_take(encode_bytes(loud, "wav")), loud)


@pytest.mark.parametrize(
    ("name", "rate", "bitrate", "words"),
    [
        ("ogg", 44_100, None, "8000, 12000, 16000, 24000, 48000"),
        ("ogg", 22_050, "128k", "44100|8000"),
        ("webm", 96_000, None, "48000"),
        ("ogg", 48_000, "320k", "0.5k to 256k"),
        ("mp3", 96_000, None, "44100, 48000"),
        ("mp3", 22_050, "320k", "144k, 160k$"),
        ("mp3", 8_000, "128k", "56k, 64k$"),
        ("mp3", 48_000, "100k", "96k, 112k"),
        ("m4a", 16_000, "128k", "8k to 96k"),
        ("m4a", 50_000, None, "48000, 64000"),
        ("wav", 0, None, "1 to 768000"),
        ("flac", 700_000, None, "655350"),
        ("aiff", 48_000, None, "wav, wav16"),
        ("ogg", 48_000, "fast", "128k"),
        ("ogg", 48_000, "-5", "128k"),
    ],
)
def test_refused_before_work(name, rate, bitrate, words, tmp_path):
    with pytest.raises(AudioFormatError, match=words):
        check_output(name, rate, bitrate)
    with pytest.raises(AudioFormatError), open_writer(tmp_path / "x.wav", name, rate, bitrate):
        raise AssertionError("work started")
    assert not list(tmp_path.iterdir())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_allowed_encodes(data):
    entry = FORMATS[data.draw(st.sampled_from(sorted(FORMATS)))]
    rate = data.draw(st.sampled_from(entry.rates or (8_000, 37_800, 48_000, 192_000)))
    channels = data.draw(st.integers(1, min(entry.max_channels, 8)))
    bitrate = None
    if not entry.lossless:
        allowed = bitrates(entry, rate, channels)
        bitrate = data.draw(st.sampled_from([None, allowed[0], allowed[-1], allowed[len(allowed) // 2]]))
    output = check_output(entry.name, rate, bitrate, channels)
    assert (output.bitrate is None) == entry.lossless
    audio = np.repeat(chirp(rate, 0.1)[:, None], channels, axis=1)
    back, back_rate = decoded(encode_bytes(audio, entry.name, rate, bitrate))
    assert abs(len(back) / back_rate - len(audio) / rate) < (1 + SPARE.get(entry.name, 0)) / rate
    assert back.shape[1] == channels


def test_names():
    assert [format_for(f"x{end}") for end in (".WAV", ".flac", ".opus", ".ogg", ".mp4", ".webm")] == [
        "wav",
        "flac",
        "ogg",
        "ogg",
        "m4a",
        "webm",
    ]
    with pytest.raises(AudioFormatError, match=r"\.txt"):
        format_for("x.txt")
    assert parse_bitrate("128K") == parse_bitrate(128_000) == parse_bitrate("128000") == 128_000
    assert check_output("OGG", 48_000, "96k").bitrate == 96_000
    assert check_output("m4a", 16_000).bitrate == 96_000
    with pytest.raises(AudioFormatError, match="1 to 2 channels"):
        check_output("mp3", 48_000, channels=3)


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_a_failure_leaves_nothing(tmp_path, name):
    target = tmp_path / "out.bin"
    with pytest.raises(ZeroDivisionError), open_writer(target, name) as writer:
        writer.write(chirp(48_000))
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    target.write_bytes(b"the old take")
    for bad, words in ((np.full(10, np.nan, np.float32), "not numbers"), (np.zeros((5, 3), np.float32), "channels")):
        with pytest.raises(AudioError, match=words), open_writer(target, name) as writer:
            writer.write(chirp(48_000))
            writer.write(bad)
    with pytest.raises(AudioError, match="nothing was written"), open_writer(target, name):
        pass
    assert target.read_bytes() == b"the old take"
    assert [path.name for path in tmp_path.iterdir()] == ["out.bin"]


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_a_full_disk(tmp_path, monkeypatch, name):
    from rocktop_ray.audio import encode

    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(data) > 5_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(encode, "_open_part", lambda path: Full(path, "xb"))
    with pytest.raises(StorageError, match="o space left"):
        write_take(
            tmp_path / "out.bin", np.random.default_rng(0).uniform(-1, 1, 96_000).astype(np.float32), 48_000, name
        )
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(StorageError, match="folder"):
        write_take(tmp_path, chirp(48_000), format="wav")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        write_take(tmp_path / "file" / "out.wav", chirp(48_000))
    with pytest.raises(SettingsError, match="album"):
        encode_bytes(chirp(48_000), tags={"album": "x"})


def test_killed_half_way(tmp_path):
    """SIGKILL while writing: nothing stands under the final name, and the next run writes it."""
    target = tmp_path / "out.flac"
    code = (
        "import sys, numpy as np\nfrom rocktop_ray.audio.encode import open_writer\n"
        "with open_writer(sys.argv[1]) as writer:\n"
        "    while True:\n        writer.write(np.ones(48000, np.float32) * 0.1)\n        print('block', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, target], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL) if os.name == "posix" else process.kill()
    process.wait()
    time.sleep(0.05)
    assert not target.exists()
    assert all(path.suffix == ".part" for path in tmp_path.iterdir())
    write_take(target, chirp(48_000))
    assert probe(target).frames == len(chirp(48_000))
