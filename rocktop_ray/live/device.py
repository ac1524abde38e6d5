"""Sound devices: microphone and loudspeaker, through PortAudio (the optional package ``sounddevice``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rocktop_ray.errors import DeviceError
from rocktop_ray.protocols import Array

_HOW = "pip install 'rocktop-ray[live]'"


class SoundDevice(Protocol):
    """What a live stream needs of a sound card. Both callbacks are called from the card's own threads."""

    @property
    def rate(self) -> int:
        """Hz, of both directions."""
        ...

    @property
    def troubles(self) -> int:
        """Times that the card lost input, or had nothing to play, by its own account."""
        ...

    def start(self, heard: Callable[[Array], None] | None, wanted: Callable[[int], Array] | None) -> None:
        """Begin one direction, or both. ``heard`` gets each block ``[samples]`` of the microphone; ``wanted(n)`` gives
        the next n to play.
        """
        ...

    def stop(self) -> None:
        """End; no callback comes any more."""
        ...


@dataclass(frozen=True)
class DeviceInfo:
    """A device as PortAudio lists it."""

    number: int
    name: str
    inputs: int
    outputs: int
    rate: int
    """Its own, in Hz."""
    default: str
    """``input``, ``output``, both or neither."""


def list_devices() -> list[DeviceInfo]:
    """All devices. Raises DeviceError."""
    library = _library()
    try:
        entries, defaults = library.query_devices(), library.default.device
    except library.PortAudioError as error:
        raise _refused(error) from error
    return [
        DeviceInfo(
            number,
            str(entry["name"]),
            int(entry["max_input_channels"]),
            int(entry["max_output_channels"]),
            round(entry["default_samplerate"]),
            " ".join(word for word, chosen in zip(("input", "output"), defaults, strict=True) if chosen == number),
        )
        for number, entry in enumerate(entries)
    ]


class PortAudioDevice:
    """Implements ``SoundDevice``.

    Args:
        source, sink: number or part of the name of a device; None is the system's own choice.
        rate: Hz; None is the input device's own rate, or the output's.
        block: seconds of a block, as far as the card can be asked for it.

    Raises DeviceError.
    """

    def __init__(
        self, source: str | None = None, sink: str | None = None, *, rate: int | None = None, block: float = 0.01
    ) -> None:
        self._library = _library()
        self._source, self._sink = _chosen(source), _chosen(sink)
        self._block = block
        self._rate = rate
        self._streams: list[Any] = []
        self._troubles = 0

    @property
    def rate(self) -> int:
        """See ``SoundDevice``."""
        if self._rate is None:
            self._rate = self._own_rate()
        return self._rate

    @property
    def troubles(self) -> int:
        """See ``SoundDevice``."""
        return self._troubles

    def start(self, heard: Callable[[Array], None] | None, wanted: Callable[[int], Array] | None) -> None:
        """See ``SoundDevice``."""
        library = self._library
        common = {
            "samplerate": self.rate,
            "blocksize": max(1, round(self.rate * self._block)),
            "dtype": "float32",
            "latency": "low",
        }

        def record(data: np.ndarray, frames: int, time: Any, status: Any) -> None:
            self._troubles += bool(status)
            assert heard is not None
            heard(data.mean(axis=1) if data.shape[1] > 1 else data[:, 0].copy())

        def play(data: np.ndarray, frames: int, time: Any, status: Any) -> None:
            self._troubles += bool(status)
            assert wanted is not None
            data[:] = wanted(frames)[:, None]

        streams = []
        try:
            if wanted is not None:
                channels = min(2, int(library.query_devices(self._sink, "output")["max_output_channels"]))
                streams.append(library.OutputStream(device=self._sink, channels=channels, callback=play, **common))
            if heard is not None:
                streams.append(library.InputStream(device=self._source, channels=1, callback=record, **common))
            self._streams += streams
            for stream in streams:
                stream.start()
        except (library.PortAudioError, ValueError) as error:
            self._streams += [stream for stream in streams if stream not in self._streams]
            self.stop()
            raise _refused(error) from error

    def stop(self) -> None:
        """See ``SoundDevice``."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    def _own_rate(self) -> int:
        library = self._library
        try:
            return round(library.query_devices(self._source, "input")["default_samplerate"])
        except (library.PortAudioError, ValueError):
            pass
        try:
            return round(library.query_devices(self._sink, "output")["default_samplerate"])
        except (library.PortAudioError, ValueError) as error:
            raise _refused(error) from error


def _chosen(name: str | None) -> int | str | None:
    return int(name) if name is not None and name.isdigit() else name


def _library() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise DeviceError(f"sound devices need the package sounddevice: {_HOW}") from error
    except OSError as error:  # the package is there, the library that it binds is not
        raise DeviceError(
            "sound devices need the PortAudio library: sudo apt install libportaudio2, or what your system calls it"
        ) from error
    return sounddevice


def _refused(error: Exception) -> DeviceError:
    words = " ".join(str(error).split())[:200]
    return DeviceError(f"the sound device cannot be used: {words}; see rocktop live --list-devices")
