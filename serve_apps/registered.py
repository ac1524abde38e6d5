"""Registered voices of MLflow, ``mlflow:NAME``: only from the server that the operator named, never a client's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from rocktop_ray.errors import SettingsError, TrackingError, VoiceNotFoundError
from rocktop_ray.store.digest import file_sha256
from rocktop_ray.tracking.place import tracking_place
from rocktop_ray.tracking.registry import FetchedVoice, VoiceReference, registered_voice
from serve_apps.config import ServeConfig
from serve_apps.labels import hiding
from serve_apps.voices import VoiceShelf

_log = logging.getLogger(__name__)


def check_reference(config: ServeConfig, text: str) -> None:
    """Raises SettingsError if it names no version of a voice, or no registry is configured."""
    VoiceReference.parse(text)
    if config.voices.tracking is None:
        message = "registered voices cannot be imported here: the operator has named no registry (voices.tracking)"
        raise SettingsError(message, stage="voice")


@contextmanager
def registered(config: ServeConfig, text: str) -> Iterator[FetchedVoice]:
    """The files of a registered voice, while the block runs. Messages do not name the registry.

    Raises as ``check_reference``, VoiceNotFoundError, VoiceFormatError, TrackingError, StorageError.
    """
    check_reference(config, text)
    uri = config.voices.tracking or ""
    place = tracking_place(uri)
    places = {} if place is None else {place.uri: "the registry", place.shown: "the registry"}
    with ExitStack() as held:
        held.enter_context(hiding(places))
        try:
            found = held.enter_context(registered_voice(text, uri, max_bytes=config.limits.voice_bytes))
        except TrackingError as error:
            _log.warning("the registry failed", extra={"voice": text, "reason": error.message})
            said = "the registry of this service cannot be used now: tell its operator, or try again later"
            raise TrackingError(said, retryable=error.retryable) from None
        yield found


def bring(config: ServeConfig, shelf: VoiceShelf, text: str) -> str:
    """Import a registered voice into the library unless it is the one that is there; its name.

    Raises as ``registered`` and ``VoiceShelf.import_``.
    """
    with registered(config, text) as found:
        name = found.reference.name
        with suppress(VoiceNotFoundError):
            if shelf.info(name).source_sha256 == file_sha256(found.voice):
                return name
        label = f"{name}{found.voice.suffix}"
        return shelf.import_(found.voice, name=name, index=found.index, replace_existing=True, label=label).name
