"""Reading: what is accepted, what is refused and in which words."""

import io
import os
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rocktop_ray.audio.decode import iter_take, open_reader, probe, read_take
from rocktop_ray.audio.encode import encode_bytes
from rocktop_ray.audio.info import AudioLimits
from rocktop_ray.errors import AudioError, AudioFormatError, AudioLimitError, RocktopError, SettingsError, StorageError

FORMATS = ["wav", "wav16", "flac", "ogg", "webm", "mp3", "m4a"]


def tone(seconds: float = 1.0, rate: int = 48_000, hertz: float = 330.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: encode_bytes(tone(), name) for name in FORMATS}


def wav(audio: np.ndarray, rate: int = 48_000, subtype: str = "FLOAT", kind: str = "WAV") -> bytes:
    memory = io.BytesIO()
    soundfile.write(memory, audio, rate, subtype=subtype, format=kind)
    return memory.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_a_path_bytes_and_a_file_object_are_the_same(files, name, tmp_path):
    path = tmp_path / "take with ümläut.bin"  # the content decides, not the name
    path.write_bytes(files[name])
    take = read_take(path)
    assert len(take) == 48_000
    assert np.array_equal(take, read_take(files[name]))
    assert np.array_equal(take, read_take(io.BytesIO(files[name])))
    assert np.array_equal(take, read_take(str(path)))
    info = probe(path)
    assert (info.rate, info.channels) == (48_000, 1)
    assert info.frames in (48_000, None)
    assert info.seconds == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_wav_subtypes(subtype):
    error = np.abs(read_take(wav(tone(), subtype=subtype)) - tone()).max()
    assert error < (0.02 if subtype in ("PCM_U8", "ULAW") else 4e-5)


@pytest.mark.parametrize("kind", ["AIFF", "CAF", "W64", "AU", "RF64"])
def test_other_containers(kind):
    assert np.array_equal(read_take(wav(tone(), kind=kind)), tone())


def test_rate_is_changed_and_length_exact():
    take = read_take(wav(tone(rate=44_100), 44_100))
    assert len(take) == 48_000
    assert np.abs(take - tone())[500:-500].max() < 1e-6


def test_a_pipe_is_spooled(files):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise OSError("a pipe")

    assert np.array_equal(read_take(Pipe(files["wav"])), tone())
    with pytest.raises(AudioLimitError, match="bytes"):
        read_take(Pipe(files["wav"]), limits=AudioLimits(max_bytes=1000))


def test_blocks_are_bounded():
    with open_reader(wav(np.zeros((400_000, 2), np.float32) + 0.1)) as reader:
        sizes = [block.shape for block in reader]
    assert len(sizes) > 3
    assert all(columns == 2 for _, columns in sizes)
    assert sum(rows for rows, _ in sizes) == 400_000


def test_stereo_is_the_mean():
    left, right = tone(hertz=300), tone(hertz=500)
    take = read_take(wav(np.stack([left, right], axis=1)))
    assert np.abs(take - (left + right) / 2).max() < 1e-7


@pytest.mark.parametrize("gain", [1.0, 0.9])
def test_opposite_phase_takes_the_louder_channel(gain):
    stereo = np.stack([gain * tone(), -tone()], axis=1)
    take = read_take(wav(stereo, rate=44_100), rate=44_100)
    assert np.array_equal(take, stereo[:, 0 if gain == 1.0 else 1])
    assert np.array_equal(np.concatenate(list(iter_take(wav(stereo, rate=44_100), rate=44_100))), take)


def test_iter_take_equals_read_take():
    data = wav(np.random.default_rng(0).uniform(-1, 1, (300_000, 2)).astype(np.float32), 44_100)
    assert np.array_equal(np.concatenate(list(iter_take(data))), read_take(data))


