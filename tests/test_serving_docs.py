"""docs/serving.md names every setting of the service as the code does: its table is made from ``ServeConfig``."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from serve_apps import config

PAGE = Path(__file__).parent.parent / "docs" / "serving.md"


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the docstring under it."""
    told = {}
    body = ast.parse(inspect.getsource(model)).body[0].body
    for entry, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(entry, ast.AnnAssign):
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = " ".join(str(after.value.value).split())
            told[entry.target.id] = text
    return told


def rows(model: type[BaseModel], prefix: str = "", made: BaseModel | None = None) -> list[str]:
    """``made``: the section as it is by default."""
    lines = []
    for name, told in descriptions(model).items():
        default = model.model_fields[name].default if made is None else getattr(made, name)
        if isinstance(default, BaseModel):
            if type(default) is not config.StageConfig:
                lines += rows(type(default), f"{prefix}{name}.", default)
            continue
        shown = "" if default is PydanticUndefined else f"`{default}`"
        lines.append(f"| `{prefix}{name}` | {shown} | {told.replace('``', '`')} |")
    return lines


def table() -> str:
    return "\n".join([*rows(config.ServeConfig), *rows(config.StageConfig, "STAGE.")])


def test_the_table_of_settings_is_the_code_s():
    assert table() in PAGE.read_text("utf-8"), f"put this table into docs/serving.md:\n{table()}"


def test_every_setting_says_what_it_does():
    silent = [row for row in table().splitlines() if row.endswith("|  |")]
    assert not silent
