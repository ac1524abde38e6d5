"""The HTTP API under inputs made from its own schema (schemathesis): no fault of ours, and only what is documented.

The same inputs on every run; for others, and more: ``HYPOTHESIS_PROFILE=explore pytest tests/test_api_fuzz.py``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import run

import pytest
from gateway_server import gateway_fixture, home_fixture, serving_gateway  # noqa: F401

EXPLORING = os.environ.get("HYPOTHESIS_PROFILE") == "explore"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
# The models of the bundle are not installed here (503), and nothing may be fetched.
EXPECTED = '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "4xx", "502", "503", "504"]\n'


def fuzz(url: str, folder: Path, *options: str) -> str:
    (folder / "schemathesis.toml").write_text(EXPECTED)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run"),
        *(f"{url}/openapi.json", "--checks", ",".join(CHECKS), "--request-timeout", "20", "--no-color"),
        *("--exclude-path-regex", "/metrics|/v2/|/events", *options),
    ]
    done = run(command, cwd=folder, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(1500)
def test_no_input_of_the_schema_is_answered_with_a_fault(home: Path) -> None:
    limits = {"queued": 4, "import_voices": True}
    with serving_gateway(home, fetch={"only": ["nothing.invalid"]}, limits=limits) as own:
        if EXPLORING:
            fuzz(own.url, home, "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "100")
        else:
            fuzz(own.url, home, "--phases", "examples,fuzzing", "--max-examples", "3", "--seed", "1")
        with own.client() as client:
            assert client.get("/readyz").status_code == 200
            assert len(client.get("/v1/voices").json()["voices"]) >= 1
