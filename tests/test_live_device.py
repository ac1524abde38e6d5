"""Sound devices: what PortAudio is asked for, and what is said where it is not there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import rocktop

from rocktop_ray.errors import DeviceError
from rocktop_ray.live import device


def test_devices_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for words in (["--list-devices"], [], ["-o", tmp_path / "out.wav"]):
        code, out, err = rocktop(capsys, "live", *words)
        assert (code, out) == (69, "") and "pip install 'rocktop-ray[live]'" in err
        assert len(err.strip().splitlines()) == 1
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.syspath_prepend(tmp_path)
    code, _, err = rocktop(capsys, "live", "--list-devices")
    assert code == 69 and "PortAudio library" in err and "libportaudio2" in err


class FakeLibrary:
    """As much of sounddevice as is used."""

    class PortAudioError(Exception):
        pass

    class default:
        device = (0, 1)

    def __init__(self) -> None:
        self.opened: list[dict[str, Any]] = []
        self.log: list[str] = []

    def query_devices(self, which: Any = None, kind: str = "") -> Any:
        entries = [
            {"name": "Microphone", "max_input_channels": 1, "max_output_channels": 0, "default_samplerate": 44100.0},
            {"name": "Speakers", "max_input_channels": 0, "max_output_channels": 6, "default_samplerate": 48000.0},
        ]
        if not kind:
            return entries
        if which == "Nothing":
            raise ValueError("No input device matching 'Nothing'")
        return entries[kind == "output"]

    def stream(self, **options: Any) -> FakeLibrary:
        self.opened.append(options)
        return self

    InputStream = OutputStream = stream

    def start(self) -> None:
        self.log.append("start")

    def close(self) -> None:
        self.log.append("close")


def test_the_card_is_asked_as_portaudio_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeLibrary()
    monkeypatch.setitem(sys.modules, "sounddevice", library)  # type: ignore[arg-type]
    assert [(entry.name, entry.default) for entry in device.list_devices()] == [
        ("Microphone", "input"),
        ("Speakers", "output"),
    ]
    card = device.PortAudioDevice("0", "Speakers")
    assert card.rate == 44_100
    blocks: list[np.ndarray] = []
    card.start(blocks.append, None)
    card.start(None, lambda samples: np.full(samples, 0.5, np.float32))
    record, play = library.opened
    assert (record["device"], record["channels"], record["blocksize"], record["samplerate"]) == (0, 1, 441, 44_100)
    assert (play["device"], play["channels"]) == ("Speakers", 2)
    record["callback"](np.ones((441, 1), np.float32), 441, None, True)
    out = np.zeros((441, 2), np.float32)
    play["callback"](out, 441, None, False)
    assert len(blocks[0]) == 441 and out.min() == 0.5 and card.troubles == 1
    card.stop()
    assert library.log == ["start", "start", "close", "close"]
    with pytest.raises(DeviceError, match="--list-devices"):
        device.PortAudioDevice("Nothing", "Nothing").rate  # noqa: B018
