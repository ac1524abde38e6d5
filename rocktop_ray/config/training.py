"""The schema of a training run; ``rvc.yaml`` beside it holds the same keys with their defaults, for Hydra.

What the networks are made of is the recipe (``train_loops.rvc.recipe``); here stands what surrounds them: the data,
where to begin, when to end, what is kept, and who does the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from rocktop_ray.config.mapping import made
from rocktop_ray.errors import SettingsError

Start = Literal["fresh", "bundle", "pretrained", "checkpoint", "voice"]
"""Where the weights of a run come from."""


@dataclass(frozen=True)
class StartConfig:
    """The first weights."""

    kind: Start = "fresh"
    """``fresh``: random; ``bundle``: the pretrained pair that ships; ``pretrained``: files of RVC, Applio;
    ``checkpoint``: a run of RVC or Applio, with its optimizers; ``voice``: a finished voice, whose discriminator is
    fresh."""
    generator: str = ""
    """With ``pretrained``: path or URL of ``f0G48k.pth`` and its like; with ``checkpoint``: of ``G_2333333.pth``."""
    discriminator: str = ""
    """With ``pretrained``: the other half, ``f0D48k.pth``; empty = fresh. With ``checkpoint``: ``D_2333333.pth``."""
    voice: str = ""
    """With ``voice``: name of an installed voice, or its file."""


@dataclass(frozen=True)
class StopConfig:
    """When a run ends; what comes first counts, 0 is no bound."""

    steps: int = 0
    epochs: int = 0
    minutes: float = 0.0
    """Of training, over all attempts together."""
    patience: int = 10
    """Validations in a row whose score is no better than the best before; 0 = no early stop."""
    gain: float = 0.002
    """Share of the best score by which a score must be lower to count as better."""


@dataclass(frozen=True)
class ValidationConfig:
    """How often and on what the voice is judged."""

    every_steps: int = 500
    """0 = never."""
    share: float = 0.05
    """Of the takes that are held out from training, 0..0.5."""
    slices: int = 12
    """Held-out slices that are scored, spread over singers and takes."""
    samples: int = 3
    """Of these, how many are kept as audio and pictures."""
    metrics: bool = True
    """Also the objective metrics of ``rocktop evaluate`` on the samples."""


@dataclass(frozen=True)
class CheckpointConfig:
    """How often a run can be resumed from."""

    every_steps: int = 500
    """0 = only by time, and at the end."""
    every_minutes: float = 10.0
    """0 = only by steps, and at the end."""
    keep: int = 2
    """Checkpoints that are kept, the latest."""


@dataclass(frozen=True)
class WorkersConfig:
    """Who trains; see docs/mixed-workers.md."""

    count: int = 1
    least: int = 0
    """With fewer than ``count`` the run goes on, down to this many; 0 = always ``count``."""
    threads: int = 1
    """Of a worker's arithmetic on the CPU; a worker takes as many cores."""
    gpu: bool = False
    """One GPU for each worker."""
    labels: tuple[str, ...] = ()
    """Node labels ``key=value``, one for each worker, e.g. two vendors: ``rocktop.io/vendor=nvidia``."""
    failures: int = 3
    """Lost workers and other faults that a retry may help, after which the run goes on from its last checkpoint."""
    timeout: float = 300.0
    """Seconds that workers wait for one that is silent: more than the longest step, validation and checkpoint."""


@dataclass(frozen=True)
class LoaderConfig:
    """Reading of examples beside the arithmetic."""

    threads: int = 1
    ahead: int = 4
    """Batches that are ready before they are needed."""


@dataclass(frozen=True)
class TrackingConfig:
    """Where the run is written down."""

    uri: str = ""
    """MLflow tracking server or store; empty = ``MLFLOW_TRACKING_URI``, else a SQLite file of this machine; ``none`` =
    no tracking."""
    experiment: str = "rocktop"
    register: bool = True
    """The finished voice becomes a registered model of its name."""


