"""The whole service as one Serve application: ``serve run serve_apps.app:build_app placement=split``."""

# No postponed annotations here: Serve reads the builder's to know how to check its arguments.

from typing import Any

from ray import serve
from ray.serve import Application

from serve_apps.config import ServeConfig, StageConfig
from serve_apps.graph import ConverterReplica
from serve_apps.ingress import GatewayReplica
from serve_apps.jobs.deployment import STAGE as JOBS_STAGE
from serve_apps.jobs.deployment import JobsReplica
from serve_apps.live.compute.ears import EarsReplica
from serve_apps.live.compute.replica import DESK_STAGE, DeskReplica, LiveReplica
from serve_apps.stage_replicas import AcousticReplica, ContentReplica, PitchReplica, VocoderReplica

SHUTDOWN_SECONDS = 30.0
"""A replica that is to stop may work so long on what it has; after that its orders are begun again elsewhere."""


def build_app(config: ServeConfig) -> Application:
    """Gateway, jobs and the stages that convert. ``config`` may also come as the ``args`` of a Serve config file."""
    converter = build_converter(config)
    jobs = placed(JobsReplica, "Jobs", JOBS_STAGE).bind(config, converter)
    live, desk = build_live(config)
    return placed(GatewayReplica, "Gateway", config.gateway).bind(config, converter, jobs, live, desk)


def build_live(config: ServeConfig) -> tuple[Application, Application]:
    """Who computes for live sessions, and who lets them in: what ``live.remote`` speaks with."""
    ears = None
    if config.placement == "split":
        ears = placed(EarsReplica, "LiveEars", config.live.ears.stage).bind(config)
    live = placed(LiveReplica, "Live", config.live.stage).bind(config, ears)
    return live, placed(DeskReplica, "LiveDesk", DESK_STAGE).bind(config)


def build_converter(config: ServeConfig) -> Application:
    """The part that carries out orders: its handle is what ``dispatch.ServeConversions`` wants."""
    stages: dict[str, Application] | None = None
    if config.placement == "split":
        stages = {
            "content": placed(ContentReplica, "ContentEncoder", config.content).bind(config),
            "pitch": placed(PitchReplica, "PitchExtractor", config.pitch).bind(config),
            "acoustic": placed(AcousticReplica, "AcousticModel", config.acoustic).bind(config),
            "vocoder": placed(VocoderReplica, "Vocoder", config.vocoder).bind(config),
        }
    converter = placed(ConverterReplica, "Converter", config.converter, queued=config.limits.queued)
    return converter.bind(config, stages)


def placed(replica: type, name: str, stage: StageConfig, *, queued: int = -1) -> serve.Deployment:
    """A deployment placed as ``stage`` says; ``queued``: calls that may wait at each caller, -1 for any number."""
    actor: dict[str, Any] = {"num_cpus": stage.cpus, "num_gpus": stage.gpus}
    if stage.labels:
        actor["label_selector"] = stage.labels
    options: dict[str, Any] = {
        "name": name,
        "max_ongoing_requests": stage.concurrency,
        "max_queued_requests": queued,
        "ray_actor_options": actor,
        "max_surge_percent": stage.surge_percent,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": SHUTDOWN_SECONDS,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
    }
    if stage.most_replicas > stage.replicas:
        options["autoscaling_config"] = {
            "min_replicas": stage.replicas,
            "max_replicas": stage.max_replicas,
            "target_ongoing_requests": stage.target_ongoing,
            "upscale_delay_s": 10.0,
            "downscale_delay_s": 300.0,
        }
    else:
        options["num_replicas"] = stage.replicas
    deployment: serve.Deployment = serve.deployment(**options)(replica)
    return deployment
