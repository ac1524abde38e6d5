"""Files under their clients' names, and errors that tell nothing of ours."""

from __future__ import annotations

import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocktop_ray.errors import VoiceFormatError
from serve_apps.labels import clean_label, hide, hiding, labelled, url_label

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from shared_voices import index_fixture  # noqa: F401

pytestmark = pytest.mark.xdist_group("s3")


@given(st.text(max_size=300))
def test_labels_are_plain_file_names(text):
    label = clean_label(text)
    assert 1 <= len(label.encode()) <= 255 and not set(label) & set("/\\\0\n") and label not in (".", "..")
    assert clean_label(label) == label
    assert "/" not in url_label(f"http://h/{text}")


def test_labels_read_well():
    names = {
        "C:\\x\\Anna.pth": "Anna.pth",
        "/etc/passwd": "passwd",
        "..": "file",
        "": "file",
        "a\u202eb\n.pth": "ab.pth",
        ".index": "index",
        "歌手.pth": "歌手.pth",
    }
    assert {text: clean_label(text) for text in names} == names
    assert clean_label("a" * 500 + ".pth").endswith("aaa.pth")
    assert url_label("https://h/a/My%20Voice.pth?sig=1#x") == "My Voice.pth" and url_label("data:,abc") == "file"


def test_labelled_files_are_alone(tmp_path):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    with labelled((tmp_path / "a", "../x.pth"), (tmp_path / "b", "x.pth")) as links:
        assert [link.name for link in links] == ["x.pth", "x.pth"]
        assert [link.read_text() for link in links] == ["one", "two"]
        assert all(len(list(link.parent.iterdir())) == 1 for link in links)
    assert not links[0].parent.exists() and (tmp_path / "a").exists()


def test_hidden_places():
    places = {"/srv/voices": "the library", "s3://bucket/p": "the library"}
    assert hide("no voice 'x' in the library /srv/voices: it is empty", places) == (
        "no voice 'x' in the library: it is empty"
    )
    assert hide("cannot read /srv/voices/My Voice/manifest.json: no", places) == (
        "cannot read My Voice/manifest.json: no"
    )
    assert hide("cannot be reached for s3://bucket/p; check", places) == "cannot be reached for the library; check"
    temporary = tempfile.gettempdir()
    assert hide(f"{temporary}/rocktop-ab_1/0/my voice.pth: bad", {}) == "my voice.pth: bad"
    with pytest.raises(VoiceFormatError, match=r"^a\.pth is bad$") as caught, hiding(places):
        raise VoiceFormatError("/srv/voices/a.pth is bad", stage="input")
    assert caught.value.message == "a.pth is bad" and caught.value.stage == "input"
