"""What our own files say of their networks: the form of the metadata, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import VoiceFormatError
from rocktop_ray.models.about import NetworkAbout
from rocktop_ray.models.listener import ListenerConfig
from rocktop_ray.models.singer.about import SingerAbout
from rocktop_ray.models.singer.live_net import LiveConfig, LiveFrameNet
from rocktop_ray.models.singer.network import SingerConfig, SingerNet
from rocktop_ray.voices.description import describe, read_about, read_sizes
from rocktop_ray.voices.singer_format import read_singer, write_singer
from rocktop_ray.voices.student_format import LIVE_NET, read_live_net, write_student

SIZES = SingerConfig(content_dim=4, width=8, dilations=(1,), harmonic_bands=4, noise_bands=4, high_bands=2)
ABOUT = SingerAbout(encoder="x", sample_rate=48_000, speakers=("a",), defaults={"index_rate": 0.2}, median_f0=192.5)
SINGER = {
    "format": "rocktop-singer",
    "format_version": "1",
    "config": (
        '{"content_dim": 4, "width": 8, "expansion": 3, "dilations": [1], "kernel": 7, "speakers": 1, '
        '"harmonic_bands": 4, "noise_bands": 4, "high_bands": 2, "core_hz": 11600.0}'
    ),
    "sample_rate": "48000",
    "encoder": "x",
    "speakers": '["a"]',
    "defaults": '{"index_rate": 0.2}',
    "default_extractor": "fcpe",
    "median_f0": "192.5",
    "info": "",
    "licence": "",
    "credits": "",
    "training_data": "",
    "recipe": "{}",
}
"""The metadata of version 1, as every release has written them."""


def metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def with_metadata(path: Path, net: torch.nn.Module, said: dict[str, str]) -> Path:
    tensors = {name: value.half() for name, value in net.state_dict().items()}
    safetensors.torch.save_file(tensors, path, said)
    return path


def test_the_metadata_of_a_singer_stay_as_they_were(tmp_path: Path) -> None:
    write_singer(tmp_path / "v", SingerNet(SIZES), ABOUT)
    assert metadata(tmp_path / "v") == SINGER
    net, about = read_singer(with_metadata(tmp_path / "old", SingerNet(SIZES), SINGER))
    assert (net.config, about) == (SIZES, ABOUT)


def test_the_metadata_of_a_student_stay_as_they_were(tmp_path: Path) -> None:
    sizes = LiveConfig(content_dim=4, width=8, dilations=(1, 1), core_dim=8, high_bands=2)
    about = NetworkAbout(encoder="x", recipe={"steps": 3})
    write_student(tmp_path / "v", LIVE_NET, LiveFrameNet(sizes), sizes, about)
    said = {
        "format": "rocktop-student",
        "format_version": "1",
        "kind": "live-net",
        "config": (
            '{"content_dim": 4, "width": 8, "expansion": 2, "kernel": 7, "dilations": [1, 1], "delays": [1], '
            '"speakers": 1, "core_dim": 8, "high_bands": 2}'
        ),
        "recipe": '{"steps": 3}',
        **{key: SINGER[key] for key in ("encoder", "info", "licence", "credits", "training_data")},
    }
    assert metadata(tmp_path / "v") == said
    assert read_live_net(tmp_path / "v")[1] == about


@pytest.mark.parametrize("kind", [SingerConfig, ListenerConfig, LiveConfig])
def test_every_size_has_a_range(kind: type) -> None:
    """A field that was added without one could not even be read."""
    assert read_sizes(kind, describe(kind(), NetworkAbout(encoder="x"))) == kind()


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        "3",
        '{"width": 24.0}',
        '{"width": true}',
        '{"core_hz": NaN}',
        '{"core_hz": "high"}',
        '{"dilations": "1"}',
        '{"dilations": 3}',
        '{"dilations": []}',
        '{"dilations": [[1]]}',
        '{"dilations": [' + ", ".join(["1"] * 65) + "]}",
        '{"format": 1}',
    ],
)
def test_sizes_that_are_refused(config: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        read_sizes(SingerConfig, {"config": config})


JSON_TEXT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(SINGER)), st.text(max_size=20) | JSON_TEXT.map(str) | st.just("[" * 200_000))
def test_whatever_a_key_says_the_file_is_read_or_refused(tmp_path: Path, key: str, text: str) -> None:
    path = with_metadata(tmp_path / "v", SingerNet(SIZES), {**SINGER, key: text})
    try:
        read_singer(path)
    except VoiceFormatError as error:
        assert str(path) in str(error)


def test_facts_have_their_types() -> None:
    assert read_about(SingerAbout, SINGER) == ABOUT
    for key, text in (("sample_rate", "48000.5"), ("median_f0", "true"), ("speakers", '"a"'), ("recipe", "[]")):
        with pytest.raises(ValueError, match=key):
            read_about(SingerAbout, {**SINGER, key: text})
