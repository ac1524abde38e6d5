"""RVC-Nano's input rules, reply bodies and request ids."""

from __future__ import annotations

import threading
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_apps.ids import RequestIds
from serve_apps.nano.contract import InputError, NanoInput, failure_body, read_input, success_body, tag_of

GOOD = {"vocal_url": "https://storage.example.com/vocal.wav", "model_url": "https://storage.example.com/model.pth"}


def test_defaults_are_the_seeds() -> None:
    found = read_input(GOOD)
    assert found == NanoInput(**GOOD)
    assert (found.index_url, found.f0_up_key, found.index_rate, found.tag) == (None, 0, 0.75, None)


def test_seeds_example() -> None:
    data = {**GOOD, "index_url": "https://storage.example.com/model.index", "f0_up_key": 0, "index_rate": 0.75}
    assert read_input({**data, "tag": "user_123_song_456"}).tag == "user_123_song_456"


def test_fixed_settings() -> None:
    settings = read_input({**GOOD, "f0_up_key": -24, "index_rate": 1}).settings()
    assert (settings.key, settings.index_rate) == (-24.0, 1.0)
    assert (settings.protect, settings.rms_mix, settings.median_radius, settings.unvoiced) == (0.33, 0.25, 0, "zero")


@pytest.mark.parametrize("value", [-24, 0, 24])
def test_keys_at_the_ends(value: int) -> None:
    assert read_input({**GOOD, "f0_up_key": value}).f0_up_key == value


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, 0.5])
def test_rates_at_the_ends(value: float) -> None:
    found = read_input({**GOOD, "index_rate": value}).index_rate
    assert found == value and isinstance(found, float)


@pytest.mark.parametrize("name", ["index_url", "tag"])
def test_null_is_the_default_where_the_default_is_null(name: str) -> None:
    assert read_input({**GOOD, name: None}) == NanoInput(**GOOD)


def test_empty_index_is_none() -> None:
    assert read_input({**GOOD, "index_url": ""}).index_url is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("f0_up_key", 25, "-24 to 24"),
        ("f0_up_key", -25, "-24 to 24"),
        ("f0_up_key", 10**400, "-24 to 24"),
        ("f0_up_key", 1.0, "whole number, not a number"),
        ("f0_up_key", "5", "whole number, not a text"),
        ("f0_up_key", True, "whole number, not true or false"),
        ("f0_up_key", None, "whole number, not null"),
        ("index_rate", 1.01, "0.0 to 1.0"),
        ("index_rate", -0.01, "0.0 to 1.0"),
        ("index_rate", float("nan"), "0.0 to 1.0"),
        ("index_rate", float("inf"), "0.0 to 1.0"),
        ("index_rate", 10**400, "0.0 to 1.0"),
        ("index_rate", False, "number, not true or false"),
        ("index_rate", None, "number, not null"),
        ("index_rate", "0.5", "number, not a text"),
        ("vocal_url", None, "text, not null"),
        ("vocal_url", "", "http:// or https:// URL"),
        ("vocal_url", "ftp://example.com/a", "http:// or https:// URL"),
        ("vocal_url", "file:///etc/passwd", "http:// or https:// URL"),
        ("vocal_url", "/etc/passwd", "http:// or https:// URL"),
        ("model_url", ["https://example.com"], "text, not a list"),
        ("model_url", "https://example.com/" + "a" * 9000, "at most 8192"),
        ("index_url", "s3://bucket/x", "http:// or https:// URL"),
        ("index_url", 0, "text, not a whole number"),
        ("tag", 5, "text, not a whole number"),
        ("tag", {}, "text, not an object"),
    ],
)
def test_refusals_name_field_and_rule(name: str, value: object, said: str) -> None:
    with pytest.raises(InputError) as refused:
        read_input({**GOOD, name: value})
    assert len(refused.value.problems) == 1
    assert name in refused.value.message and said in refused.value.message
    assert "passwd" not in refused.value.message


@pytest.mark.parametrize("data", [None, [], "x", 3, True])
def test_input_is_an_object(data: object) -> None:
    with pytest.raises(InputError, match="input should be an object"):
        read_input(data)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InputError) as refused:
        read_input({"f0_up_key": 99, "pitch": 1, "x" * 500: 2})
    assert len(refused.value.problems) == 5
    assert len(refused.value.message) < 700


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*NanoInput.__dataclass_fields__, "other"]), _JSON) | _JSON)
def test_any_json_is_checked_or_refused(data: object) -> None:
    try:
        found = read_input(data)
    except InputError as error:
        assert error.problems and all(problem.endswith(".") for problem in error.problems)
        assert tag_of(data) is None or isinstance(tag_of(data), str)
        return
    assert -24 <= found.f0_up_key <= 24 and 0 <= found.index_rate <= 1
    found.settings()


def test_bodies_leave_out_what_is_not_there() -> None:
    body = success_body(
        NanoInput(**GOOD),
        "id",
        audio_url="https://x/y.ogg",
        duration_seconds=125.4,
        file_size_bytes=256_000,
        processing_time_seconds=8.5,
        model_version="v2",
        f0_method=None,
        timings={"upload": 0.2},
    )
    assert list(body) == [
        *("result", "request_id", "audio_url", "sample_rate", "duration_seconds", "file_size_bytes", "format"),
        *("processing_time_seconds", "model_version", "timing_details"),
    ]
    assert body["timing_details"]["download_model"] == 0.0 and body["timing_details"]["upload"] == 0.2
    failed = failure_body("why", "id", None, refresh_worker=True)
    assert failed == {"result": "failure", "message": "why", "request_id": "id", "refresh_worker": True}


def test_ids_are_uuid7_and_sort() -> None:
    ids = RequestIds()
    made = [ids.new() for _ in range(5000)]
    assert made == sorted(made) and len(set(made)) == len(made)
    for text in (made[0], made[-1]):
        found = uuid.UUID(text)
        assert found.version == 7 and found.variant == uuid.RFC_4122
        assert text == str(found)


def test_ids_hold_their_time_and_go_on_when_the_clock_goes_back() -> None:
    times = iter([1_700_000_000_123, 1_700_000_000_123, 1_600_000_000_000, 1_700_000_000_124])
    ids = RequestIds(lambda: next(times))
    made = [ids.new() for _ in range(4)]
    assert made == sorted(made)
    assert [(uuid.UUID(one).int >> 80) / 1000 for one in made] == [1_700_000_000.123] * 3 + [1_700_000_000.124]


def test_ids_of_many_threads_differ() -> None:
    ids, found = RequestIds(), []

    def work() -> None:
        mine = [ids.new() for _ in range(500)]
        assert mine == sorted(mine)
        found.extend(mine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 2000
