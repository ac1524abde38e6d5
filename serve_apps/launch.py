"""Where and how to serve: a file of settings, and what the command line says over it."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rocktop_ray.errors import SettingsError, storage_errors
from serve_apps.config import ServeConfig
from serve_apps.requests import field_problems

HOST, PORT = "127.0.0.1", 8000
BUILDER = "serve_apps.app:build_app"


@dataclass(frozen=True)
class Launch:
    """What ``rocktop-serve`` needs to know."""

    config: ServeConfig
    host: str = HOST
    port: int = PORT
    http: dict[str, Any] = field(default_factory=dict)
    """Serve's other HTTP options."""


def read_launch(
    path: Path | None = None, *, host: str | None = None, port: int | None = None, placement: str | None = None
) -> Launch:
    """The settings of ``path``, a Serve config file with our application or the bare settings, and over them the rest.

    Raises SettingsError, which names the file and the field.
    """
    data = {} if path is None else _read(path)
    http: dict[str, Any] = {}
    if "applications" in data:
        http = dict(data.get("http_options") or {})
        data = _arguments(data["applications"], path)
    if placement is not None:
        data = {**data, "placement": placement}
    try:
        config = ServeConfig.model_validate(data)
    except ValidationError as error:
        problems = field_problems(error, tuple(ServeConfig.model_fields))
        where = f"{path}: " if path is not None and placement is None else ""
        told = "; ".join(f"{problem['field']}: {problem['message']}" for problem in problems)
        raise SettingsError(f"{where}{told}") from error
    http.setdefault("request_timeout_s", None)
    return Launch(config, host or http.pop("host", HOST), port or http.pop("port", PORT), http)


def _read(path: Path) -> dict[str, Any]:
    with storage_errors(path, "read"):
        text = path.read_text("utf-8", errors="replace")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{path} holds no settings: a YAML of names and values is expected")
    return data


def _arguments(applications: Any, path: Path | None) -> dict[str, Any]:
    for application in applications if isinstance(applications, list) else []:
        if isinstance(application, dict) and application.get("import_path") == BUILDER:
            arguments = application.get("args") or {}
            if isinstance(arguments, dict):
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
