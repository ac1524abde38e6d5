"""Data URLs, and addresses that are none."""

from __future__ import annotations

import base64
import io

import pytest
from foreign_site import WAV, get, named
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import (
    FetchError,
    RocktopError,
    SettingsError,
    UrlContentError,
    UrlRefusedError,
    UrlTooLargeError,
)
from rocktop_ray.store.guarded_fetch import FetchPolicy, check_url, guarded_fetch


def test_data_urls() -> None:
    text = base64.b64encode(WAV).decode()
    for url in (
        f"data:audio/wav;base64,{text}",
        f"DATA:;base64,{text}",
        f"data:audio/wav;base64,{text.replace('=', '%3D')}",
    ):
        assert get(url, FetchPolicy(), expect="audio")[0] == WAV
    assert get("data:,a%20b", FetchPolicy())[0] == b"a b"
    check_url(f"data:audio/wav;base64,{text}")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("data:audio/wav;base64", UrlRefusedError),
        ("data:" + "x" * 300 + ",", UrlRefusedError),
        ("data:;base64,****", UrlContentError),
        ("data:;base64,QUJ", UrlContentError),
        ("data:;base64,Ä", UrlContentError),
        ("data:;base64," + "QUJD" * 1000, UrlTooLargeError),
        ("data:," + "a" * 4000, UrlTooLargeError),
        ("data:," + "%41" * 1200, UrlTooLargeError),
    ],
)
def test_bad_data_urls(url: str, error: type[FetchError]) -> None:
    with pytest.raises(error) as caught:
        get(url, FetchPolicy(max_data_url_bytes=1000))
    assert "QUJ" not in caught.value.message


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=60), st.sampled_from(["", "http://", "https://", "data:", "http://[", "http://127.0.0.1:1/", "//"])
)
def test_any_text_is_fetched_or_refused_with_one_clear_error(text: str, start: str) -> None:
    policy = FetchPolicy(resolver=named("127.0.0.1"))
    try:
        guarded_fetch(start + text, io.BytesIO(), policy=policy)
    except RocktopError as error:
        assert isinstance(error, FetchError) and error.message
    else:
        assert (start + text)[:5].lower() == "data:"


def test_bad_policies() -> None:
    for bad in ({"trusted": ("a b",)}, {"only": ("/",)}, {"max_bytes": 0}, {"total_seconds": -1}):
        with pytest.raises(SettingsError):
            FetchPolicy(**bad)  # type: ignore[arg-type]