def video(streams: int, picture: bool = True) -> bytes:
    """A small matroska with pictures and sound."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="matroska") as container:
        images = container.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p") if picture else None
        sounds = [container.add_stream("flac", rate=8_000, layout="mono") for _ in range(streams)]
        if images is not None:
            for number in range(5):
                picture_frame = av.VideoFrame(32, 32, "yuv420p")
                picture_frame.pts, picture_frame.time_base = number, Fraction(1, 5)
                container.mux(images.encode(picture_frame))
            container.mux(images.encode(None))
        for number, sound in enumerate(sounds):
            level = np.full((1, 8_000), 1000 * (number + 1), np.int16)
            frame = av.AudioFrame.from_ndarray(level, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8_000, 0, Fraction(1, 8_000)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return memory.getvalue()


def test_the_sound_of_a_video_and_the_choice_of_streams():
    data = video(2)
    assert read_take(data, rate=8_000)[4000] == pytest.approx(1000 / 32768)
    assert read_take(data, rate=8_000, stream=1)[4000] == pytest.approx(2000 / 32768)
    with pytest.raises(SettingsError, match="0 to 1"):
        read_take(data, stream=2)
    with pytest.raises(SettingsError, match="one audio stream"):
        read_take(wav(tone()), stream=1)
    with pytest.raises(AudioError, match=r"no audio in it, only video"):
        read_take(video(0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers(value):
    audio = tone()
    audio[24_000] = value
    with pytest.raises(AudioError, match=r"NaN or infinite.*0\.500 s"):
        read_take(wav(audio))


def test_integers_stored_as_floats():
    with pytest.raises(AudioError, match="far above full scale"):
        read_take(wav(tone() * 32768))


def test_nothing_inside(tmp_path):
    with pytest.raises(AudioError, match=r"empty \(0 bytes\)"):
        read_take(b"")
    with pytest.raises(AudioError, match="no audio samples"):
        read_take(wav(np.zeros(0, np.float32)))
    with pytest.raises(AudioError, match="no file"):
        read_take(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="folder"):
        read_take(tmp_path)
    text = tmp_path / "text.wav"
    text.write_text("these are words\n" * 100)
    with pytest.raises(AudioFormatError, match="is not audio"):
        read_take(text)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AudioError, match="not an ordinary file"):
        read_take(tmp_path / "pipe")


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "take.wav"
    path.write_bytes(wav(tone()))

    def refuse(*_args, **_keywords):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        read_take(path)


def test_short_is_fine():
    assert len(read_take(wav(tone(0.1)))) == 4_800
    assert len(read_take(wav(tone()[:1]))) == 1


def test_limits():
    with pytest.raises(AudioLimitError, match="100 channels"):
        read_take(wav(np.zeros((10, 100), np.float32)))
    with pytest.raises(AudioLimitError, match="longer"):
        read_take(wav(tone(2.0)), limits=AudioLimits(max_seconds=1.5))
    with pytest.raises(AudioLimitError, match="bytes"):
        read_take(wav(tone()), limits=AudioLimits(max_bytes=100))
    with pytest.raises(AudioLimitError, match="100 Hz"):
        read_take(wav(tone(), rate=100))


def test_a_length_that_only_shows_while_decoding():
    """An open-ended header does not get around the limit of seconds."""
    data = bytearray(encode_bytes(tone(2.0), "wav"))
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    assert len(read_take(bytes(data))) == 96_000
    with pytest.raises(AudioLimitError):
        read_take(bytes(data), limits=AudioLimits(max_seconds=1.5))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
def test_cut_files_are_refused(files, name, share):
    data = files[name]
    with pytest.raises(AudioError, match=r"cut off|end is missing|damaged"):
        read_take(data[: int(len(data) * share)])


def test_a_cut_file_says_what_is_there():
    data = encode_bytes(tone(2.0), "wav")
    with pytest.raises(AudioError, match=r"1\.\d\d of 2\.00 s"):
        read_take(data[: len(data) // 2 + 10_000])


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {path}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period/></MPD>',
    ],
)
def test_playlists_open_nothing(tmp_path, text):
    """A file that names another file or address is refused, whatever its ending."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav(tone()))
    path = tmp_path / "list.mp3"
    path.write_text(text.format(url=secret.as_uri(), path=secret))
    with pytest.raises(AudioFormatError):
        read_take(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_an_error_or_audio(files, data):
    """Bytes changed, cut or invented: never anything but a RocktopError or finite samples."""
    name = data.draw(st.sampled_from([*FORMATS, "garbage"]))
    if name == "garbage":
        head = data.draw(
            st.sampled_from([b"", b"RIFF\xff\xff\xff\x7fWAVEfmt ", b"OggS", b"fLaC", b"ID3", b"\x1aE\xdf\xa3"])
        )
        broken = head + data.draw(st.binary(min_size=1, max_size=300))
    else:
        broken = bytearray(files[name])
        del broken[data.draw(st.integers(1, len(broken))) :]
        for _ in range(data.draw(st.integers(0, 8))):
            # Headers are the interesting part.
            place = data.draw(st.integers(0, min(len(broken), data.draw(st.sampled_from([64, 400, 10**9]))) - 1))
            broken[place] = data.draw(st.integers(0, 255))
    try:
        take = read_take(bytes(broken), rate=16_000, limits=AudioLimits(max_seconds=60))
    except RocktopError as error:
        assert error.message
    else:
        assert np.isfinite(take).all()


def test_a_header_that_points_past_all_files(tmp_path):
    """The system refuses to seek to where a damaged DSF file sends its reader; that is the file's fault."""
    head = b"DSD " + struct.pack("<QQQ", 28, 2**62, 2**61)
    form = b"fmt " + struct.pack("<QIIIIIIQII", 52, 1, 0, 2, 0x7FFFFFFF, 2_822_400, 1, 2**62, 4096, 0)
    path = tmp_path / "take.dsf"
    path.write_bytes(head + form)
    with pytest.raises(AudioFormatError):
        read_take(path)


def test_memory_stays_bounded(tmp_path):
    """Eight minutes of stereo (184 MB as float32) pass through; the process grows by far less."""
    pytest.importorskip("resource")
    path = tmp_path / "long.wav"
    header = wav(np.zeros((1, 2), np.float32), 48_000, "PCM_16")[:36]
    frames = 8 * 60 * 48_000
    with path.open("wb") as file:
        file.write(header + b"data" + struct.pack("<I", frames * 4))
        file.truncate(44 + frames * 4)
    code = (
        "import resource, sys\nfrom rocktop_ray.audio.decode import iter_take\n"
        "list(zip(range(3), iter_take(sys.argv[1])))\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "count = sum(map(len, iter_take(sys.argv[1])))\nafter = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(count, after - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
    count, grown = map(int, done.stdout.split())
    assert count == frames
    assert grown < 60_000  # KiB
