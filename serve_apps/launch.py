"""Where and how to serve: a file of settings, and what the command line says over it."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rocktop_ray.errors import RocktopError, SettingsError, storage_errors
from rocktop_ray.store.catalogue import lookup
from rocktop_ray.store.fetch import location
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import open_storage
from rocktop_ray.voices.names import BUNDLE
from serve_apps.config import ServeConfig
from serve_apps.requests import field_problems
from serve_apps.spool import Spool

HOST, PORT = "127.0.0.1", 8000
BUILDER = "serve_apps.app:build_app"

_STORE_SECONDS = 5.0
_BUNDLE_NEEDS = ("whisper-base-encoder", "fcpe")

_SERVE_KEYS = ("applications", "http_options", "logging_config")
_CLUSTER_KEYS = ("proxy_location", "grpc_options", "controller_options", "tracing_config", "target_capacity")
"""What a Serve config file may say besides: of no use on one machine, and passed over."""

Seconds = Annotated[float, Field(ge=0)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpOptions(_Options):
    """``http_options`` of a Serve config file. Serve itself would pass over names that it does not know."""

    host: str = HOST
    port: Annotated[int, Field(ge=1, le=65535)] = PORT
    root_path: str = ""
    request_timeout_s: Seconds | None = None
    keep_alive_timeout_s: Seconds = 90.0
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile_password: str | None = None
    ssl_ca_certs: str | None = None


class LogOptions(_Options):
    """``logging_config`` of a Serve config file: Serve's own log. Ours is always JSON, in the replicas' stderr."""

    encoding: Literal["TEXT", "JSON"] = "TEXT"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "WARNING"
    logs_dir: str | None = None
    enable_access_log: bool = False
    additional_log_standard_attrs: list[str] = []


@dataclass(frozen=True)
class Launch:
    """What ``rocktop-serve`` needs to know."""

    config: ServeConfig
    host: str = HOST
    port: int = PORT
    http: dict[str, Any] = field(default_factory=dict)
    """Serve's other HTTP options."""
    logging: dict[str, Any] = field(default_factory=dict)
    """Serve's ``LoggingConfig``."""


def read_launch(
    path: Path | None = None, *, host: str | None = None, port: int | None = None, placement: str | None = None
) -> Launch:
    """The settings of ``path``, a Serve config file with our application or the bare settings, and over them the rest.

    Raises SettingsError, which names the file and the field.
    """
    data = {} if path is None else _read(path)
    options: dict[str, Any] = {}
    if path is not None and "applications" in data:
        for name in data.keys() - {*_SERVE_KEYS, *_CLUSTER_KEYS}:
            raise SettingsError(f"{path}: {name}: unknown; known are {', '.join(_SERVE_KEYS + _CLUSTER_KEYS)}")
        options, data = data, _arguments(data["applications"], path)
    if placement is not None:
        data = {**data, "placement": placement}
    where = f"{path}: " if path is not None and placement is None else ""
    http = _checked(HttpOptions, options.get("http_options"), where, "http_options.")
    log = _checked(LogOptions, options.get("logging_config"), where, "logging_config.")
    return Launch(
        _checked(ServeConfig, data, where),
        host or http.host,
        port or http.port,
        http.model_dump(exclude={"host", "port"}, exclude_unset=True) | {"request_timeout_s": http.request_timeout_s},
        log.model_dump(),
    )


_Model = TypeVar("_Model", bound=BaseModel)


def _checked(model: type[_Model], data: Any, where: str, section: str = "") -> _Model:
    try:
        return model.model_validate({} if data is None else data)
    except ValidationError as error:
        told = "; ".join(f"{section}{found['field']}: {found['message']}" for found in field_problems(error, model))
        raise SettingsError(f"{where}{told}") from error


def _read(path: Path) -> dict[str, Any]:
    with storage_errors(path, "read"):
        text = path.read_text("utf-8", errors="replace")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise SettingsError(f"{path} is not YAML: {told}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{path} holds no settings: a YAML of names and values is expected")
    return data


def _arguments(applications: Any, path: Path) -> dict[str, Any]:
    for application in applications if isinstance(applications, list) else []:
        if isinstance(application, dict) and application.get("import_path") == BUILDER:
            if "deployments" in application:
                raise SettingsError(f"{path}: applications.deployments: say it in args, e.g. gateway: {{replicas: 2}}")
            arguments = application.get("args") or {}
            if not isinstance(arguments, dict):
                raise SettingsError(f"{path}: applications.args: names and values are expected")
            return arguments
    raise SettingsError(f"{path}: no application with import_path {BUILDER}")


def port_is_free(host: str, port: int) -> bool:
    """Whether something could listen there. Raises SettingsError for an address that is not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(address)
            except PermissionError as error:
                raise SettingsError(f"port {port} needs more rights: choose one above 1023") from error
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return False
                raise
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}: {error.strerror or error}") from error
    return True


def check_store(config: ServeConfig) -> None:
    """Raises SettingsError if the store cannot be written, before anything starts. One that is down may come back."""
    settings = replace(StorageSettings.from_environment(), read_seconds=_STORE_SECONDS, attempts=1)
    store, key = open_storage(config.store_place, settings), Spool.new_key("health")
    try:
        store.write(key, b"well")
        store.delete(key)
    except RocktopError as error:
        if not error.retryable:
            raise SettingsError(f"store: {error.message}") from error


def missing_models(config: ServeConfig) -> list[str]:
    """Weights without which the bundle's voice cannot convert, if it is to be preloaded."""
    if BUNDLE not in config.voices.preload:
        return []
    return [name for name in _BUNDLE_NEEDS if not location(lookup(name)).is_file()]