@dataclass(frozen=True)
class ExportConfig:
    """The finished voice."""

    index: bool = True
    """Also a retrieval index."""
    install: bool = False
    """Put it into the voice library of this machine."""
    checkpoint: bool = False
    """Also the last checkpoint as ``G_STEP.pth`` and ``D_STEP.pth``, with which RVC's trainer goes on."""
    licence: str = ""
    """Of the voice, e.g. an SPDX identifier."""
    author: str = ""
    info: str = ""
    """Free text inside the files."""


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run. Raises SettingsError for unknown keys, wrong types and values out of range."""

    name: str
    """Of the voice and of the run."""
    dataset: str
    """Folder or ``s3://bucket/prefix`` that ``train_loops.preprocess`` made."""
    out: str = "trained"
    """Folder or ``s3://bucket/prefix``; the run is kept in ``out/name``."""
    recipe: Mapping[str, Any] = field(default_factory=lambda: {"stock": "v2-48k"})
    """The networks and how they learn: ``train_loops.rvc.recipe``."""
    start: StartConfig = field(default_factory=StartConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    log_every_steps: int = 20
    """Steps between lines of the log and points of the curves; validations and checkpoints are due at such steps."""

    def __post_init__(self) -> None:
        problems = [*self._problems()]
        if problems:
            raise SettingsError("the training settings cannot be used: " + "; ".join(problems), stage="training")

    def as_mapping(self) -> dict[str, Any]:
        """Plain data from which ``from_mapping`` makes the same settings."""
        values = asdict(self)
        values["workers"]["labels"] = list(self.workers.labels)
        return values

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """From plain data (YAML, JSON). Raises SettingsError."""
        return made(cls, values, "")

    def _problems(self) -> list[str]:
        problems = []
        if not self.name or self.name != self.name.strip() or any(sign in self.name for sign in "/\\\0\n"):
            problems.append(f"name must be a plain name without slashes, not {self.name!r}")
        if not self.dataset:
            problems.append("dataset is missing: the folder that 'python -m train_loops.preprocess' made")
        if self.start.kind not in get_args(Start):
            problems.append(f"start.kind must be one of {', '.join(get_args(Start))}, not {self.start.kind!r}")
        if self.start.kind == "pretrained" and not self.start.generator:
            problems.append("start.kind=pretrained wants start.generator, e.g. f0G48k.pth")
        if self.start.kind == "checkpoint" and not (self.start.generator and self.start.discriminator):
            problems.append("start.kind=checkpoint wants start.generator and start.discriminator: G_*.pth and D_*.pth")
        if self.start.kind == "voice" and not self.start.voice:
            problems.append("start.kind=voice wants start.voice, a name or a file")
        for name, low, high in (
            ("stop.steps", 0, 10**9),
            ("stop.epochs", 0, 10**9),
            ("stop.minutes", 0, 10**6),
            ("stop.patience", 0, 10**6),
            ("stop.gain", 0, 0.5),
            ("validation.every_steps", 0, 10**9),
            ("validation.share", 0, 0.5),
            ("validation.slices", 1, 1000),
            ("validation.samples", 0, 100),
            ("checkpoints.every_steps", 0, 10**9),
            ("checkpoints.every_minutes", 0, 10**6),
            ("checkpoints.keep", 1, 1000),
            ("workers.count", 1, 4096),
            ("workers.least", 0, 4096),
            ("workers.threads", 1, 1024),
            ("workers.failures", 0, 10**6),
            ("workers.timeout", 1, 10**6),
            ("loader.threads", 1, 256),
            ("loader.ahead", 1, 1000),
            ("log_every_steps", 1, 10**6),
        ):
            value: Any = self
            for key in name.split("."):
                value = getattr(value, key)
            if not low <= value <= high:
                problems.append(f"{name} must be {low:g} to {high:g}, not {value:g}")
        if self.workers.least > self.workers.count:
            problems.append("workers.least must not be above workers.count")
        if self.workers.labels and len(self.workers.labels) != self.workers.count:
            problems.append(f"workers.labels must be one for each of {self.workers.count} workers, or none")
        if any("=" not in label for label in self.workers.labels):
            problems.append("workers.labels are written key=value")
        return problems
