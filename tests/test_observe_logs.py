"""Logs: one JSON object per event, ids of requests, nothing secret."""

import asyncio
import io
import json
import logging
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_apps.observe.logs import LOGGERS, configure_logging, request
from serve_apps.observe.redaction import HIDDEN, redacted, redacted_value

log = logging.getLogger("serve_apps.gateway.access")


@pytest.fixture
def lines():
    """What is logged while the test runs, as objects."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    stream = io.StringIO()
    configure_logging("INFO", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_an_event_is_one_object_with_time_level_logger_and_extras(lines):
    log.info("request", extra={"status": 200, "seconds": 0.25, "route": "/v1/convert"})
    (line,) = lines()
    assert line | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "serve_apps.gateway.access",
        "event": "request",
        "status": 200,
        "seconds": 0.25,
        "route": "/v1/convert",
    }
    assert line["time"].endswith("+00:00") and "T" in line["time"]


def test_levels_below_are_left_out_and_a_second_configuration_replaces_the_first(lines):
    log.debug("quiet")
    configure_logging("INFO", io.StringIO())
    log.info("elsewhere")
    assert lines() == []


def test_the_request_id_follows_tasks_and_stays_apart(lines):
    async def one(name):
        with request(name):
            await asyncio.sleep(0.001)
            log.info("inside")

    async def many():
        await asyncio.gather(*(one(f"r{n}") for n in range(8)))

    asyncio.run(many())
    log.info("outside")
    *inside, outside = lines()
    assert sorted(line["request_id"] for line in inside) == [f"r{n}" for n in range(8)]
    assert "request_id" not in outside


def test_threads_have_their_own_request(lines):
    with request("here"):
        thread = threading.Thread(target=log.info, args=("there",))
        thread.start()
        thread.join()
    assert "request_id" not in lines()[0]


def test_a_traceback_is_kept_in_the_line_without_its_secrets(lines):
    try:
        raise ValueError("GET https://host/key?X-Amz-Signature=abcdef0123 failed")
    except ValueError:
        log.exception("broke")
    (line,) = lines()
    assert "ValueError" in line["traceback"] and "host/key" in line["traceback"]
    assert "abcdef0123" not in json.dumps(line)


def test_values_that_json_does_not_know_do_not_break_the_line(lines):
    class Odd:
        def __str__(self):
            return "odd at https://u:p@h/x?y=1"

    log.info("odd", extra={"thing": Odd(), "raw": b"\x00\x01", "nested": {"a": [1, None, True, 2.5]}})
    (line,) = lines()
    assert line["thing"] == "odd at https://h/x?..." and line["raw"] == "(2 bytes)"
    assert line["nested"] == {"a": [1, None, True, 2.5]}


SECRET = "s3cr3tS3cr3tS3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://bucket.s3.amazonaws.com/take.wav?X-Amz-Signature={SECRET}&x=1",
        f"https://user:{SECRET}@host/path",
        f"Authorization: Bearer {SECRET}",
        f"authorization=Basic {SECRET}",
        f"{{'Authorization': 'Bearer {SECRET}'}}",
        f'{{"x-api-key": "{SECRET}"}}',
        f"api_key={SECRET}",
        f"BUCKET_SECRET_ACCESS_KEY={SECRET}",
        f"aws_session_token: {SECRET}",
        f"password={SECRET}, next",
        f"bearer {SECRET}",
        f"Cookie: {SECRET}",
    ],
)
def test_secrets_do_not_reach_the_text(text):
    assert SECRET not in redacted(text)


@pytest.mark.parametrize(
    "text",
    ["key=12 index_rate=0.75", "converted take.wav in 3.2 s", "https://host/take.wav", "tokens=5", "the key: C#"],
)
def test_plain_text_stays(text):
    assert redacted(text) == text


def test_values_under_secret_names_are_hidden_whole_and_settings_stay():
    value = {"headers": {"Authorization": SECRET, "x-api-key": SECRET}, "key": 3, "accessKey": SECRET, "voice": "anna"}
    hidden = redacted_value(value)
    assert hidden["headers"] == {"Authorization": HIDDEN, "x-api-key": HIDDEN}
    assert hidden["key"] == 3 and hidden["voice"] == "anna" and hidden["accessKey"] == HIDDEN


def test_data_urls_lose_their_content():
    url = "data:audio/wav;base64," + "A" * 5000
    assert len(redacted(f"took {url}")) < 100
    assert redacted_value({"audio": url})["audio"].startswith("data:...")


@given(st.text(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_text_is_redacted_without_an_error_and_twice_is_once(text):
    once = redacted(text)
    assert redacted(once) == once


def test_very_long_text_is_quick():
    redacted("https://" + "a" * 200_000)
    redacted("token" * 40_000)
    redacted("bearer " * 40_000)
