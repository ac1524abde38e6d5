"""The ``rocktop`` command: where errors become messages and exit codes. The sub-commands are in ``commands/``."""

from __future__ import annotations

import io
import sys

import typer

from rocktop_ray.commands import audio, convert, demo, doctor, evaluate, live, models, voices
from rocktop_ray.errors import CancelledError, RocktopError, StorageError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn a singer's take into another voice.",
)
app.command()(convert.convert)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(evaluate.evaluate)
app.command()(live.live)
app.add_typer(voices.app, name="voices")
app.add_typer(models.app, name="models")
app.add_typer(audio.app, name="audio")


def main() -> None:
    """Run the command line. Exit codes: 0, 2 for wrong usage, else ``RocktopError.exit_code``."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold letters that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except RocktopError as error:
        _fail(error)
    except KeyboardInterrupt:
        _fail(CancelledError("stopped"))
    except OSError as error:  # what no stage of the library answers for, such as a full disk behind the standard output
        _fail(StorageError(f"the system refused: {error}"))


def _fail(error: RocktopError) -> None:
    sys.stderr.write(f"rocktop: {error.stage}: {error.message}\n")
    sys.exit(error.exit_code)
