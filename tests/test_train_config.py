"""Settings of a training run: every key documented, the same defaults in YAML and schema, errors in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module

from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.errors import SettingsError
from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.discriminator import DiscriminatorConfig
from train_loops.rvc import recipe as recipes
from train_loops.rvc.__main__ import _NOISE, explained, help_text, main, read
from train_loops.rvc.recipe import LossWeights, OptimizerConfig, Recipe, SpectrumConfig

FOLDER = resources.files("rocktop_ray.config")
TEXT = (FOLDER / "rvc.yaml").read_text()
GIVEN = ["name=anna", "dataset=sets/anna"]


def composed(*overrides: str) -> TrainingConfig:
    with initialize_config_module("rocktop_ray.config", version_base="1.3"):
        return read(compose("rvc", [*GIVEN, *overrides]))


def defaults(kind: Any) -> dict[str, Any]:
    """What a schema holds by default, ``???`` where something must be given."""
    found: dict[str, Any] = {}
    for item in fields(kind):
        value: Any = "???" if item.default is MISSING else item.default
        if item.default_factory is not MISSING:
            value = item.default_factory()
        found[item.name] = defaults(type(value)) if is_dataclass(value) else value
    return found


def nulls(kind: Any) -> dict[str, Any]:
    return dict.fromkeys(item.name for item in fields(kind))


def group(name: str) -> dict[str, dict[str, Any]]:
    files = [file for file in FOLDER.joinpath(name).iterdir() if file.name.endswith(".yaml")]
    return {file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text()) for file in files}


def test_the_yaml_holds_the_keys_and_defaults_of_the_schema() -> None:
    given = yaml.safe_load(TEXT)
    del given["hydra"], given["defaults"], given["recipe"]
    wanted = defaults(TrainingConfig)
    del wanted["recipe"]
    wanted["workers"]["labels"] = list(wanted["workers"]["labels"])
    assert given == wanted
    for part in (part for part, value in wanted.items() if isinstance(value, dict)):
        assert {key: type(value) for key, value in given[part].items()} == {
            key: type(value) for key, value in wanted[part].items()
        }
    assert composed() == TrainingConfig(name="anna", dataset="sets/anna")


def test_the_yaml_holds_the_keys_of_recipes() -> None:
    parts = {
        "synthesizer": SynthesizerConfig,
        "discriminator": DiscriminatorConfig,
        "spectrum": SpectrumConfig,
        "optimizer": OptimizerConfig,
        "losses": LossWeights,
    }
    wanted = {**nulls(Recipe), **{name: nulls(kind) for name, kind in parts.items()}}
    assert yaml.safe_load(TEXT)["recipe"] == {**wanted, "stock": None, "f0": None, "speakers": None}


def test_every_key_has_a_comment_of_its_own() -> None:
    lines = TEXT[: TEXT.index("# Hydra only reads")].splitlines()
    start = lines.index("name: ???")
    keys = [(place, line) for place, line in enumerate(lines) if place >= start and re.match(r" *\w+:", line)]
    lacking = [line for place, line in keys if not lines[place - 1].lstrip().startswith("# ")]
    assert not lacking and len(keys) > 80


def test_the_comments_tell_the_values_of_the_stock_recipe() -> None:
    """In brackets, e.g. [0.0001]."""
    stock = recipes.stock("v2-48k").as_mapping()
    part, checked = stock, 0
    for before, line in pairwise(TEXT[TEXT.index("\nrecipe:") : TEXT.index("\nstart:")].splitlines()):
        key = line.strip().partition(":")[0]
        if re.fullmatch(r"  \w+: *\w*", line):
            part = stock[key] if isinstance(stock.get(key), dict) else stock
        told = re.search(r" \[(.+)\]$", before)
        if told and line.endswith(": null"):
            values, actual = yaml.safe_load(f"[{told[1]}]"), part[key]
            if isinstance(actual, float):
                assert float(values[0]) == actual, key
            else:
                assert values == (actual if isinstance(actual, list) else [actual]), key
            checked += 1
    assert checked > 40


def test_every_stock_recipe_can_be_chosen() -> None:
    names = {*recipes.STOCK, "tiny", *(["small"] if hasattr(recipes, "small") else [])}
    assert {name: values["stock"] for name, values in group("recipe").items()} == {name: name for name in names}
    for name in names:
        config = composed(f"recipe={name}", "recipe.batch_size=7", "recipe.optimizer.learning_rate=0.0003")
        assert config.recipe["stock"] == name
        made = Recipe.from_mapping(config.recipe)
        assert (made.batch_size, made.optimizer.learning_rate) == (7, 0.0003)


@pytest.mark.parametrize("name", sorted(group("workers")))
def test_every_choice_of_workers_can_be_used(name: str) -> None:
    workers = composed(f"workers={name}", "workers.failures=9").workers
    assert workers.failures == 9 and workers.gpu == (name != "laptop")
    if name == "mixed":
        assert len(set(workers.labels)) == workers.count == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stop.epoch=3", "there is no setting stop.epoch; did you mean stop.epochs?"),
        ("stahp=3", "there is no setting stahp: 'python -m train_loops.rvc --help' tells all"),
        ("recipe.losses.melody=3", "there is no setting recipe.losses.melody"),
        ("recipe=v9", "Could not find 'recipe/v9'"),
        ("workers.labels=[a=b]", "cannot read workers.labels=[a=b]"),
    ],
)
def test_what_hydra_refuses_is_said_in_one_line(override: str, message: str) -> None:
    with pytest.raises(Exception) as caught:
        composed(override)
    told = explained(caught.value)
    assert message in told and "\n" not in told and not any(noise in told for noise in _NOISE)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+foo=1", "unknown settings foo"),
        ("+stop.foo=1", "unknown settings stop.foo"),
        ("stop.epochs=many", "stop.epochs must be int"),
        ("stop.gain=0.9", "stop.gain must be 0 to 0.5"),
        ("start.kind=voice", "start.kind=voice wants start.voice"),
        ("start.kind=checkpoint", "start.kind=checkpoint wants start.generator and start.discriminator"),
        ("name=a/b", "name must be a plain name"),
    ],
)
def test_the_schema_refuses_the_rest(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        composed(override)


def test_nothing_of_the_recipe_but_what_was_given_is_passed_on() -> None:
    recipe = composed("recipe.losses.mel=40", "recipe.spectrum.mel_high=null", "recipe.f0=false").recipe
    assert recipe == {"stock": "v2-48k", "losses": {"mel": 40}, "f0": False}


def test_help_tells_every_setting() -> None:
    text = help_text()
    for item in fields(TrainingConfig):
        assert re.search(rf"^{item.name}:", text, re.MULTILINE)
    assert "workers=\n  laptop " in text and "hydra:" not in text and "v2-40k" in text


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[TrainingConfig]]:
    """The program in an empty folder, without the training."""
    from train_loops.rvc import launch

    found: list[TrainingConfig] = []
    monkeypatch.setattr(launch, "launch", found.append)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    yield found


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The program's exit status."""
    monkeypatch.setattr(sys, "argv", ["rvc", *arguments])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_program_leaves_nothing_behind(started, monkeypatch, tmp_path) -> None:
    assert call(monkeypatch, *GIVEN, "recipe=v2-40k", "stop.epochs=50") == 0
    (config,) = started
    assert config.recipe == {"stock": "v2-40k"} and config.stop.epochs == 50
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_ones_own(started, monkeypatch, tmp_path) -> None:
    own = {"defaults": ["rvc", "_self_"], "name": "berta", "dataset": "sets/b", "recipe": {"batch_size": 16}}
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "run.yaml").write_text(yaml.safe_dump(own))
    assert call(monkeypatch, "--config-dir", "my", "--config-name", "run", "stop.steps=3", "recipe=v2-32k") == 0
    (config,) = started
    assert (config.name, config.stop.steps) == ("berta", 3)
    assert config.recipe == {"stock": "v2-32k", "batch_size": 16}
    assert [path.name for path in tmp_path.iterdir()] == ["my"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 64, "give dataset=... and name=..., e.g."),
        (["name=anna"], 64, "give dataset=..., e.g."),
        ([*GIVEN, "stop.epoch=1"], 64, "did you mean stop.epochs?"),
        ([*GIVEN, "=1"], 64, ""),
        (["--config-dir", ".", "--config-name", "nope"], 64, "Cannot find primary config 'nope'"),
    ],
)
def test_errors_are_one_line(started, monkeypatch, capfd, arguments, status, message) -> None:
    assert call(monkeypatch, *arguments) == status
    told = capfd.readouterr().err
    assert told.startswith("error: ") and message in told and told.count("\n") == 1
    assert not started


def test_the_settings_can_be_printed(started, monkeypatch, capfd) -> None:
    assert call(monkeypatch, *GIVEN, "workers=mixed", "--cfg", "job") == 0
    printed = yaml.safe_load(capfd.readouterr().out)
    assert printed["workers"]["least"] == 1 and printed["recipe"]["stock"] == "v2-48k"
    assert not started


def test_the_program_by_its_name(tmp_path) -> None:
    """A missing dataset is found before Ray starts."""
    command = [sys.executable, "-m", "train_loops.rvc", "name=anna", "dataset=nowhere"]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert done.returncode == 70, done.stderr
    assert re.fullmatch(r"error: there is no finished dataset at file://.*/nowhere: make one with .*\n", done.stderr)
    assert not done.stdout and list(tmp_path.iterdir()) == []
