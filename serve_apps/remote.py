"""The four actors on replicas of their own (split placement), called from the threads of conversions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from serve_apps.losses import CAUGHT, Losses, as_rocktop, is_lost
from serve_apps.observe.meter import Meter, NoMeter
from serve_apps.orders import VoiceRef
from serve_apps.stages import Role

MOST_LOSSES = 5

NAMES: Mapping[Role, str] = {
    "content": "the content encoder",
    "pitch": "the pitch extractor",
    "acoustic": "the acoustic model",
    "vocoder": "the vocoder",
}


class RemoteStages:
    """See ``stages.Stages``: calls over handles, blocking the calling thread. A replica that dies costs one call."""

    def __init__(
        self, handles: Mapping[Role, Any], *, by_voice: frozenset[Role] = frozenset(), meter: Meter | None = None
    ) -> None:
        """by_voice: deployments with several replicas, of which those are preferred that hold a call's voice."""
        self._handles, self._by_voice = handles, by_voice
        self._meter = meter or NoMeter()

    @contextmanager
    def hold(self, voice: VoiceRef) -> Iterator[float]:
        """See ``Stages``: the replicas look after their voices themselves, call by call."""
        yield 0.0

    def call(self, role: Role, method: str, *args: Any, **options: Any) -> Any:
        """See ``Stages``."""
        return self._call(role, role, method, args, options)

    def compute(self, stage: str, seconds: float, role: Role, method: str, *args: Any, **options: Any) -> Any:
        """See ``Stages``; it is measured where it is computed."""
        return self._call(stage, role, method, args, options)

    def _call(self, stage: str, role: Role, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        handle = self._handles[role].options(method_name=method)
        if role in self._by_voice and args and isinstance(args[0], VoiceRef):
            handle = handle.options(multiplexed_model_id=args[0].id)
        losses = Losses(NAMES[role], MOST_LOSSES)
        while True:
            try:
                return handle.remote(*args, **options).result()
            except CAUGHT as error:
                if not is_lost(error):
                    raise as_rocktop(error, NAMES[role]) from error
                pause = losses.pause(error)
            self._meter.retried(stage)
            time.sleep(pause)
