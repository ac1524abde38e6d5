"""``rocktop voices``: the voice library, and tools for voice files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rocktop_ray.voices.info import VoiceInfo
    from rocktop_ray.voices.rvc_format import RvcFile

app = typer.Typer(no_args_is_help=True, help="Import, list and change voices.")

_Json = Annotated[bool, typer.Option("--json", help="Print plain JSON.")]
_Library = Annotated[Path | None, typer.Option(help="Folder of the voice library; default: the user's own.")]


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A .pth, a .safetensors, a zip or folder with a voice and its index, or a registered voice: "
            "mlflow:NAME, mlflow:NAME/VERSION, mlflow:NAME@ALIAS."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name in the library; default: from the file.")] = None,
    index: Annotated[Path | None, typer.Option(help="Retrieval index, in place of the one found.")] = None,
    licence: Annotated[str, typer.Option(help="A note on what the voice may be used for.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a voice of that name.")] = False,
    tracking: Annotated[
        str, typer.Option(help="Of mlflow: voices: MLflow's address; default: $MLFLOW_TRACKING_URI, else this machine.")
    ] = "",
    library: _Library = None,
    as_json: _Json = False,
) -> None:
    """Add a voice to the library. The file is checked first; nothing in it is ever run."""
    from rocktop_ray.tracking.registry import is_reference, registered_voice
    from rocktop_ray.voices.library import VoiceLibrary

    shelf = VoiceLibrary(library)
    if is_reference(source):
        with registered_voice(source, tracking) as found:
            name, index = name or found.reference.name, index or found.index
            info = shelf.import_(found.voice, name=name, index=index, licence=licence, replace_existing=replace)
    else:
        info = shelf.import_(source, name=name, index=index, licence=licence, replace_existing=replace)
    _show(info, as_json)


@app.command("list")
def list_(library: _Library = None, as_json: _Json = False) -> None:
    """The voices in the library."""
    from rocktop_ray.voices.library import VoiceLibrary

    shelf = VoiceLibrary(library)
    infos, damaged = shelf.infos(), shelf.damaged()
    if as_json:
        typer.echo(json.dumps({"voices": [info.as_dict() for info in infos], "damaged": damaged}))
        return
    if not infos and not damaged:
        typer.echo(f"no voices in {shelf.root}: add one with 'rocktop voices import FILE'")
        return
    table = Table()
    for heading in ("voice", "rate", "kind", "F0", "units", "speakers", "index", "licence"):
        table.add_column(heading, overflow="fold")  # a name that is cut off cannot be typed
    for info in infos:
        kind = " ".join(filter(None, (info.family, info.version, info.decoder)))
        f0, vectors = "yes" if info.uses_f0 else "no", f"{info.index_vectors:,}" if info.index_vectors else "-"
        row = (
            info.name,
            f"{info.sample_rate:,}",
            kind,
            f0,
            info.content_name,
            str(info.speakers),
            vectors,
            info.licence,
        )
        table.add_row(*(_plain(cell) for cell in row))
    for broken in damaged:
        table.add_row(_plain(broken), *([""] * 6), "damaged: remove and import again")
    Console().print(table)


@app.command("info")
def info(
    name: Annotated[str, typer.Argument(help="A voice of the library, or a voice file.")],
    library: _Library = None,
    as_json: _Json = False,
) -> None:
    """Everything that is known about a voice."""
    from rocktop_ray.voices.open import voice_info

    _show(voice_info(name, library=library), as_json)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="A voice of the library.")],
    library: _Library = None,
    as_json: _Json = False,
) -> None:
    """Delete a voice from the library."""
    from rocktop_ray.voices.library import VoiceLibrary

    VoiceLibrary(library).remove(name)
    typer.echo(json.dumps({"removed": name}) if as_json else f"removed {name}")


@app.command("merge")
def merge(
    a: Annotated[str, typer.Argument(help="A voice of the library, or a voice file.")],
    b: Annotated[str, typer.Argument(help="Another one of the same shape.")],
    out: Annotated[Path, typer.Option(help="The file to write: .pth or .safetensors.")],
    alpha: Annotated[float, typer.Option(help="Share of the first voice, 0 to 1.", min=0.0, max=1.0)] = 0.5,
    library: _Library = None,
    as_json: _Json = False,
) -> None:
    """Mix two voices into one: alpha * A + (1 - alpha) * B."""
    from rocktop_ray.voices.merge import merge as mix
    from rocktop_ray.voices.open import read_rvc_voice

    first, second = read_rvc_voice(a, library=library), read_rvc_voice(b, library=library)
    _write(mix(first, second, alpha, info=f"{alpha:g} {Path(a).stem} + {1 - alpha:g} {Path(b).stem}"), out, as_json)


@app.command("extract")
def extract(
    checkpoint: Annotated[Path, typer.Argument(help="A training checkpoint, G_*.pth.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .pth or .safetensors.")],
    rate: Annotated[int | None, typer.Option(help="Sample rate in Hz, where the weights do not tell it.")] = None,
    info: Annotated[str, typer.Option(help="Free text kept in the file.")] = "",
    as_json: _Json = False,
) -> None:
    """Make a voice of a training checkpoint."""
    from rocktop_ray.voices.extract import extract as take

    _write(take(checkpoint, sample_rate=rate, info=info), out, as_json)


@app.command("export")
def export(
    name: Annotated[str, typer.Argument(help="A voice of the library, or a voice file.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .pth (for RVC and Applio) or .safetensors.")],
    library: _Library = None,
    as_json: _Json = False,
) -> None:
    """Write a voice as a file; its index, if it has one, is written beside it."""
    from rocktop_ray.voices.open import open_index, read_rvc_voice

    voice = read_rvc_voice(name, library=library)
    index = open_index(name, library=library)
    _write(voice, out, as_json)
    if index is not None:
        index.save(out.with_suffix(".index"))


def _write(voice: RvcFile, out: Path, as_json: bool) -> None:
    from rocktop_ray.voices.families import rvc_info
    from rocktop_ray.voices.rvc_format import write_rvc

    write_rvc(voice, out)
    _show(rvc_info(voice, out.stem, out.name), as_json)


def _show(info: VoiceInfo, as_json: bool) -> None:
    facts = info.as_dict()
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        if value is False or value not in ("", 0, None, {}, []):
            table.add_row(key.replace("_", " "), _plain(value))
    Console().print(table)


def _plain(value: Any) -> Any:
    """Text as it is: a voice's name must not be read as markup."""
    from rich.text import Text

    return Text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
