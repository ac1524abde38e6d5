"""What this machine has and lacks for rocktop: facts only, gathered without loading a model."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import rocktop_ray
from rocktop_ray import paths
from rocktop_ray.errors import StorageError
from rocktop_ray.store.catalogue import CATALOGUE, GROUPS
from rocktop_ray.store.fetch import command, location

LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "soundfile",
    "av",
    "soxr",
    "faiss-cpu",
    "safetensors",
    "praat-parselmouth",
    "ray",
)
PROGRAMS = ("ffmpeg", "sox")
CODECS = {"opus": "libopus", "mp3": "libmp3lame", "aac": "aac", "flac": "flac"}
"""Decoder and encoder that FFmpeg's library should have, by codec."""
_NEEDED = ("whisper-base-encoder", "fcpe")
_DISK_LOW = 1_000_000_000


@dataclass(frozen=True)
class Accelerator:
    """One GPU that torch sees."""

    kind: str
    """``CUDA``, ``ROCm`` or ``MPS``."""
    name: str
    memory: int
    """Bytes; 0 if unknown."""


@dataclass(frozen=True)
class Codec:
    """What FFmpeg's library can do with one codec."""

    name: str
    decodes: bool
    encodes: bool


@dataclass(frozen=True)
class Model:
    """One entry of the catalogue on this machine."""

    name: str
    installed: bool
    path: str
    command: str
    """What installs it."""
    in_bundle: bool


@dataclass(frozen=True)
class Report:
    """Everything that ``rocktop doctor`` shows."""

    versions: dict[str, str]
    platform: str
    torch_build: str
    accelerators: tuple[Accelerator, ...]
    cores: int
    usable_cores: int
    torch_threads: int
    thread_settings: dict[str, str]
    sound_files: str
    """Version of libsndfile, and which of the usual formats it reads."""
    codecs: tuple[Codec, ...]
    programs: dict[str, str]
    """Optional programs: path, or nothing."""
    models: tuple[Model, ...]
    home: str
    home_writable: bool
    home_free: int
    """Bytes."""
    voices: int
    bundle_voice: bool
    problems: tuple[str, ...]
    """What keeps the bundle from running, each with what to do. Empty: it can run."""
    warnings: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether the bundle can run."""
        return not self.problems


def examine() -> Report:
    """Look at this machine. Missing things are findings, not errors."""
    import torch

    from rocktop_ray.voices.open import bundle_folder

    home = paths.home()
    existing = _nearest(home)
    models = _models()
    codecs = _codecs()
    bundle_voice = (bundle_folder() / "bundle.safetensors").is_file()
    writable = os.access(existing, os.W_OK)
    free = shutil.disk_usage(existing).free
    problems = [f"the weights {model.name} are missing; run: {model.command}" for model in models if _lacks(model)]
    if not bundle_voice:
        problems.append("the bundled voice is not in this installation; install it again, or name another voice")
    warnings = [f"FFmpeg's library cannot write {codec.name}" for codec in codecs if not codec.encodes]
    voices, complaints = _voices()
    warnings += complaints
    if home.exists() and not home.is_dir():
        problems.append(f"{home} is a file; set ROCKTOP_HOME to a folder")
    elif not writable:
        warnings.append(f"{home} cannot be written; set ROCKTOP_HOME to a folder of your own")
    if free < _DISK_LOW:
        warnings.append(f"only {free / 1e6:.0f} MB are free in {home}")
    return Report(
        versions=_versions(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        torch_build=_torch_build(),
        accelerators=_accelerators(),
        cores=os.cpu_count() or 1,
        usable_cores=_usable_cores(),
        torch_threads=torch.get_num_threads(),
        thread_settings={
            name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ
        },
        sound_files=_sound_files(),
        codecs=codecs,
        programs={name: shutil.which(name) or "" for name in PROGRAMS},
        models=models,
        home=str(home),
        home_writable=writable,
        home_free=free,
        voices=voices,
        bundle_voice=bundle_voice,
        problems=tuple(problems),
        warnings=tuple(warnings),
    )


def _lacks(model: Model) -> bool:
    return model.name in _NEEDED and not model.installed


def _models() -> tuple[Model, ...]:
    return tuple(
        Model(name, location(w).is_file(), str(location(w)), command(name), name in GROUPS["bundle"])
        for name, w in CATALOGUE.items()
    )


def _voices() -> tuple[int, list[str]]:
    """Voices in the library, and what is wrong with it."""
    from rocktop_ray.voices.library import VoiceLibrary

    library = VoiceLibrary()
    try:
        names, damaged = library.names(), library.damaged()
    except StorageError as error:
        return 0, [error.message]
    return len(names), [f"voice {name} in the library is damaged; remove it and import it again" for name in damaged]


def _versions() -> dict[str, str]:
    found = {"rocktop-ray": rocktop_ray.__version__, "python": sys.version.split()[0]}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _torch_build() -> str:
    import torch

    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"


def _accelerators() -> tuple[Accelerator, ...]:
    import torch

    kind = "ROCm" if torch.version.hip else "CUDA"
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        found.append(Accelerator(kind, properties.name, properties.total_memory))
    if torch.backends.mps.is_available():
        found.append(Accelerator("MPS", platform.processor() or "Apple GPU", 0))
    return tuple(found)


def _usable_cores() -> int:
    """Cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _sound_files() -> str:
    import soundfile

    usual = [name for name in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF") if name in soundfile.available_formats()]
    return f"{soundfile.__libsndfile_version__}: {', '.join(usual)}"


def _codecs() -> tuple[Codec, ...]:
    import av.codec

    def has(name: str, mode: Literal["r", "w"]) -> bool:
        try:
            av.codec.Codec(name, mode)
        except av.codec.codec.UnknownCodecError:
            return False
        return True

    return tuple(Codec(name, has(name, "r"), has(encoder, "w")) for name, encoder in CODECS.items())


def _nearest(path: Path) -> Path:
    """The folder itself, or its first parent that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
