"""The ``rocktop-singer`` file: safetensors with float16 weights; the metadata says everything else.

Metadata keys, all strings: ``format`` ("rocktop-singer"), ``format_version`` ("1"), ``config`` (JSON of
``SingerConfig``), ``sample_rate``, ``encoder`` (name of the content encoder), ``speakers`` (JSON list of names),
``defaults`` (JSON: settings of a conversion that suit the voice), ``default_extractor``, ``median_f0`` (Hz), ``info``,
``licence``, ``credits``, ``training_data`` (SHA-256 over the training set), ``recipe`` (JSON).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rocktop_ray.models.singer.about import SingerAbout
from rocktop_ray.models.singer.network import SingerConfig, SingerNet
from rocktop_ray.models.singer.voice import SingerVoice
from rocktop_ray.voices.description import describe, read_about, read_sizes
from rocktop_ray.voices.network_file import read_network, write_network

_KIND = {"format": "rocktop-singer", "format_version": "1"}
_RATES = (24_000, 48_000)


def write_singer(path: Path, net: SingerNet, about: SingerAbout) -> None:
    """Write the voice with float16 weights; it appears when it is complete. Raises StorageError."""
    write_network(path, net, {**_KIND, **describe(net.config, about)})


def load_singer(path: Path, *, device: str = "cpu") -> SingerVoice:
    """The voice, ready to sing. Raises VoiceNotFoundError or, with a report, VoiceFormatError."""
    net, about = read_singer(path)
    return SingerVoice(net, about, device=device)


def read_singer(path: Path) -> tuple[SingerNet, SingerAbout]:
    """The network and its description. Raises VoiceNotFoundError, or VoiceFormatError with a report."""
    return read_network(path, _KIND, _described)


def _described(metadata: Mapping[str, str]) -> tuple[SingerNet, SingerAbout]:
    """The network, with weights to come, and what the file says of itself."""
    config, about = read_sizes(SingerConfig, metadata), read_about(SingerAbout, metadata)
    if config.kernel % 2 == 0:
        raise ValueError(f"kernel {config.kernel} is not odd")
    if about.sample_rate not in _RATES:
        raise ValueError(f"sample_rate {about.sample_rate} is not one of {_RATES}")
    if len(about.speakers) != config.speakers:
        raise ValueError(f"expected {config.speakers} speaker names, found {len(about.speakers)}")
    return SingerNet(config), about
