"""How a worker talks to ``step.py``: it computes one step per line that it reads, and answers with one line of JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.load import Watch


def wait() -> Watch | None:
    """Until the next step is wanted; None if no more are. What a worker computes meanwhile is not measured."""
    return Watch() if sys.stdin.readline().strip() == "go" else None


def answer(watch: Watch | None, **values: Any) -> None:
    """What a step cost, and its losses."""
    print(json.dumps({**(watch.read() if watch else {}), **values}), flush=True)
