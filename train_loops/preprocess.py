"""Recordings to a dataset for training: ``python -m train_loops.preprocess SOURCE --out DATASET``, or as a Ray job.

The work is done by ``train_loops.dataset``; here options are read, and Ray is started or joined.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.threads import use_threads
from rocktop_ray.errors import SettingsError, storage_errors
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import open_storage
from train_loops.cluster import check_lasting, joined_ray, run_program
from train_loops.dataset.build import build_dataset
from train_loops.dataset.config import DatasetConfig
from train_loops.dataset.manifest import MANIFEST, Manifest
from train_loops.dataset.report import REPORT, write_report
from train_loops.dataset.runners import LocalRunner, RayRunner
from train_loops.dataset.workers import Job

_INCOMPLETE = 75
"""Exit status when some takes could not be read this time (sysexits: try again)."""
app = typer.Typer(add_completion=False)


@app.command()
def preprocess(
    source: Annotated[str, typer.Argument(help="Folder or s3://bucket/prefix: takes, or a folder for each speaker.")],
    out: Annotated[str, typer.Option(help="Folder or s3://bucket/prefix of the dataset; made, or brought up to date.")],
    rate: Annotated[int | None, typer.Option(help="Hz of the voice: 48000, 40000 or 32000.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Content encoder: hubert-v2, hubert-v1, whisper-base...")] = None,
    pitch: Annotated[str | None, typer.Option(help="Pitch extractor: auto, rmvpe, fcpe, crepe, pm, none...")] = None,
    slicing: Annotated[str | None, typer.Option("--slice", help="rvc, pauses or fixed.")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON file with settings of the dataset.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting: name=value. Repeatable.")] = None,
    speaker: Annotated[str | None, typer.Option(help="All takes are this one speaker's, in whatever folder.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Actors of each pool.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Of each worker's arithmetic; a worker takes as many cores.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPU share of each worker.")] = 0.0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda or auto; auto is cuda with --gpus above 0 (or --local and a GPU), else cpu.")
    ] = "auto",
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Then remove what this dataset does not need.")] = False,
    report: Annotated[bool, typer.Option(help="Write report.html.")] = True,
) -> None:
    """Make a dataset from recordings, or bring one up to date: only what changed is done."""
    check_lasting(out)
    chosen = {"rate": rate, "encoder": encoder, "pitch": pitch, "slicing": slicing}
    made = read_config(config, settings or [], {name: value for name, value in chosen.items() if value is not None})
    reach = StorageSettings.from_environment()
    if device == "auto" and not local:
        device = "cuda" if gpus else "cpu"
    job = Job(open_storage(source, reach), open_storage(out, reach), made, device, threads)
    if local:
        use_threads(threads)
        manifest = build_dataset(job, LocalRunner(), speaker=speaker, prune=prune)
    else:
        with joined_ray(workers * threads):
            runner = RayRunner(workers, float(threads), gpus)
            manifest = build_dataset(job, runner, speaker=speaker, prune=prune)
    if report:
        write_report(manifest, job.target)
    _say(manifest, job.target.url, report)
    if manifest.failed:
        raise typer.Exit(_INCOMPLETE)


def read_config(file: Path | None, assignments: list[str], options: dict[str, Any]) -> DatasetConfig:
    """Settings of a file, over them those of ``name=value``, over them the options. Raises SettingsError."""
    values: dict[str, Any] = {}
    if file is not None:
        with storage_errors(file, "read"):
            text = file.read_text("utf-8")
        try:
            values = json.loads(text)
        except ValueError as error:
            raise SettingsError(f"{file} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise SettingsError(f"{file} must hold one JSON object")
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise SettingsError(f"--set wants name=value, not {assignment!r}")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value  # a word
    return DatasetConfig.from_mapping({**values, **options})


def _say(manifest: Manifest, place: str, report: bool) -> None:
    counts = manifest.counts()
    typer.echo(
        f"{counts['takes']} takes of {len(manifest.speakers)} speakers, {counts['seconds'] / 3600:.2f} hours, "
        f"{counts['slices']} slices; {counts['rejected']} recordings left out"
    )
    for entry in manifest.rejected:
        typer.echo(f"  left out ({entry.reason}): {entry.key}: {entry.message}")
    if manifest.failed:
        typer.echo("run again: some takes could not be read this time")
    typer.echo(f"{place}/{MANIFEST}" + (f" and {REPORT}" if report else "") + f", fingerprint {manifest.fingerprint}")


def main() -> None:
    """The program."""
    run_program(app)


if __name__ == "__main__":
    main()
