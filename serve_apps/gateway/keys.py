"""``rocktop-serve keys``: make, list and revoke API keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rocktop_ray import paths
from serve_apps.gateway.key_ring import KeyFile

keys_app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")

_File = Annotated[
    Path | None, typer.Option("--file", help="File of keys (security.keys); default: keys.json in $ROCKTOP_HOME.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print plain JSON.")]


def default_file() -> Path:
    """Where keys are kept unless the configuration says otherwise."""
    return paths.home() / "keys.json"


@keys_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is; jobs belong to this name.")],
    per_minute: Annotated[int | None, typer.Option(help="Most requests in a minute, per gateway.", min=1)] = None,
    at_once: Annotated[int | None, typer.Option(help="Most requests under way, per gateway.", min=1)] = None,
    admin: Annotated[bool, typer.Option("--admin/--convert-only", help="May add and remove voices.")] = False,
    file: _File = None,
    as_json: _Json = False,
) -> None:
    """Make a key. It is shown once: only its hash is kept."""
    keys = KeyFile(file or default_file())
    secret = keys.add(name, per_minute=per_minute, at_once=at_once, admin=admin)
    if as_json:
        typer.echo(json.dumps({"name": name, "key": secret, "file": str(keys.path)}))
        return
    typer.echo(secret)
    typer.echo(f"This is the key of {name}. Write it down: it cannot be shown again.", err=True)
    typer.echo(f"It counts where the configuration says security: {{keys: {keys.path}}}", err=True)


@keys_app.command("list")
def list_(file: _File = None, as_json: _Json = False) -> None:
    """The names and limits of all keys."""
    keys = KeyFile(file or default_file()).read()
    if as_json:
        shown = ("name", "created", "per_minute", "at_once", "admin")
        typer.echo(json.dumps([{field: getattr(key, field) for field in shown} for key in keys]))
        return
    for key in keys:
        minute = f"{key.per_minute}/min" if key.per_minute else "any rate"
        once = f"{key.at_once} at once" if key.at_once else "any number at once"
        typer.echo(f"{key.name}  {'admin' if key.admin else 'convert only'}  {minute}  {once}  since {key.created}")
    if not keys:
        typer.echo("no keys", err=True)


@keys_app.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="Name of the key.")], file: _File = None) -> None:
    """Forget a key. Running services notice within a second."""
    KeyFile(file or default_file()).revoke(name)
    typer.echo(f"revoked {name}")
