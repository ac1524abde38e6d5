"""``python -m train_loops.rvc name=anna dataset=sets/anna``: train a voice; the same again goes on where it was.

Settings are read by Hydra from ``rocktop_ray/config/rvc.yaml``, where each is documented; ``key=value`` changes one.
Alone it uses a Ray of its own, as a job (``ray job submit ... -- python -m train_loops.rvc ...``) the cluster's.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.errors import RocktopError, SettingsError
from train_loops.cluster import log_lines

CONFIG = "rocktop_ray.config"
"""Package of the YAML files."""
_NOISE = ("full_key", "object_type", "Config search", "provider=")
_EXAMPLE = "python -m train_loops.rvc name=anna dataset=sets/anna"
_ALL = "'python -m train_loops.rvc --help' tells all"
_HELP = f"""Train an RVC voice:

  {_EXAMPLE} recipe=v2-40k recipe.batch_size=8 stop.epochs=50

  KEY=VALUE          one of the settings below
  --cfg job          print the settings as they come out, and end
  --config-dir DIR   folder of your own files, --config-name FILE one that begins with "defaults: [rvc, _self_]"

The same command again goes on with the run where it was.
"""


def main() -> None:
    """The program: errors are one line, with an exit status of their own."""
    log_lines()
    if {"--help", "-h"} & set(sys.argv[1:]):
        sys.stdout.write(help_text())
        return
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints errors itself, in many lines
    try:
        for config in [read(given) for given in _given()]:
            from train_loops.rvc.launch import launch  # torch and more: not needed to look at settings

            launch(config)
    except RocktopError as error:
        _fail(error)


def _given() -> list[DictConfig]:
    """What Hydra makes of the command line: nothing if it was only asked to print. Raises SettingsError."""
    found: list[DictConfig] = []
    try:
        hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG}", config_name="rvc")(found.append)()
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise SettingsError(explained(error), stage="training") from error
    return found


def _fail(error: RocktopError) -> None:
    sys.stderr.write(f"error: {error.message}\n")
    sys.exit(error.exit_code)


def read(given: DictConfig) -> TrainingConfig:
    """The settings that Hydra put together. Raises SettingsError."""
    missing = sorted(key for key in OmegaConf.missing_keys(given) if not key.startswith("hydra"))
    if missing:
        raise SettingsError(f"give {' and '.join(f'{key}=...' for key in missing)}, e.g. {_EXAMPLE}; {_ALL}")
    values: Any = OmegaConf.to_container(given, resolve=True)
    values["recipe"] = _without_null(values.get("recipe", {}))
    return TrainingConfig.from_mapping(values)


def _without_null(values: Any) -> Any:
    """A null in the recipe means: as in the stock configuration."""
    if not isinstance(values, Mapping):
        return values
    kept = {key: _without_null(value) for key, value in values.items() if value is not None}
    return {key: value for key, value in kept.items() if value != {}}


def explained(error: Exception) -> str:
    """What Hydra says in many lines, in one, and without its advice to add settings that nobody reads."""
    text = str(error)
    unknown = re.search(r"Could not override '\+*([^']+)'|Key '([^']+)' is not in struct", text)
    if unknown:
        key = unknown[1] or unknown[2]
        near = difflib.get_close_matches(key, list(_keys()), 1, 0.7)
        return f"there is no setting {key}" + (f"; did you mean {near[0]}?" if near else f": {_ALL}")
    override = getattr(error, "override", None)
    if isinstance(override, str):
        why = text.splitlines()[0]
        return f"cannot read {override}: {why}; texts with signs want quotes inside others: key='\"a=b, c\"'"
    lines = [line.strip() for line in text.splitlines() if "hydra.cc" not in line]
    lines = [line for line in lines if line and not line.startswith(_NOISE)]
    return re.sub(r":,", ":", ", ".join(line.removesuffix(",") for line in lines)) or type(error).__name__


def help_text() -> str:
    """How to call it, the groups, and all settings with their comments and defaults."""
    folder = resources.files(CONFIG)
    lines = [_HELP]
    for group in ("recipe", "workers"):
        lines.append(f"{group}=")
        lines += [f"  {name:10} {file.read_text().splitlines()[0].lstrip('# ')}" for name, file in _choices(group)]
        lines.append("")
    text = (folder / "rvc.yaml").read_text()
    settings = text[text.index("# Of the voice and of the run") : text.index("# Hydra only reads")]
    return "\n".join([*lines, settings.rstrip(), ""])


def _choices(group: str) -> Iterator[tuple[str, Traversable]]:
    """Names and files of a group."""
    files = sorted(resources.files(CONFIG).joinpath(group).iterdir(), key=lambda file: file.name)
    yield from ((file.name.removesuffix(".yaml"), file) for file in files if file.name.endswith(".yaml"))


def _keys() -> Iterator[str]:
    """All settings, with dots."""

    def walk(values: Mapping[Any, Any], place: str) -> Iterator[str]:
        for key, value in values.items():
            yield f"{place}{key}"
            if isinstance(value, Mapping):
                yield from walk(value, f"{place}{key}.")

    whole: Any = OmegaConf.to_container(OmegaConf.create((resources.files(CONFIG) / "rvc.yaml").read_text()))
    yield from walk({key: value for key, value in whole.items() if key not in ("defaults", "hydra")}, "")


if __name__ == "__main__":
    main()
