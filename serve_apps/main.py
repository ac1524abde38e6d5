"""The ``rocktop-serve`` command: a Ray of its own on this machine, and the service in it, until it is told to stop."""

from __future__ import annotations

import io
import ipaddress
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from rocktop_ray.errors import RocktopError, SettingsError, StageLostError
from serve_apps.config import ServeConfig
from serve_apps.gateway.keys import keys_app
from serve_apps.launch import Launch, check_store, missing_models, port_is_free, read_launch
from serve_apps.nursery import nurse

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(keys_app, name="keys")

_OBJECT_STORE = 512 << 20
"""Bytes of shared memory; only split placement uses it much."""
_LOOK_SECONDS = 1.0
"""Between two looks whether Ray still runs."""


def main() -> None:
    """Entry point of the console command."""
    try:
        app()
    except RocktopError as error:
        typer.echo(f"error: {error.message}", err=True)
        sys.exit(error.exit_code)


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default 8000.", min=1, max=65535)] = None,
    config: Annotated[Path | None, typer.Option(help="Settings: a Serve config file, or its args alone.")] = None,
    placement: Annotated[str | None, typer.Option(help="fused: one replica; split: a deployment per stage.")] = None,
    dashboard: Annotated[bool, typer.Option(help="Start Ray's dashboard, on this machine only.")] = True,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the logs of all replicas.")] = False,
) -> None:
    """Serve the studio page and the HTTP API from this machine, until Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    os.umask(0o077)  # takes, results, logs, and Ray's token, which Ray itself writes for all to read
    launch = read_launch(config, host=host, port=port, placement=placement)
    if not port_is_free(launch.host, launch.port):
        raise SettingsError(f"port {launch.port} of {launch.host} is in use: choose another one with --port")
    if not _loopback(launch.host) and launch.config.security.keys is None:
        typer.echo(
            f"warning: everybody who reaches {launch.host}:{launch.port} may use this service; "
            "make keys with 'rocktop-serve keys add' and set security.keys",
            err=True,
        )
    check_store(launch.config)
    if missing := missing_models(launch.config):
        typer.echo(
            f"warning: the bundle's voice cannot convert without {' and '.join(missing)}; "
            "run: rocktop models fetch bundle",
            err=True,
        )
    with _until_told() as stop:
        _run(launch, stop, dashboard=dashboard, verbose=verbose)


def _run(launch: Launch, stop: threading.Event, *, dashboard: bool, verbose: bool) -> None:
    began = time.monotonic()
    _environment()
    _say(f"starting Ray (placement {launch.config.placement}) ...")
    import ray
    from ray import serve

    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.ERROR)
    try:
        context = ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, math.ceil(_reserved(launch.config))),
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            object_store_memory=_OBJECT_STORE,
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
        )
        _handle_signals(stop)  # Ray has put a handler of its own in place
        _unless(stop)
        http = {**launch.http, "host": launch.host, "port": launch.port}
        serve.start(http_options=http, logging_config=launch.logging)
        _say("loading the models ...")
        from serve_apps.app import build_app

        _unless(stop)
        try:
            serve.run(build_app(launch.config), name="rocktop", route_prefix="/", logging_config=launch.logging)
        except RuntimeError as error:
            raise StageLostError(f"the service could not be started: {error}", retryable=False) from error
        _tell(launch, context.dashboard_url if dashboard else None, time.monotonic() - began)
        nurse()
        _wait(stop)
    finally:
        if stop.is_set():
            _say("stopping ...")  # which takes some seconds; a second Ctrl-C changes nothing
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # Ray complains of what it ends itself
            if ray.is_initialized():
                serve.shutdown()
            ray.shutdown()  # also of a Ray that was interrupted while it started


def _wait(stop: threading.Event) -> None:
    """Until somebody sets ``stop``. Raises StageLostError when Ray is gone, as nothing would serve then."""
    lost = threading.Event()
    threading.Thread(target=_look_after_ray, args=(lost,), daemon=True).start()
    while not stop.wait(_LOOK_SECONDS):
        if lost.is_set():
            raise StageLostError("Ray has ended unexpectedly (its logs are in /tmp/ray): start rocktop-serve again")


def _look_after_ray(lost: threading.Event) -> None:
    """Sets ``lost`` when this machine's Ray node is dead. In a thread of its own, as a question may hang."""
    import ray
    from ray.exceptions import RayError

    while not lost.wait(_LOOK_SECONDS):
        try:
            if not ray.is_initialized():
                return
            alive = any(node["Alive"] for node in ray.nodes())
        except (RayError, RuntimeError):
            alive = False
        if not alive:
            lost.set()


def _environment() -> None:
    """Settings of Ray that it reads from the environment; what the user has set stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray starts its workers at nice 15, behind whatever else runs: a live block waits there longer than it computes.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Serve kills a proxy that is not up in 5 s, as on a slow or busy machine, and its start then fails.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    # Only the proxy sees that a client does not read; by itself it waits for ever while answers pile up.
    os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serve_apps.deaf.middlewares")
    # No cluster is meant, only this machine: Ray then listens on loopback. The name tells where Ray does so by default.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Replicas of Serve listen on all addresses all the same, and whoever reaches Ray's ports could run code. So Ray
    # shall ask for the token in ~/.ray/auth_token, as it does for any cluster that a program starts.
    os.environ.setdefault("RAY_AUTH_MODE", "token")


def _reserved(config: ServeConfig) -> float:
    """CPUs that the deployments reserve: book-keeping, which must not keep them from starting on a small machine."""
    stages = [config.gateway, config.converter]
    if config.placement == "split":
        stages += [config.content, config.pitch, config.acoustic, config.vocoder]
    live = 2 * config.live.cpus * config.live.replicas  # an update starts new ones beside the old
    if config.placement == "split":
        live += 2 * config.live.ears.cpus * config.live.ears.replicas
    return sum(stage.cpus * stage.most_replicas for stage in stages) + live + 1


def _tell(launch: Launch, dashboard: str | None, seconds: float) -> None:
    address = f"http://{_shown(launch.host)}:{launch.port}"
    _say(f"ready after {seconds:.0f} s")
    _say(f"  studio     {address}/")
    _say(f"  API        {address}/docs")
    _say(f"  metrics    {address}/metrics")
    if dashboard:
        _say(f"  dashboard  http://{dashboard}/")
        if os.environ["RAY_AUTH_MODE"] == "token":
            _say("             asks for a token: 'ray get-auth-token'; in a shell:")
            _say(f"             RAY_AUTH_MODE=token serve status -a http://{dashboard}")
    _say("stop with Ctrl-C")


def _say(text: str) -> None:
    typer.echo(text)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(host: str) -> str:
    """An address that a browser of this machine opens."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - what was asked for
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; before it is waited for they interrupt, so that starting can be stopped."""
    stop = threading.Event()
    _handle_signals(stop)
    told, sys.unraisablehook = sys.unraisablehook, _tell_unraisable
    try:
        yield stop
    except KeyboardInterrupt:
        _say("stopped")
    finally:
        sys.unraisablehook = told


def _tell_unraisable(found: Any) -> None:
    """Python's report of an exception in a callback of its own; not of an interrupt, which ``_unless`` looks after."""
    if found.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(found)


def _unless(stop: threading.Event) -> None:
    """Interrupts if somebody asked for it while no exception could be raised: in a callback of the interpreter."""
    if stop.is_set():
        raise KeyboardInterrupt


def _handle_signals(stop: threading.Event) -> None:
    def told(number: int, frame: Any) -> None:
        if stop.is_set():
            return
        stop.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, told)
