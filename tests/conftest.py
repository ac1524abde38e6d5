"""Settings of the whole suite."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The same examples on every run; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

pytest_plugins = ["s3_server", "serve_cluster"]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes and long texts are called by their argument: what they hold may differ from one process to the next."""
    return argname if isinstance(val, bytes) or (isinstance(val, str) and len(val) > 80) else None
