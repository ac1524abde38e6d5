"""The ``rocktop`` command: one place where errors become messages and exit codes. The commands live in ``commands/``."""

from __future__ import annotations

import sys

import typer

from rocktop_ray.errors import RocktopError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn a singer's take into another voice.",
)


def main() -> None:
    """Run the command line. Exit codes: 0, 2 for wrong usage, else ``RocktopError.exit_code``."""
    try:
        app()
    except RocktopError as error:
        sys.stderr.write(f"rocktop: {error.stage}: {error.message}\n")
        sys.exit(error.exit_code)
