"""``rocktop evaluate``: measure converted takes against their sources, one or a folder of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rocktop_ray.evaluate.choices import Choices
    from rocktop_ray.evaluate.instruments import Instruments


def evaluate(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The recording that was converted, or a folder.")],
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="What came out: a recording, or a folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder for a page, pictures, players and report.json.")] = None,
    target: Annotated[Path | None, typer.Option(help="A clip of the voice it should sound like.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Comma-separated: all, cheap, conversion, f0, mcd, ...; default all.")
    ] = None,
    align: Annotated[str, typer.Option(help="none, or dtw where the result has another tempo.")] = "none",
    key: Annotated[float | None, typer.Option(help="Key shift in semitones; found by itself if left out.")] = None,
    pitch: Annotated[str | None, typer.Option(help="Pitch extractor; fcpe if installed, else harvest.")] = None,
    seconds: Annotated[float, typer.Option(help="How much of a take the costly metrics use.")] = 120.0,
    words: Annotated[str | None, typer.Option(help="What is sung, to count the recogniser's errors.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON.")] = False,
) -> None:
    """Compare converted takes with their sources: melody, voice, level, length, spectrum, quality, words.

    Folders are paired by name; a run that was stopped goes on with the same --out.
    """
    from rocktop_ray.errors import SettingsError
    from rocktop_ray.evaluate.choices import Choices, choose
    from rocktop_ray.evaluate.instruments import build_instruments

    if align not in ("none", "dtw"):
        raise SettingsError(f"--align is none or dtw, not {align!r}")
    choices = Choices(choose(metrics), "dtw" if align == "dtw" else "none", key, seconds)
    several = source.is_dir() or result.is_dir() or out is not None
    if several and words is not None:
        raise SettingsError("--words goes with two recordings and without --out")
    tools = build_instruments(choices.metrics, pitch=pitch)
    if several:
        _many(source, result, out, target, choices, tools, as_json)
    else:
        _one(source, result, target, words, choices, tools, as_json)


def _one(
    source: Path,
    result: Path,
    target: Path | None,
    words: str | None,
    choices: Choices,
    tools: Instruments,
    as_json: bool,
) -> None:
    from rich.console import Console

    from rocktop_ray.audio.decode import read_take
    from rocktop_ray.commands.tables import facts_table
    from rocktop_ray.evaluate.pair import measure_pair
    from rocktop_ray.protocols import TAKE_RATE

    clip = read_take(target) if target is not None else None
    report = measure_pair(
        read_take(source), read_take(result), TAKE_RATE, choices, tools, target=clip, true_words=words
    ).report
    if as_json:
        typer.echo(json.dumps({"source": str(source), "result": str(result), **report.as_dict()}, indent=2))
    else:
        Console().print(facts_table(report.rows()))
    for name, why in report.left_out.items():
        typer.echo(f"{name}: {why}", err=True)


def _many(
    source: Path,
    result: Path,
    out: Path | None,
    target: Path | None,
    choices: Choices,
    tools: Instruments,
    as_json: bool,
) -> None:
    from rich.console import Console

    from rocktop_ray.commands.progress import count_bar
    from rocktop_ray.commands.tables import facts_table
    from rocktop_ray.evaluate.measures import MEASURES
    from rocktop_ray.evaluate.page import render_page
    from rocktop_ray.evaluate.pairing import find_pairs
    from rocktop_ray.evaluate.sets import evaluate_set
    from rocktop_ray.store.atomic import write_bytes

    found = find_pairs(source, result)
    with count_bar(Console(stderr=True), "takes", len(found.pairs)) as show:
        report = evaluate_set(found.pairs, choices, out=out, target=target, instruments=tools, on_progress=show)
    alone = {"sources": list(found.sources_alone), "results": list(found.results_alone)}
    data = json.dumps({**report.as_dict(), "without_partner": alone}, indent=2)
    if out is not None:
        page = render_page(report, target=target is not None, alone=[*found.sources_alone, *found.results_alone])
        write_bytes(out / "report.json", (data + "\n").encode())
        write_bytes(out / "index.html", page.encode())
    if as_json:
        typer.echo(data)
    else:
        rows = [("takes", f"{len(report.takes)} ({report.measured} measured now)")]
        for measure in MEASURES:
            if (one := report.summary.measures.get(measure.name)) is not None:
                worst = "" if one.worst is None else f", worst {measure.text(one.worst)} ({one.worst_take})"
                text = f"{measure.text(one.mean)} {measure.unit}".strip()
                rows.append((measure.title, f"{text}, median {measure.text(one.median)}{worst}"))
        Console().print(facts_table(rows))
        if out is not None:
            typer.echo(f"page: {out / 'index.html'}")
    for name, why in report.missing.items():
        typer.echo(f"{name}: {why}", err=True)
    for name in (*found.sources_alone, *found.results_alone):
        typer.echo(f"without partner: {name}", err=True)
    for name, error in report.failed:
        typer.echo(f"failed: {name}: {error.message}", err=True)
    report.raise_for_failures()
