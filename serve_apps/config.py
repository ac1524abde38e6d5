"""The settings of a deployment, typed; unknown keys are refused. The YAML files in ``configs/`` are made of these."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rocktop_ray import paths

Share = Annotated[float, Field(ge=0, le=1024)]
Count = Annotated[int, Field(ge=1, le=10_000)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """A section inside this one that is given in part keeps its own defaults for the rest, not those of its class:
        ``gateway: {cpus: 1}`` must not leave the gateway 4 connections.
        """
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for name, entry in cls.model_fields.items():
            if isinstance(entry.default, _Section) and isinstance(filled.get(name), dict):
                filled[name] = {**entry.default.model_dump(exclude_unset=True), **filled[name]}
        return filled


class StageConfig(_Section):
    """How one deployment is placed."""

    replicas: Count = 1
    """Processes that run the deployment."""
    max_replicas: Count | None = None
    """Above ``replicas``, Serve scales between the two by load."""
    cpus: Share = 1.0
    """CPU share that Ray reserves for a replica."""
    gpus: Share = 0.0
    """GPU share that Ray reserves for a replica: book-keeping, not a limit."""
    labels: dict[str, str] = {}
    """Labels that a node must have, e.g. ``{"ray.io/accelerator-type": "A100"}``."""
    concurrency: Count = 4
    """Calls that a replica holds at once."""
    target_ongoing: Annotated[float, Field(gt=0)] = 2.0
    """Calls per replica that scaling aims at."""
    surge_percent: Annotated[int, Field(ge=0, le=100)] = 0
    """Replicas that an update may start, in percent, before it stops old ones. Above 0 there must be room for both."""

    @property
    def most_replicas(self) -> int:
        """Replicas when scaling has made as many as it may."""
        return max(self.replicas, self.max_replicas or 0)


class BatchConfig(_Section):
    """Batching of stage calls across requests (split placement)."""

    max_frames: Annotated[int, Field(ge=1, le=1_000_000)] = 12_000
    """Content frames (20 ms) that one batch may hold together."""
    max_calls: Count = 8
    """Calls that one batch may hold."""
    wait_seconds: Annotated[float, Field(ge=0, le=1)] = 0.002
    """How long a batch waits for company."""


class VoicesConfig(_Section):
    """Where voices lie, and how many are held ready."""

    library: str | None = None
    """A folder, or ``s3://bucket/prefix``; None is the user's own library."""
    max_loaded: Annotated[int, Field(ge=1, le=1000)] = 4
    """Voices per replica. Voices in use are never freed, so for a moment there may be more."""
    preload: list[str] = ["bundle"]
    """Opened when a replica starts, so that the first request does not wait. Registered voices (``mlflow:NAME@ALIAS``)
    are imported into the library then."""
    tracking: str | None = None
    """Address of MLflow, whose registered voices may be imported as ``mlflow:NAME``; None refuses them. See
    docs/tracking.md."""


class FetchConfig(_Section):
    """Foreign addresses (see docs/storage.md)."""

    trusted: list[str] = []
    """Inner hosts (``host[:port]`` or networks) that may be fetched from all the same."""
    only: list[str] | None = None
    """If given, no other hosts."""
    max_bytes: Count | Annotated[int, Field(le=1 << 40)] = 512 << 20
    """Size of one download."""
    seconds: Annotated[float, Field(gt=0)] = 120.0
    """How long one download may take in all."""
    cache: str | None = None
    """Folder of the download cache; None is ``$ROCKTOP_HOME/cache``."""
    cache_bytes: Annotated[int, Field(ge=1 << 20)] = 20 << 30
    """Size of the download cache; the longest unused goes first."""


