"""What the routes need, in one place: the gateway's replica makes it once."""

from __future__ import annotations

from dataclasses import dataclass

from rocktop_ray.store.cache import ContentCache
from serve_apps.config import ServeConfig
from serve_apps.jobs.protocol import Jobs
from serve_apps.live.engine import Desk, LiveEngine
from serve_apps.orders import Conversions
from serve_apps.spool import Spool
from serve_apps.voices import VoiceShelf


@dataclass(frozen=True)
class Services:
    """Everything behind the HTTP routes."""

    config: ServeConfig
    spool: Spool
    conversions: Conversions
    jobs: Jobs
    voices: VoiceShelf
    cache: ContentCache
    """Downloads of foreign addresses."""
    live: LiveEngine | None = None
    """Who computes for live sessions; None where there are none."""
    desk: Desk | None = None
    """Who lets them in, and keeps them."""
