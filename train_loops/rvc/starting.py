"""The first weights of a run: random, the pair that ships, files of RVC and Applio, or a finished voice."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from rocktop_ray import paths
from rocktop_ray.config.training import StartConfig
from rocktop_ray.errors import SettingsError, VoiceFormatError, VoiceNotFoundError
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.guarded_fetch import FetchPolicy
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.sources import ObjectSource, Source, UrlSource
from rocktop_ray.store.storage import open_storage
from rocktop_ray.voices.open import bundle_folder, read_rvc_voice
from rocktop_ray.voices.safe_load import is_safetensors
from train_loops.rvc.pretrained_pair import check_fits, read_info, start_from_pair
from train_loops.rvc.reference_files import resume_reference, start_from_pretrained, start_from_voice
from train_loops.rvc.step import AdversarialStep

BUNDLED_PAIR = "pretrained.safetensors"
"""In ``rocktop_ray/bundle``."""
POLICY = FetchPolicy(max_bytes=2 << 30, total_seconds=3600.0, idle_seconds=60.0)
"""Of downloads: discriminators of 48 kHz have 145 MB, and optimizers may lie beside the weights."""
CACHE_BYTES = 20 << 30
"""As the service has it, with which the folder is shared."""


def begin(
    step: AdversarialStep,
    start: StartConfig,
    *,
    library: str | Path | None = None,
    cache: ContentCache | None = None,
    policy: FetchPolicy | None = None,
    content_name: str = "",
) -> list[str]:
    """Give ``step`` its first weights; returns what is fresh or worth knowing, one line each.

    Files may be paths, addresses with ``https://`` or ``http://``, or ``s3://bucket/key`` (reached as the environment
    says).

    Args:
        step: a run that has done no step.
        start: where from. ``pretrained`` also takes one ``.safetensors`` with both halves: a pair, or a checkpoint of
            another run.
        library: folder of the voice library; None is the user's own.
        cache: keeps downloads; None is the user's own.
        policy: what may be downloaded; None is ``POLICY``: public hosts only.
        content_name: name of the content units in the dataset, to compare.

    Raises SettingsError if the weights are of another configuration, VoiceFormatError with a report, UnsafeFileError,
    VoiceNotFoundError, FetchError or StorageError. ``step`` is not to be used then.
    """
    if start.kind == "bundle":
        path = bundle_folder() / BUNDLED_PAIR
        if not path.is_file():
            raise VoiceNotFoundError("this installation has no pretrained pair: set start.kind=fresh, or give files")
        return [*start_from_pair(step, path), *_units(read_info(path).content_name, content_name)]
    fetch = _Fetcher(cache, policy or POLICY)
    if start.kind == "voice":
        return _from_voice(step, start.voice, fetch, library, content_name)
    if start.kind == "pretrained":
        return _from_files(step, start, fetch, content_name)
    if start.kind == "checkpoint":
        with _said_of(step), fetch(start.generator) as generator, fetch(start.discriminator) as discriminator:
            epochs = resume_reference(step, generator, discriminator)
        return [f"the optimizers go on, too, after {epochs} epochs elsewhere; steps and epochs are counted from 0"]
    return ["generator and discriminator are fresh"]


def _from_files(step: AdversarialStep, start: StartConfig, fetch: _Fetcher, content_name: str) -> list[str]:
    with fetch(start.generator) as generator:
        if is_safetensors(generator):
            if start.discriminator:
                raise SettingsError(f"{generator.name} holds both halves: leave start.discriminator empty")
            return [*start_from_pair(step, generator), *_units(read_info(generator).content_name, content_name)]
        with _said_of(step):
            if not start.discriminator:
                return start_from_pretrained(step, generator)
            with fetch(start.discriminator) as discriminator:
                return start_from_pretrained(step, generator, discriminator)


@contextmanager
def _said_of(step: AdversarialStep) -> Iterator[None]:
    """Whoever gave files that do not fit is told what would."""
    try:
        yield
    except VoiceFormatError as error:
        config = step.recipe.synthesizer
        raise VoiceFormatError(
            f"{error.message}. This run is {step.recipe.version}, {config.sample_rate // 1000} kHz, "
            f"{'with' if config.uses_f0 else 'without'} F0: give files of the same, or set another recipe"
        ) from error


def _from_voice(
    step: AdversarialStep, voice: str, fetch: _Fetcher, library: str | Path | None, content_name: str
) -> list[str]:
    if _source(voice, fetch.policy) is None:
        found = read_rvc_voice(voice, library=library)
        name = f"the voice {voice}"
    else:
        with fetch(voice) as path:
            found, name = read_rvc_voice(path), path.name
    check_fits(step.recipe, found.config, name)
    return [*start_from_voice(step, found, name), *_units(found.content_name, content_name)]


def _units(theirs: str, ours: str) -> list[str]:
    if not theirs or not ours or theirs == ours:
        return []
    return [f"the first weights were trained on units of {theirs}, not {ours}: the prior encoder has to learn anew"]


class _Fetcher:
    """Gives foreign files as local ones, under their own names."""

    def __init__(self, cache: ContentCache | None, policy: FetchPolicy) -> None:
        self._cache, self.policy = cache, policy

    @contextmanager
    def __call__(self, place: str) -> Iterator[Path]:
        """The file at a path or address. Raises VoiceNotFoundError, FetchError, StorageError."""
        source = _source(place, self.policy)
        if source is None:
            path = Path(place).expanduser()
            if not path.is_file():
                raise VoiceNotFoundError(f"no file {place}")
            yield path
            return
        if self._cache is None:
            self._cache = ContentCache(paths.home() / "cache", CACHE_BYTES)
        with self._cache.get(source) as entry, tempfile.TemporaryDirectory() as folder:
            name = PurePosixPath(unquote(urlsplit(place).path)).name or "file"
            path = Path(folder) / name.replace("\0", "")[-80:]
            path.symlink_to(entry.path.absolute())
            yield path


def _source(place: str, policy: FetchPolicy) -> Source | None:
    """Where a foreign file comes from; None if it is a local one."""
    if place.startswith(("https://", "http://")):
        return UrlSource(place, policy, "voice")
    if place.startswith("s3://"):
        store, _, key = place.rpartition("/")
        return ObjectSource(open_storage(store, StorageSettings.from_environment()), key)
    return None
