"""The recipe of a run, fitted to its dataset: what is left open is taken from the data, what contradicts it refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rocktop_ray.config.training import TrainingConfig
from rocktop_ray.errors import SettingsError
from train_loops.dataset.config import NO_PITCH
from train_loops.dataset.manifest import Manifest
from train_loops.rvc.recipe import STOCK, Recipe

PRETRAINED_SPEAKERS = 109
"""Rows of the speaker table in the pretrained files of RVC."""


def recipe_for(config: TrainingConfig, manifest: Manifest) -> Recipe:
    """The recipe of ``config`` with what it leaves open (absent or None) taken from the dataset.

    That is: F0 if the dataset has it, one speaker for each of the dataset (109 with RVC's pretrained files, whose table
    has so many), the width of the dataset's content units unless pretrained files fix it. Raises SettingsError if the
    dataset cannot be used with it.
    """
    given = _without_none(config.recipe)
    has_f0 = manifest.networks.pitch != NO_PITCH
    singers = len(manifest.speakers)
    if "synthesizer" not in given or "stock" in given:
        given.setdefault("stock", "v2-48k")
        given.setdefault("f0", has_f0)
        given.setdefault("speakers", PRETRAINED_SPEAKERS if config.start.kind == "pretrained" else singers)
        fits = config.start.kind != "pretrained" and "content_dim" not in given.get("synthesizer", {})
        if fits and Recipe.from_mapping(given).synthesizer.content_dim != manifest.networks.dim:
            given["synthesizer"] = {**given.get("synthesizer", {}), "content_dim": manifest.networks.dim}
    recipe = Recipe.from_mapping(given)
    problems = []
    synthesizer = recipe.synthesizer
    if synthesizer.sample_rate != manifest.config.rate:
        others = [name for name in STOCK if name.endswith(f"-{manifest.config.rate // 1000}k")]
        problems.append(
            f"the dataset has {manifest.config.rate} Hz, the recipe {synthesizer.sample_rate}: choose another recipe "
            f"({', '.join(others) or 'none is for this rate'}), or preprocess with --rate {synthesizer.sample_rate}"
        )
    if synthesizer.content_dim != manifest.networks.dim:
        problems.append(
            f"the dataset has content units of {manifest.networks.encoder} ({manifest.networks.dim} wide), the "
            f"recipe wants {synthesizer.content_dim}: preprocess with another --encoder"
        )
    if synthesizer.uses_f0 and not has_f0:
        problems.append("the dataset has no F0: set recipe.f0=false, or preprocess with a pitch extractor")
    if synthesizer.speakers < singers:
        problems.append(f"the dataset has {singers} speakers, the recipe {synthesizer.speakers}")
    if problems:
        raise SettingsError("; ".join(problems), stage="training")
    return recipe


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """None in a configuration file means: as if it were not there. Parts that are empty then go too."""
    kept = {key: _without_none(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}
