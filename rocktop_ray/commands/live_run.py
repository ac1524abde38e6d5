"""What ``rocktop live`` does: puts source, client and sink together, and tells how it goes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import typer
from rich.console import Console
from rich.table import Table

from rocktop_ray.audio.decode import probe
from rocktop_ray.audio.formats import Output, check_output, format_for
from rocktop_ray.errors import CancelledError, RocktopError, SettingsError, StorageError
from rocktop_ray.live.device import PortAudioDevice, SoundDevice, list_devices
from rocktop_ray.live.events import Event, Lost, Resumed
from rocktop_ray.live.messages import LEAST_RATE, MOST_RATE, Format, Notice, Pace, Start, Started, Stats
from rocktop_ray.live.sinks import FileSink, PipeSink, Sink, SpeakerSink
from rocktop_ray.live.sources import FileSource, MicrophoneSource, PipeSource, Source
from rocktop_ray.live.transfer import Client, Course, transfer
from rocktop_ray.protocols import TAKE_RATE

_DEFAULT_BLOCK = 40.0


@dataclass(frozen=True)
class Wanted:
    """The command's words: see ``commands.live``."""

    source: str | None
    out: str | None
    url: str | None
    api_key: str | None
    voice: str
    settings: dict[str, Any]
    bypass: bool
    pace: str | None
    block: float | None
    rate: int | None
    raw: str
    wire: str
    patience: float
    stats: bool
    device: str | None
    output_device: str | None
    buffer: float
    library: Path | None
    index: Path | None
    pitch: str | None
    threads: int | None

    @property
    def card(self) -> bool:
        """Whether a sound device takes part."""
        return self.source is None or self.out is None


def show_devices() -> None:
    """The table of ``--list-devices``."""
    table = Table("number", "name", "inputs", "outputs", "Hz", "default", box=None)
    for entry in list_devices():
        table.add_row(*map(str, (entry.number, entry.name, entry.inputs, entry.outputs, entry.rate, entry.default)))
    Console().print(table)


def run(wanted: Wanted, open_card: Callable[[Wanted], SoundDevice] | None = None) -> None:
    """The stream, to its end. ``open_card``: makes the sound device. Raises RocktopError."""
    pace = cast(Pace, wanted.pace or ("live" if wanted.card else "free"))
    if wanted.card and pace == "free":
        raise SettingsError("a sound device plays as time passes: leave out --pace free")
    card = (open_card or _card)(wanted) if wanted.card else None
    rate = wanted.rate or _natural_rate(wanted, card)
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise SettingsError(f"a stream has {LEAST_RATE} to {MOST_RATE} Hz, not {rate}: choose one by --rate")
    output = None
    if wanted.out not in (None, "-"):
        output = check_output(format_for(str(wanted.out)), rate)
        if wanted.source is not None and Path(str(wanted.out)).resolve() == Path(wanted.source).resolve():
            raise SettingsError(f"{wanted.source} cannot be written over itself; name another target")
    teller = _Teller(wanted.stats, pace == "live")
    client, block = _client(wanted, rate, pace, teller)
    source, sink = _source(wanted, rate, block, pace, card), _sink(wanted, rate, output, card)
    teller.sink, teller.card = sink, card
    asyncio.run(_stream(wanted, source, client, sink, teller))


async def _stream(wanted: Wanted, source: Source, client: Client, sink: Sink, teller: _Teller) -> None:
    course, failure, stopped = teller.course, None, False
    running = asyncio.create_task(transfer(source, client, sink, course, teller.opened))

    def stop() -> None:
        nonlocal stopped
        if stopped or not course.rate:  # the second time, or before it began: at once
            running.cancel()
        stopped = True
        source.stop()

    undo = _on_interrupt(stop)
    try:
        await running
    except RocktopError as error:
        failure = error
    except asyncio.CancelledError:
        stopped = True
    finally:
        undo()
    if stopped and isinstance(failure, StorageError) and wanted.out == "-":  # Ctrl-C ends a whole pipeline
        sink.discard()
        return
    whole = wanted.source not in (None, "-")
    keep = course.written > 0 and (not whole or failure is None)
    if not keep:
        sink.discard()
    else:
        await sink.finish()
    seconds = course.written / max(course.rate, 1)
    kept = f"; the first {seconds:.2f} s are in {wanted.out}" if keep and wanted.out not in (None, "-") else ""
    if failure is not None:
        failure.message += kept
        raise failure
    if stopped and (whole or not keep):
        raise CancelledError(f"stopped{kept}")
    teller.ended(seconds, wanted.out)


