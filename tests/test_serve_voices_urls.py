"""Voices behind foreign addresses."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from http_server import Running, fixed, serving

from rocktop_ray.errors import (
    IndexFormatError,
    RocktopError,
    UnsafeFileError,
    UrlContentError,
    UrlForbiddenError,
    VoiceChangedError,
    VoiceFormatError,
)
from rocktop_ray.store.cache import ContentCache

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from shared_voices import (  # noqa: F401
    POLICY,
    cache_fixture,
    index_file,
    index_fixture,
    pth_fixture,
    shelf_at,
    sound,
    voice_file,
)

pytestmark = pytest.mark.xdist_group("s3")


# --- foreign addresses -----------------------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[Running]:
    with serving({}) as running:
        yield running


def test_a_voice_behind_an_address(site, pth, index, cache, tmp_path):
    site.answers["/m/Anna%20B.pth"] = fixed(pth.read_bytes(), ETag='"1"')
    site.answers["/i"] = fixed(index.read_bytes(), ETag='"1"')
    shelf, steps = shelf_at(str(tmp_path / "voices"), tmp_path), []
    url, index_url = site.url("/m/Anna%20B.pth?X-Amz-Signature=secret"), site.url("/i")
    ref, fetch = shelf.refer_url(cache, url, index_url, POLICY, on_step=steps.append)
    assert steps == ["download_model", "download_index"] and ref.name == "Anna B" and "secret" not in repr(ref)
    assert (fetch.model_found, fetch.index_found) == ("miss", "miss") and fetch.model_seconds > 0
    assert fetch.bytes == pth.stat().st_size + index.stat().st_size
    again, fetch = shelf.refer_url(cache, url, index_url, POLICY)
    assert again == ref and (fetch.model_found, fetch.index_found) == ("hit", "hit")
    other = shelf.refer_url(cache, url, None, POLICY)
    assert other[0].id != ref.id and other[1].index_found is None and other[1].index_seconds == 0
    voice = shelf.open_voice(ref, "cpu", cache, POLICY)
    assert voice.index.count == 30 and (voice.name, voice.info.source) == ("Anna B", "Anna B.pth")
    assert voice.info.sha256 == ref.sha256 and str(tmp_path) not in json.dumps(voice.info.as_dict())
    shelf.import_(pth, name="anna")
    assert np.array_equal(sound(voice), sound(shelf.open_voice(shelf.refer("anna"), "cpu", cache, POLICY)))


def test_the_same_content_elsewhere_has_the_same_id(site, pth, cache, tmp_path):
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    refs = []
    for path, data in (("/a.pth", pth), ("/b.pth", pth), ("/c.pth", voice_file(tmp_path / "c", 1))):
        site.answers[path] = fixed(data.read_bytes())
        refs.append(shelf.refer_url(cache, site.url(path), None, POLICY)[0].id)
    assert refs[0] == refs[1] != refs[2] and all(ref.startswith("url:") for ref in refs)


def test_a_link_that_ran_out_before_the_voice_was_opened(site, pth, cache, tmp_path):
    site.answers["/a.pth"] = fixed(pth.read_bytes())
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    ref, _ = shelf.refer_url(cache, site.url("/a.pth"), None, POLICY)
    site.answers["/a.pth"] = fixed(b"", status="403 Forbidden")
    assert shelf.open_voice(ref, "cpu", cache, POLICY).info.size == pth.stat().st_size
    with pytest.raises(UrlForbiddenError):  # on a node that has not kept it
        shelf.open_voice(ref, "cpu", ContentCache(tmp_path / "node2", 1 << 30), POLICY)


def test_content_that_changed_behind_the_address(site, pth, tmp_path, cache):
    site.answers["/a.pth"] = fixed(pth.read_bytes())
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    ref, _ = shelf.refer_url(cache, site.url("/a.pth"), None, POLICY)
    site.answers["/a.pth"] = fixed(voice_file(tmp_path / "b", 1).read_bytes())
    with pytest.raises(VoiceChangedError) as caught:
        shelf.open_voice(ref, "cpu", ContentCache(tmp_path / "node2", 1 << 30), POLICY)
    assert caught.value.retryable
    new, fetch = shelf.refer_url(cache, site.url("/a.pth"), None, POLICY)
    assert new.id != ref.id and fetch.model_found == "miss"


def test_a_zip_behind_an_address(site, pth, index, cache, tmp_path):
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.write(pth, "x/berta.pth")
        archive.write(index, "x/added_berta.index")
    site.answers["/share.zip"] = fixed((tmp_path / "zip").read_bytes())
    site.answers["/other.index"] = fixed(index_file(tmp_path / "other", seed=3).read_bytes())
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    ref, _ = shelf.refer_url(cache, site.url("/share.zip"), None, POLICY)
    own = shelf.open_voice(ref, "cpu", cache, POLICY)
    assert own.index.count == 30 and (own.name, own.info.source) == ("share", "share.zip")
    ref, _ = shelf.refer_url(cache, site.url("/share.zip"), site.url("/other.index"), POLICY)
    given = shelf.open_voice(ref, "cpu", cache, POLICY)
    assert not np.array_equal(given.index.arrays.vectors, own.index.arrays.vectors)
    assert not list(Path(tempfile.gettempdir()).glob("rocktop-*/voice.pth"))


def test_hostile_files_behind_addresses(site, pth, cache, tmp_path, index):
    class Evil:
        def __reduce__(self):
            return os.system, ("exit 1",)

    torch.save({"weight": {}, "config": Evil()}, tmp_path / "evil")
    shelf = shelf_at(str(tmp_path / "voices"), tmp_path)
    site.answers["/evil.pth"] = fixed((tmp_path / "evil").read_bytes())
    site.answers["/page.pth"] = fixed(b"<!doctype html><html>")
    site.answers["/half.pth"] = fixed(pth.read_bytes()[:20_000])
    site.answers["/wide.index"] = fixed(index_file(tmp_path / "wide", dim=768).read_bytes())
    site.answers["/good.pth"] = fixed(pth.read_bytes())

    def refused(kind: type[RocktopError], model: str, found: str | None = None) -> str:
        with pytest.raises(kind) as caught:
            ref, _ = shelf.refer_url(cache, site.url(model), found and site.url(found), POLICY)
            shelf.open_voice(ref, "cpu", cache, POLICY)
        assert str(tmp_path) not in str(caught.value) and "rocktop-" not in str(caught.value)
        return str(caught.value)

    assert "evil.pth" in refused(UnsafeFileError, "/evil.pth")
    refused(UrlContentError, "/page.pth")
    assert "half.pth" in refused(VoiceFormatError, "/half.pth")
    assert "wide.index" in refused(IndexFormatError, "/good.pth", "/wide.index")
    refused(UrlContentError, "/good.pth", "/good.pth")


# --- parts -----------------------------------------------------------------------------------------------------------


def test_kept_content(cache, site, pth):
    from rocktop_ray.store.sources import UrlSource

    with cache.kept("0" * 64) as nothing, cache.kept("../../etc/passwd") as neither:
        assert nothing is None and neither is None
    site.answers["/a"] = fixed(pth.read_bytes())
    with cache.get(UrlSource(site.url("/a"), POLICY)) as entry:
        pass
    with cache.kept(entry.sha256) as kept:
        assert kept is not None and kept.path.read_bytes() == pth.read_bytes() and kept.found == "hit"
    assert site.count("/a") == 1 and cache.stats().hits == 1
    entry.path.chmod(0o644)
    entry.path.write_bytes(b"x" * entry.bytes)
    with cache.kept(entry.sha256) as damaged:
        assert damaged is None
    assert cache.stats().corrupt == 1