class LimitsConfig(_Section):
    """What one request, and all together, may ask for."""

    upload_bytes: Annotated[int, Field(ge=1024)] = 512 << 20
    """Of an uploaded take."""
    take_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """Length of a take."""
    voice_bytes: Annotated[int, Field(ge=1024)] = 1 << 30
    """Of an uploaded voice file or archive."""
    queued: Count = 32
    """Requests that wait for a free place at each gateway; more are answered 429."""
    jobs: Count = 1000
    """Jobs that wait or run; more are answered 429."""
    running_jobs: Count = 2
    """Jobs worked on at once."""
    batch_takes: Count = 200
    """Takes in one batch."""
    keep_hours: Annotated[float, Field(gt=0)] = 24.0
    """Jobs and their results are removed after that."""
    keep_bytes: Annotated[int, Field(ge=1 << 20)] = 20 << 30
    """Uploads and results together; the oldest finished ones go first."""
    import_voices: bool = True
    """Whether clients may add and remove voices."""


class LayoutConfig(_Section):
    """How a live stream is cut, in frames of 10 ms, all even: see ``LiveLayout`` and docs/live.md."""

    hop: Annotated[int, Field(ge=2, le=100, multiple_of=2)] = 4
    """Frames that are converted at a time."""
    ahead: Annotated[int, Field(ge=0, le=100, multiple_of=2)] = 0
    """Frames that are heard beyond them; exact voices need none."""
    left: Annotated[int, Field(ge=20, le=1000, multiple_of=2)] = 100
    """Frames before them that the content encoder hears."""
    pitch_left: Annotated[int, Field(ge=4, le=1000, multiple_of=2)] = 30
    """The same for the pitch extractor."""
    acoustic_left: Annotated[int, Field(ge=20, le=1000, multiple_of=2)] = 100
    """The same for the acoustic model."""


class EarsConfig(_Section):
    """Who hears for live streams where ``placement`` is ``split``."""

    replicas: Count = 2
    """Processes that hear: as many as ``live.replicas``, or sessions wait for each other."""
    cpus: Share = 0.3
    """CPU share that Ray reserves for a replica."""
    labels: dict[str, str] = {}
    """Labels that a node must have."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Torch threads per replica. The same as ``live.threads`` gives the same samples as fused, to the bit."""

    @property
    def stage(self) -> StageConfig:
        """How the replicas are placed; see ``LiveConfig.stage``."""
        return StageConfig(
            replicas=self.replicas, cpus=self.cpus, labels=self.labels, concurrency=10_000, surge_percent=100
        )


class LiveConfig(_Section):
    """Live sessions (``/v1/stream``): see docs/live-serve.md."""

    replicas: Count = 2
    """Processes that compute for live sessions. With two, a session whose process dies goes on in the other at once."""
    cpus: Share = 0.3
    """CPU share that Ray reserves for a replica: book-keeping. An update starts new ones before it stops old ones."""
    labels: dict[str, str] = {}
    """Labels that a node must have."""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Torch threads per replica. Exact voices gain little by more; RVC voices need two (docs/live-serve.md)."""
    ears: EarsConfig = EarsConfig()
    """With ``placement: split``; else each replica hears for itself."""
    pitch: str | None = None
    """Where voices that are not exact get their F0: a pitch extractor over windows, or ``listener`` (None), which is
    part of the package and computes each frame once."""
    layout: LayoutConfig = LayoutConfig()
    """Of voices all of whose stages are exact, as the bundle's."""
    windows: LayoutConfig = LayoutConfig(hop=16, ahead=12)
    """Of the others: longer hops cost less per second and add as much delay."""
    preload: list[str] = ["bundle"]
    """Voices opened in the background after the start, so that the first stream does not wait."""
    preload_seconds: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """After the start that this begins: the start itself shall not wait for it."""
    sessions: Annotated[int, Field(ge=0, le=10_000)] = 32
    """Sessions at once, whatever they cost; 0 takes none."""
    free_sessions: Annotated[int, Field(ge=0, le=10_000)] = 4
    """Of them those without deadlines (``pace: free``)."""
    load: Annotated[float, Field(gt=0, le=100)] = 0.7
    """Share of the time that may be promised to sessions with deadlines. Above 1, deadlines will be missed."""
    way_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    """Time of a core that a block takes on its way through proxy and gateway; to feed a hop takes twice as much. Counts
    against the nodes' cores when sessions are let in."""
    slack_ms: Annotated[float, Field(ge=0, le=1000)] = 20.0
    """How late a block may be answered after the next one was due, before the take itself goes out in its place."""
    resume_seconds: Annotated[float, Field(ge=0, le=3600)] = 60.0
    """How long a session waits for a client whose connection was lost."""
    parked: Count | None = None
    """Sessions whose state is kept for that, at most; the oldest goes first. None is twice ``sessions``, as those that
    sit are among them."""
    parked_bytes: Annotated[int, Field(ge=1 << 20)] = 256 << 20
    """Of all their states together."""
    state_bytes: Annotated[int, Field(ge=1 << 16)] = 16 << 20
    """Of one."""
    kept: Count = 64
    """Streams that a replica holds ready between blocks; another one costs sending its state again."""
    batch: Count = 16
    """Streams of a voice that are computed together."""
    others_nice: Annotated[int, Field(ge=0, le=19)] = 5
    """How far processes that convert whole takes stand back behind streams on the same machine (``nice``)."""

    @model_validator(mode="after")
    def _room_for_all(self) -> LiveConfig:
        """Raises ValueError where sessions that sit would lose what is parked for them."""
        if self.parked is not None and self.parked < self.sessions:
            raise ValueError(
                f"live.parked ({self.parked}) must be at least live.sessions ({self.sessions}): the state of every "
                "session that sits is parked, too"
            )
        return self

    @property
    def most_parked(self) -> int:
        """Sessions whose state is kept, with the default filled in."""
        return 2 * self.sessions if self.parked is None else self.parked

    @property
    def stage(self) -> StageConfig:
        """How the replicas are placed. Calls wait in them, not at Serve; an update begins with the new replicas."""
        return StageConfig(
            replicas=self.replicas, cpus=self.cpus, labels=self.labels, concurrency=10_000, surge_percent=100
        )


