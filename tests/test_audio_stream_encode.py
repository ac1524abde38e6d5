"""Encoding for a receiver that cannot seek: the samples of a file, sent early, with honest headers."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from rocktop_ray.audio import wav_writer
from rocktop_ray.audio.decode import open_reader, probe, read_take
from rocktop_ray.audio.encode import encode_bytes
from rocktop_ray.audio.formats import FORMATS, bitrates, check_output
from rocktop_ray.audio.integrity import mp3_seconds
from rocktop_ray.audio.stream_encode import open_stream
from rocktop_ray.errors import AudioError, AudioFormatError

NAMES = [name for name in FORMATS if name != "m4a"]
SAME_BYTES = {"wav", "wav16", "wav24", "ogg"}


def song(samples: int, rate: int = 48_000) -> np.ndarray:
    at = np.arange(samples) / rate
    return (0.3 * np.sin(2 * np.pi * (200 * at + 300 * at**2)) + 0.01).astype(np.float32)


def sent(audio: np.ndarray, name: str, rate: int = 48_000, *, known: bool, bitrate: int | None = None) -> list[bytes]:
    pieces: list[bytes] = []
    output = check_output(name, rate, bitrate)
    with open_stream(pieces.append, output, len(audio) if known else None) as writer:
        for start in range(0, len(audio), 10_007):
            writer.write(audio[start : start + 10_007])
    return pieces


def samples(data: bytes) -> np.ndarray:
    with open_reader(data) as reader:
        return np.concatenate(list(reader))[:, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_known_length_decodes_as_a_file(name: str, rate: int) -> None:
    if name in ("ogg", "webm") and rate == 44_100:
        rate = 24_000
    audio = song(2 * rate + 123, rate)
    whole, data = encode_bytes(audio, name, rate), b"".join(sent(audio, name, rate, known=True))
    assert np.array_equal(samples(data), samples(whole))
    assert (data == whole) == (name in SAME_BYTES)
    told = probe(data)
    assert told.seconds == pytest.approx(len(audio) / rate, abs=0.06 if name == "mp3" else 2e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 47, 48, 959, 1152, 50_000])
def test_short_takes_and_frame_borders(name: str, count: int) -> None:
    audio = song(count)
    assert np.array_equal(samples(b"".join(sent(audio, name, known=True))), samples(encode_bytes(audio, name)))


@pytest.mark.parametrize("name", NAMES)
def test_unknown_length_decodes_to_the_same_samples(name: str) -> None:
    audio = song(100_123)
    data, whole = b"".join(sent(audio, name, known=False)), samples(encode_bytes(audio, name))
    back = samples(data)
    if name == "mp3":  # the silences of the encoder are told by nothing
        assert mp3_seconds(io.BytesIO(data)) is None
        assert len(back) <= len(whole) + 2 * 1152 + 529
        back = back[1105:][: len(whole)]
    assert np.array_equal(back, whole)


@pytest.mark.parametrize("name", NAMES)
def test_pieces_come_as_they_are_made(name: str) -> None:
    """After each second of audio at most two more are still inside."""
    pieces: list[bytes] = []
    audio, sizes = song(12 * 48_000), []
    with open_stream(pieces.append, check_output(name, 48_000), len(audio)) as writer:
        for start in range(0, len(audio), 48_000):
            writer.write(audio[start : start + 48_000])
            sizes.append(sum(map(len, pieces)))
    total = sum(map(len, pieces))
    assert max(map(len, pieces)) <= 1 << 18
    for second, size in enumerate(sizes, 1):
        assert size >= total * (second - 2) / 12 * 0.8


@pytest.mark.parametrize("rate", FORMATS["mp3"].rates)
def test_mp3_tag_at_every_bitrate(rate: int) -> None:
    audio = song(rate, rate)
    for bitrate in bitrates(FORMATS["mp3"], rate):
        data = b"".join(sent(audio, "mp3", rate, known=True, bitrate=bitrate))
        whole = encode_bytes(audio, "mp3", rate, bitrate)
        assert mp3_seconds(io.BytesIO(data)) == mp3_seconds(io.BytesIO(whole)) is not None
    assert np.array_equal(samples(data), samples(whole))


def test_wav_of_unknown_and_of_long_length(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = song(70_001)
    for name in ("wav", "wav16", "wav24"):
        data = b"".join(sent(audio, name, known=False))
        assert data[4:8] == b"\xff" * 4
        assert soundfile.info(io.BytesIO(data)).frames == len(audio)
    monkeypatch.setattr(wav_writer, "_LIMIT", 100_000)
    assert b"".join(sent(audio, "wav", known=True)) == encode_bytes(audio, "wav")
    assert encode_bytes(audio, "wav")[:4] == b"RF64"


def test_what_cannot_be_sent_is_refused_before_work() -> None:
    with (
        pytest.raises(AudioFormatError, match="m4a cannot be sent") as caught,
        open_stream(print, check_output("m4a", 48_000)),
    ):
        pytest.fail("opened")
    assert caught.value.http_status == 422
    with pytest.raises(AudioError, match="nothing was written"), open_stream(print, check_output("ogg", 48_000)):
        pass


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "mp3"])
def test_the_receivers_error_ends_it(name: str) -> None:
    class GoneError(Exception):
        pass

    def gone(_: bytes) -> None:
        raise GoneError

    with pytest.raises(GoneError), open_stream(gone, check_output(name, 48_000)) as writer:
        for _ in range(4):
            writer.write(song(48_000))


def test_flac_of_unknown_length_can_be_read_as_a_take() -> None:
    audio = song(300_000)
    data = b"".join(sent(audio, "flac", known=False))
    assert np.abs(read_take(data) - audio).max() < 2**-22
