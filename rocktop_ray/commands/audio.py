"""``rocktop audio``: resample, normalise, trim, slice and describe recordings, one or a folder tree."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rocktop_ray.audio.batch import BatchReport

app = typer.Typer(no_args_is_help=True, help="Resample, normalise, trim, slice and describe recordings.")

Source = Annotated[Path, typer.Argument(metavar="IN", help="A recording, or a folder tree of them.")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="File or folder of the results; a tree keeps its shape.")]
Format = Annotated[str, typer.Option(help="wav (float32), wav16, wav24, flac, flac16, ogg, webm, mp3, m4a.")]
Bitrate = Annotated[str | None, typer.Option(help="For lossy formats, e.g. 128k.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes at work.")]


@app.command("resample")
def resample_command(
    source: Source,
    target: Target,
    rate: Annotated[int, typer.Option(help="Sample rate of the results in Hz.")] = 48_000,
    format: Format = "wav",
    bitrate: Bitrate = None,
    jobs: Jobs = 1,
) -> None:
    """Change the sample rate (soxr VHQ, linear phase). A second run goes on where the first stopped."""
    from rocktop_ray.audio.formats import check_output
    from rocktop_ray.audio.transform import resample_file

    check_output(format, rate, bitrate)
    _batch(source, target, partial(resample_file, rate=rate), "resample", {"rate": rate}, format, bitrate, jobs)


@app.command("normalize")
def normalize_command(
    source: Source,
    target: Target,
    peak: Annotated[float, typer.Option(help="Peak of the results in dBFS.")] = -1.0,
    format: Format = "wav",
    bitrate: Bitrate = None,
    jobs: Jobs = 1,
) -> None:
    """Bring each recording's peak to a level. Silence stays as it is."""
    from rocktop_ray.audio.level import normalising_gain
    from rocktop_ray.audio.transform import normalise_file

    normalising_gain(1.0, peak)
    _batch(source, target, partial(normalise_file, dbfs=peak), "normalize", {"peak": peak}, format, bitrate, jobs)


@app.command("trim")
def trim_command(
    source: Source,
    target: Target,
    threshold: Annotated[float, typer.Option(help="What is quieter than this, in dBFS, is silence.")] = -50.0,
    keep: Annotated[float, typer.Option(min=0.0, help="Seconds of silence left at each end.")] = 0.05,
    format: Format = "wav",
    bitrate: Bitrate = None,
    jobs: Jobs = 1,
) -> None:
    """Cut the silence at both ends."""
    from rocktop_ray.audio.transform import trim_file

    work = partial(trim_file, threshold_db=threshold, keep_seconds=keep)
    _batch(source, target, work, "trim", {"threshold": threshold, "keep": keep}, format, bitrate, jobs)


@app.command("slice")
def slice_command(
    source: Source,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the slices; a tree keeps its shape.")],
    threshold: Annotated[float, typer.Option(help="What is quieter than this, in dBFS, is a pause.")] = -42.0,
    min_length: Annotated[int, typer.Option(help="Shortest slice in ms.")] = 1500,
    min_interval: Annotated[int, typer.Option(help="Shortest pause that is cut, in ms.")] = 400,
    hop: Annotated[int, typer.Option(help="Step of the level meter in ms.")] = 15,
    max_silence: Annotated[int, typer.Option(help="Most silence kept at each end of a slice, in ms.")] = 500,
    format: Format = "wav",
) -> None:
    """Cut long recordings at their pauses into NAME_0000.wav, NAME_0001.wav..."""
    from rocktop_ray.audio.batch import BatchReport, plan
    from rocktop_ray.audio.slice import SliceSettings
    from rocktop_ray.audio.transform import slice_file
    from rocktop_ray.errors import RocktopError, SettingsError, storage_errors

    settings = SliceSettings(threshold, min_length, min_interval, hop, max_silence)
    suffix = _suffix(format, None)
    if target.is_file():
        raise SettingsError(f"{target} is a file; slices need a folder")
    if source.is_file():
        with storage_errors(target):
            target.mkdir(parents=True, exist_ok=True)
    pairs, others = plan(source, target, suffix)
    report = BatchReport(others=others)
    count = 0
    for file, result in pairs:
        try:
            count += len(slice_file(file, result.parent, settings, format, suffix=suffix))
            report.done.append(file)
        except RocktopError as error:
            report.failed.append((file, error))
    _print(report, target, f", {count} slices")


@app.command("info")
def info_command(
    files: Annotated[list[Path], typer.Argument(help="Recordings, or folders of them.")],
    levels: Annotated[bool, typer.Option("--levels", help="Decode all of it and measure peak and loudness.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Show rate, channels, length and codec."""
    from rocktop_ray.audio.batch import BatchReport, find_recordings
    from rocktop_ray.audio.decode import open_reader, probe
    from rocktop_ray.audio.meter import measure
    from rocktop_ray.errors import RocktopError

    report = BatchReport()
    for path in [found for file in files for found in (find_recordings(file)[0] if file.is_dir() else [file])]:
        try:
            facts = asdict(probe(path))
            if levels:
                with open_reader(path) as reader:
                    facts |= asdict(measure(reader, reader.info.rate))
        except RocktopError as error:
            report.failed.append((path, error))
            continue
        report.done.append(path)
        if as_json:
            typer.echo(json.dumps({"file": str(path), **facts}))
        else:
            values = (f"{value:.6g}" if isinstance(value, float) else value for value in facts.values())
            typer.echo(f"{path}: {', '.join(f'{key} {value}' for key, value in zip(facts, values, strict=True))}")
    _print_failures(report)
    report.raise_for_failures()


def _suffix(format: str, bitrate: str | None) -> str:
    """The ending of a format's files; refuses unknown formats and bitrates before work starts."""
    from rocktop_ray.audio.formats import FORMATS, check_output, parse_bitrate

    if format.lower() not in FORMATS:
        check_output(format, 48_000)
    if bitrate is not None:
        parse_bitrate(bitrate)
    return FORMATS[format.lower()].suffix


def _batch(
    source: Path,
    target: Path,
    work: partial[None],
    name: str,
    settings: dict[str, object],
    format: str,
    bitrate: str | None,
    jobs: int,
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rocktop_ray.audio.batch import run_batch

    suffix = _suffix(format, bitrate)
    settings = {"work": name, "format": format.lower(), "bitrate": bitrate, **settings}
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        report = run_batch(
            source,
            target,
            partial(work.func, **work.keywords, format=format, bitrate=bitrate),
            settings,
            suffix=suffix,
            jobs=jobs,
            on_progress=lambda done, total, path: bar.update(task, completed=done, total=total, description=path.name),
        )
    _print(report, target)


def _print(report: BatchReport, target: Path, more: str = "") -> None:
    """One line for each failure, one for the rest; raises AudioError if a file failed."""
    _print_failures(report)
    for path in report.others:
        typer.echo(f"passed over: {path} (not a recording)", err=True)
    counts = f"{len(report.done)} written, {len(report.skipped)} already there, {len(report.failed)} failed"
    typer.echo(f"{counts}{more}: {target}")
    report.raise_for_failures()


def _print_failures(report: BatchReport) -> None:
    for path, error in report.failed:
        typer.echo(f"failed: {path}: {error.message}", err=True)