def _on_interrupt(stop: Callable[[], None]) -> Callable[[], None]:
    """Let Ctrl-C call ``stop`` -> what undoes that."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, stop)
    except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
        try:
            before = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(stop))
        except ValueError:
            return lambda: None
        return lambda: cast(None, signal.signal(signal.SIGINT, before))
    return lambda: cast(None, loop.remove_signal_handler(signal.SIGINT))


def _client(wanted: Wanted, rate: int, pace: Pace, teller: _Teller) -> tuple[Client, int]:
    """The client, and the samples of its blocks."""
    if wanted.url is not None:
        from rocktop_ray.live.client import LiveClient

        block = max(1, round(rate * (wanted.block or _DEFAULT_BLOCK) / 1000))
        start = Start(wanted.voice, rate, cast(Format, wanted.wire), block, pace, dict(wanted.settings), wanted.bypass)
        return (
            LiveClient(wanted.url, start, api_key=wanted.api_key, patience=wanted.patience, on_event=teller.event),
            block,
        )
    import torch

    from rocktop_ray.live.layout import LiveLayout
    from rocktop_ray.live.local import LocalClient
    from rocktop_ray.live.open import open_live
    from rocktop_ray.live.stream import LiveStream
    from rocktop_ray.settings import ConvertSettings
    from rocktop_ray.voices.open import voice_info

    if wanted.threads is not None:
        torch.set_num_threads(wanted.threads)
    layout = None if wanted.block is None else LiveLayout(hop=2 * round(wanted.block / 20))
    defaults = voice_info(wanted.voice, library=wanted.library).defaults
    settings = ConvertSettings.from_mapping({**defaults, **wanted.settings})
    converter = open_live(wanted.voice, layout=layout, index=wanted.index, pitch=wanted.pitch, library=wanted.library)
    block = max(1, round(rate * converter.hop / TAKE_RATE))
    stream = LiveStream(converter, settings, rate=rate, multiple=block)
    stream.bypass = wanted.bypass
    return LocalClient(stream, wanted.voice, live=pace == "live", on_event=teller.event), block


def _card(wanted: Wanted) -> SoundDevice:
    return PortAudioDevice(wanted.device, wanted.output_device or wanted.device, rate=wanted.rate)


def _natural_rate(wanted: Wanted, card: SoundDevice | None) -> int:
    if card is not None:
        return card.rate
    if wanted.source == "-":
        return TAKE_RATE
    own = probe(Path(str(wanted.source))).rate
    return own if LEAST_RATE <= own <= MOST_RATE else TAKE_RATE


def _source(wanted: Wanted, rate: int, block: int, pace: Pace, card: SoundDevice | None) -> Source:
    if wanted.source is None:
        assert card is not None
        return MicrophoneSource(card, block)
    if wanted.source == "-":
        return PipeSource(_unbuffered(sys.stdin), cast(Format, wanted.raw), block)
    return FileSource(Path(wanted.source), rate, block, paced=pace == "live")


def _sink(wanted: Wanted, rate: int, output: Output | None, card: SoundDevice | None) -> Sink:
    if wanted.out is None:
        assert card is not None
        return SpeakerSink(card, wanted.buffer)
    if output is None:
        return PipeSink(_unbuffered(sys.stdout), cast(Format, wanted.raw), rate)
    return FileSink(Path(wanted.out), output)


def _unbuffered(stream: Any) -> Any:
    """The file itself: nothing of the samples is left behind in a buffer when something breaks."""
    return getattr(stream.buffer, "raw", stream.buffer)


@dataclass
class _Teller:
    """Lines on standard error."""

    stats: bool
    live: bool
    course: Course = field(default_factory=Course)
    sink: Sink | None = None
    card: SoundDevice | None = None
    delay_ms: float = 0.0

    def opened(self, started: Started) -> None:
        """The stream stands."""
        self.delay_ms = started.delay_ms

    def event(self, event: Event) -> None:
        """Whatever happens."""
        if isinstance(event, Stats) and self.stats:
            self._say(self._line(event))
        elif isinstance(event, Lost):
            self._say(f"connection lost: {event.why}; trying to go on")
        elif isinstance(event, Resumed):
            self._say(f"going on after {event.seconds:.1f} s; {event.again} blocks are sent again")
        elif isinstance(event, Notice):
            self._say(f"server: {event.code}: {event.message}")

    def ended(self, seconds: float, out: str | None) -> None:
        """The last line."""
        course = self.course
        bad = f", {course.late} late, {course.lost} lost of {course.blocks} blocks" if course.late + course.lost else ""
        line = f"{seconds:.2f} s, delay {self.delay_ms:.0f} ms{bad}{self._device()}"
        if out not in (None, "-"):
            typer.echo(f"{out}: {line}")
        else:
            self._say(line)

    def _line(self, stats: Stats) -> str:
        way = f" + {1e3 * self.course.way:.0f}" if self.live and self.course.blocks else ""
        lateness = f"lateness {stats.lateness_ms:.1f} ms  late {stats.late}  " if self.live else ""
        return (
            f"{stats.seconds:8.2f} s  delay {self.delay_ms:.0f}{way} ms  "
            f"compute {stats.compute_ms.p50:.1f}/{stats.compute_ms.p95:.1f}/{stats.compute_ms.max:.1f} ms  "
            f"queue {stats.queue_ms:.1f} ms  {lateness}lost {stats.lost}  load {stats.load:.2f}{self._device()}"
        )

    def _device(self) -> str:
        parts = []
        if isinstance(self.sink, SpeakerSink):
            counts = self.sink.counts
            parts.append(f"underruns {counts.underruns}, buffer {1e3 * self.sink.seconds:.0f} ms")
        if self.card is not None and self.card.troubles:
            parts.append(f"device troubles {self.card.troubles}")
        return "  " + ", ".join(parts) if parts else ""

    def _say(self, line: str) -> None:
        typer.echo(line, err=True)
