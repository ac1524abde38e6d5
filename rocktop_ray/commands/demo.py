"""``rocktop demo``: one conversion with the bundle, shown from all sides."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    source: Annotated[Path, typer.Argument(help="A sung recording.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
    voice: Annotated[str, typer.Option(help="A voice of the library, or a voice file.")] = "bundle",
    key: Annotated[float | None, typer.Option(help="Semitones; default is what suits the voice.")] = None,
) -> None:
    """Convert a recording, measure the result and draw it: converted.wav, picture.png, report.json."""
    from rich.console import Console

    from rocktop_ray.commands.progress import conversion_bar
    from rocktop_ray.commands.tables import facts_table
    from rocktop_ray.demo import run_demo

    console = Console()
    with conversion_bar(Console(stderr=True), source) as watch:
        shown = run_demo(source, out, voice=voice, key=key, on_progress=watch)
    for title, rows in shown.tables():
        console.print(facts_table(rows, title))
        console.print()
    for path in shown.files:
        console.print(str(path), soft_wrap=True, highlight=False)
