"""Where runs are written down: a server, a database, or the store of this machine that needs no server."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from rocktop_ray import paths
from rocktop_ray.errors import SettingsError

VARIABLE = "MLFLOW_TRACKING_URI"
OFF = "none"

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_CREDENTIALS = re.compile(r"(?<=://)[^\s/]*@")
_QUERY = re.compile(r"(?<=[\w/.:-])\?[^\s'\"<>)]*=[^\s'\"<>)]*")
_HOW = "write http(s)://host[:port], sqlite:////folder/mlflow.db, postgresql://..., a folder, or 'none'"


@dataclass(frozen=True)
class TrackingPlace:
    """A tracking store. Its repr and ``shown`` hold no secret, its ``uri`` may."""

    uri: str = field(repr=False)
    """As MLflow's client takes it."""
    shown: str
    """For people: without credentials."""
    artifacts: str = ""
    """Address of the folder for files of new experiments; empty: the server knows."""

    @property
    def remote(self) -> bool:
        """Whether a server stands between, so that files of this machine mean nothing to it."""
        return self.uri.partition(":")[0].partition("+")[0] not in _DATABASES

    def masked(self, text: object) -> str:
        """``text`` without credentials, those of this place and those in any address, and without queries."""
        found = masked(str(text))
        for secret in self._secrets():
            found = found.replace(secret, "***")
        return found

    def _secrets(self) -> list[str]:
        try:
            password = urlsplit(self.uri).password or ""
        except ValueError:
            return []
        return [secret for secret in {password, unquote(password)} if len(secret) > 3]  # shorter would be in any text


def tracking_place(uri: str = "", environment: Mapping[str, str] | None = None) -> TrackingPlace | None:
    """The store that ``uri`` names, else that of ``$MLFLOW_TRACKING_URI``, else this machine's own; ``none``: None.

    This machine's own is a SQLite file and a folder of files under ``$ROCKTOP_HOME/tracking``. Nothing is contacted or
    made yet. Raises SettingsError on what is no such address.
    """
    values = os.environ if environment is None else environment
    text = uri.strip() or values.get(VARIABLE, "").strip()
    if text.casefold() == OFF:
        return None
    if not text:
        return _embedded(paths.home() / "tracking")
    scheme = text.partition(":")[0].lower() if re.match(r"[A-Za-z][\w+.-]+:", text) else ""
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        raise SettingsError(f"the tracking URI is not well formed: {_HOW}", stage="tracking") from None
    if scheme in ("http", "https"):
        if not host or any(sign.isspace() for sign in text) or parts.query or parts.fragment:
            raise SettingsError(f"the tracking server must be http(s)://host[:port][/path]; {_HOW}", stage="tracking")
        return TrackingPlace(text.rstrip("/"), masked(text.rstrip("/")))
    if scheme.partition("+")[0] in _DATABASES:
        return _database(text, scheme)
    if scheme == "databricks" or text == "databricks":
        return TrackingPlace(text, masked(text))
    if scheme == "file":
        return _embedded(Path(url2pathname(parts.path)))
    if scheme:
        raise SettingsError(f"no tracking store has the scheme {scheme[:20]!r}: {_HOW}", stage="tracking")
    return _embedded(Path(text).expanduser())


def masked(text: str) -> str:
    """``text`` with the credentials and queries of addresses in it left out."""
    return _QUERY.sub("?...", _CREDENTIALS.sub("***@", text))


def _embedded(folder: Path) -> TrackingPlace:
    folder = folder.absolute()
    return TrackingPlace(f"sqlite:///{folder / 'mlflow.db'}", str(folder), (folder / "artifacts").as_uri())


def _database(text: str, scheme: str) -> TrackingPlace:
    """Files lie beside a SQLite file; with other databases, in this machine's own folder."""
    folder = paths.home() / "tracking"
    if scheme.startswith("sqlite"):
        path = text.partition("://")[2].partition("?")[0].removeprefix("/")
        if not path:
            raise SettingsError(f"the tracking database has no file: {_HOW}", stage="tracking")
        place = Path(path).absolute()
        text, folder = f"{text.partition('://')[0]}:///{place}", place.parent
    return TrackingPlace(text, masked(text), (folder / "artifacts").absolute().as_uri())