class SecurityConfig(_Section):
    """Who may call."""

    keys: str | None = None
    """File of API keys (``rocktop-serve keys``); None asks for none."""
    hosts: list[str] = []
    """Names under which the service is reached, besides ``localhost`` and addresses of loopback; ``*`` for any."""
    origins: list[str] = []
    """Web origins besides its own whose pages may call the API (CORS)."""


class NanoConfig(_Section):
    """RVC-Nano's RunPod API."""

    endpoints: list[str] | None = None
    """Names accepted as ``/v2/{endpoint}``; None accepts any."""
    sync_seconds: Annotated[float, Field(gt=0)] = 90.0
    """How long ``runsync`` waits before it answers with the job's status."""
    link_seconds: Annotated[int, Field(ge=60, le=7 * 86400)] = 86_400
    """Life of a signed address of a result in S3."""


class ServeConfig(_Section):
    """Everything that ``build_app`` needs."""

    placement: Literal["fused", "split"] = "fused"
    """``fused``: all stages in one replica. ``split``: a deployment per stage."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:0``; ``auto`` takes a GPU where there is one."""
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """Torch threads per replica; None shares this machine's cores among the replicas that run on it. The same number
    gives the same bytes, in both placements."""
    store: str | None = None
    """Place of uploads, results and jobs: a folder or ``s3://bucket/prefix``; None is ``$ROCKTOP_HOME/serve``."""
    gateway: StageConfig = StageConfig(cpus=0.1, concurrency=256, target_ongoing=64)
    converter: StageConfig = StageConfig(cpus=1)
    content: StageConfig = StageConfig(concurrency=8)
    pitch: StageConfig = StageConfig(concurrency=8)
    acoustic: StageConfig = StageConfig()
    vocoder: StageConfig = StageConfig()
    batch: BatchConfig = BatchConfig()
    voices: VoicesConfig = VoicesConfig()
    fetch: FetchConfig = FetchConfig()
    limits: LimitsConfig = LimitsConfig()
    live: LiveConfig = LiveConfig()
    security: SecurityConfig = SecurityConfig()
    nano: NanoConfig = NanoConfig()

    @property
    def store_place(self) -> str:
        """Where the spool is, with the default filled in."""
        return self.store or str(paths.home() / "serve")

    @property
    def cache_folder(self) -> Path:
        """Where downloads are kept, with the default filled in."""
        return Path(self.fetch.cache).expanduser() if self.fetch.cache else paths.home() / "cache"
