"""Where things are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """The data folder: ``$ROCKTOP_HOME``, else the platform's user data folder. Holds ``models/`` and ``voices/``."""
    given = os.environ.get("ROCKTOP_HOME")
    return Path(given).expanduser() if given else Path(platformdirs.user_data_dir("rocktop", appauthor=False))


def models() -> Path:
    """Encoder and pitch weights (``rocktop models``)."""
    return home() / "models"


def voices() -> Path:
    """The voice library (``rocktop voices``)."""
    return home() / "voices"
