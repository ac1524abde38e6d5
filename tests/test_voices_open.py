"""Voices opened by name, by file and by content."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from voices_shelf import index_fixture, pth_fixture, shelf_fixture  # noqa: F401

import rocktop_ray
from rocktop_ray.errors import VoiceFormatError, VoiceNotFoundError
from rocktop_ray.voices import open as open_module
from rocktop_ray.voices.open import Voice, open_index, open_voice, read_rvc_voice, voice_info


def test_open_by_name_and_by_file(shelf, pth, index):
    shelf.import_(pth, index=index)
    voice = open_voice("anna", library=shelf.root)
    assert isinstance(voice, Voice) and voice.name == "anna" and voice.index.count == 30
    assert voice.info.index_vectors == 30 and voice.default_extractor is None
    spec = voice.model.spec
    assert (spec.sample_rate, spec.hop, spec.content.name, spec.content.dim) == (8000, 80, "hubert-v1", 256)
    for path in (pth, str(pth)):
        by_file = open_voice(path, library=shelf.root)
        assert by_file.name == "anna" and by_file.index is None
    units, f0 = np.ones((20, 256), np.float32), np.full(20, 220, np.float32)
    latents = [opened.model.latent(units, f0) for opened in (voice, by_file)]
    assert np.array_equal(*latents) and voice.model.wave(latents[0], f0).shape == (1600,)
    assert open_voice(pth, library=shelf.root, index=index).index.count == 30
    index.rename(pth.with_suffix(".index"))
    assert open_voice(pth, library=shelf.root).index.count == 30
    assert open_index("anna", library=shelf.root).count == 30
    assert voice_info("anna", library=shelf.root) == shelf.info("anna")


def test_open_by_content_not_by_name(shelf, pth, tmp_path):
    shelf.import_(pth)
    odd = tmp_path / "voice.txt"
    odd.write_bytes(shelf.voice_path("anna").read_bytes())
    assert open_voice(odd).info.sample_rate == 8000
    odd.write_bytes(pth.read_bytes())
    assert open_voice(str(odd)).info.sample_rate == 8000


def test_open_says_what_is_missing(shelf, pth, tmp_path, monkeypatch):
    shelf.import_(pth)
    with pytest.raises(VoiceNotFoundError, match=r"no voice 'berta' in the library .*: it has anna"):
        open_voice("berta", library=shelf.root)
    with pytest.raises(VoiceNotFoundError, match="no voice file"):
        open_voice("berta.pth", library=shelf.root)
    with pytest.raises(VoiceNotFoundError):
        open_voice("../anna", library=shelf.root / "anna")
    with pytest.raises(VoiceNotFoundError):
        open_voice("a\0b", library=shelf.root)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(pth, "a.pth")
    with pytest.raises(VoiceFormatError, match="rocktop voices import"):
        open_voice(tmp_path / "x.zip", library=shelf.root)
    with pytest.raises(VoiceFormatError, match="rocktop voices import"):
        open_voice(tmp_path, library=shelf.root)
    monkeypatch.setattr(open_module, "bundle_folder", lambda: tmp_path)
    with pytest.raises(VoiceNotFoundError, match="no bundled voice"):
        open_voice("bundle", library=shelf.root)


def test_bundle_is_found(pth, index, tmp_path, monkeypatch, shelf):
    """Any family can be the bundle: it is the folder that makes it one."""
    shelf.import_(pth)
    (tmp_path / "bundle.safetensors").write_bytes(shelf.voice_path("anna").read_bytes())
    index.rename(tmp_path / "bundle.index")
    assert open_module.bundle_folder() == Path(rocktop_ray.__file__).parent / "bundle"
    monkeypatch.setattr(open_module, "bundle_folder", lambda: tmp_path)
    voice = open_voice("bundle")
    assert (voice.name, voice.info.name, voice.index.count) == ("bundle", "bundle", 30)


def test_a_voice_of_another_family(shelf, tmp_path):
    """The project's own small voice goes through the same doors; what is not of its form is refused."""
    import dataclasses

    from rocktop_ray.models.singer.about import SingerAbout
    from rocktop_ray.models.singer.network import SingerConfig, SingerNet
    from rocktop_ray.voices.singer_format import write_singer

    sizes = {"content_dim": 8, "width": 8, "dilations": (1,), "harmonic_bands": 8, "noise_bands": 8, "high_bands": 4}
    about = SingerAbout(
        sample_rate=48_000,
        encoder="whisper-base",
        speakers=("a",),
        defaults={"index_rate": 0.0},
        median_f0=200.0,
        licence="CC0",
    )
    path = tmp_path / "small.safetensors"
    write_singer(path, SingerNet(SingerConfig(**sizes)), about)
    info = shelf.import_(path)
    assert (info.family, info.content_name, info.content_dim, info.median_f0) == ("singer", "whisper-base", 8, 200.0)
    voice = open_voice("small", library=shelf.root)
    assert voice.info == info and voice.default_extractor == "fcpe" and voice.info.defaults == {"index_rate": 0.0}
    assert shelf.voice_path("small").read_bytes() == path.read_bytes()
    with pytest.raises(VoiceFormatError, match="singer family"):
        read_rvc_voice("small", library=shelf.root)
    nothing = dataclasses.replace(about, median_f0=0.0)
    write_singer(path, SingerNet(SingerConfig(**sizes)), nothing)
    assert open_voice(path).info.median_f0 is None
    data = path.read_bytes()
    for length in (9, 200, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(VoiceFormatError):
            open_voice(path)
