"""What is loaded is not looked at by the collector again; what comes after is."""

from __future__ import annotations

import subprocess
import sys

_CHILD = """
import gc
import fastapi
from serve_apps.permanent import keep_loaded

keep_loaded()
assert gc.get_freeze_count() > 10_000 and len(gc.get_objects()) < 1000

class Link:
    gone = 0
    def __del__(self):
        Link.gone += 1

for _ in range(20_000):
    link = Link()
    link.itself = link
assert Link.gone > 10_000, "cycles do not pile up"
"""


def test_what_is_loaded_is_kept_and_cycles_are_not() -> None:
    subprocess.run([sys.executable, "-c", _CHILD], check=True, timeout=120)
