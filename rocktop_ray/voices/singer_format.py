"""The ``rocktop-singer`` file: safetensors with float16 weights; the metadata says everything else.

Metadata keys, all strings: ``format`` ("rocktop-singer"), ``format_version`` ("1"), ``config`` (JSON of
``SingerConfig``), ``sample_rate``, ``encoder`` (name of the content encoder), ``speakers`` (JSON list of names),
``defaults`` (JSON: settings of a conversion that suit the voice), ``default_extractor``, ``median_f0`` (Hz), ``info``,
``licence``, ``credits``, ``training_data`` (SHA-256 over the training set), ``recipe`` (JSON).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from rocktop_ray.models.singer.about import SingerAbout
from rocktop_ray.models.singer.network import SingerConfig, SingerNet
from rocktop_ray.models.singer.voice import SingerVoice
from rocktop_ray.voices.network_file import read_network, write_network

FORMAT, VERSION = "rocktop-singer", "1"
RATES = (24_000, 48_000)
LARGEST = {"content_dim": 4096, "width": 1024, "expansion": 8, "kernel": 31, "speakers": 4096, "harmonic_bands": 512,
           "noise_bands": 512, "high_bands": 128}  # fmt: skip
"""Bounds on sizes that a file may ask for."""


def write_singer(path: Path, net: SingerNet, about: SingerAbout) -> None:
    """Write the voice with float16 weights; it appears when it is complete. Raises StorageError."""
    metadata = {
        "format": FORMAT,
        "format_version": VERSION,
        "config": json.dumps(dataclasses.asdict(net.config)),
        "sample_rate": str(about.sample_rate),
        "encoder": about.encoder,
        "speakers": json.dumps(about.speakers),
        "defaults": json.dumps(about.defaults),
        "default_extractor": about.default_extractor,
        "median_f0": f"{about.median_f0:.1f}",
        "info": about.info,
        "licence": about.licence,
        "credits": about.credits,
        "training_data": about.training_data,
        "recipe": json.dumps(about.recipe),
    }
    write_network(path, net, metadata)


def load_singer(path: Path, *, device: str = "cpu") -> SingerVoice:
    """The voice, ready to sing. Raises VoiceNotFoundError or, with a report, VoiceFormatError."""
    net, about = read_singer(path)
    return SingerVoice(net, about, device=device)


def read_singer(path: Path) -> tuple[SingerNet, SingerAbout]:
    """The network and its description. Raises VoiceNotFoundError, or VoiceFormatError with a report."""
    return read_network(path, {"format": FORMAT, "format_version": VERSION}, _described)


def _described(metadata: dict[str, str]) -> tuple[SingerNet, SingerAbout]:
    """The network, with weights to come, and what the file says of itself."""
    config, about = _config(metadata), _about(metadata)
    if len(about.speakers) != config.speakers:
        raise ValueError(f"expected {config.speakers} speaker names, found {len(about.speakers)}")
    return SingerNet(config), about


def _config(metadata: dict[str, str]) -> SingerConfig:
    given = json.loads(metadata["config"])
    config = SingerConfig(**{**given, "dilations": tuple(int(d) for d in given["dilations"])})
    for name, most in LARGEST.items():
        if not isinstance(getattr(config, name), int) or not 1 <= getattr(config, name) <= most:
            raise ValueError(f"{name} {getattr(config, name)!r} is not in 1 .. {most}")
    if len(config.dilations) > 64 or not all(1 <= d <= 256 for d in config.dilations) or config.kernel % 2 == 0:
        raise ValueError(f"dilations {config.dilations} or kernel {config.kernel}")
    if not 1000 <= config.core_hz <= 20_000:
        raise ValueError(f"core_hz {config.core_hz!r} is not in 1000 .. 20000")
    return config


def _about(metadata: dict[str, str]) -> SingerAbout:
    rate = int(metadata["sample_rate"])
    if rate not in RATES:
        raise ValueError(f"sample_rate {rate} is not one of {RATES}")
    defaults, recipe, speakers = (json.loads(metadata[name]) for name in ("defaults", "recipe", "speakers"))
    if not isinstance(defaults, dict) or not isinstance(recipe, dict) or not isinstance(speakers, list):
        raise ValueError("defaults and recipe must be objects, speakers a list")
    texts = {name: metadata[name] for name in ("default_extractor", "info", "licence", "credits", "training_data")}
    median = float(metadata["median_f0"])
    return SingerAbout(
        rate, metadata["encoder"], tuple(map(str, speakers)), defaults, recipe=recipe, median_f0=median, **texts
    )
