"""Files of clients under the clients' own names, and errors that tell nothing of where the server keeps things."""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rocktop_ray.errors import RocktopError, storage_errors

_LONGEST = 120


def clean_label(label: str, default: str = "file") -> str:
    """The last part of a file's name as a client gave it, safe as a file's name here and in a message."""
    last = re.split(r"[/\\]", label)[-1]
    shown = "".join(c for c in last if unicodedata.category(c)[0] != "C").strip()
    while len(shown.encode()) > _LONGEST:
        shown = shown[1:]  # the ending says what it is
    return shown.lstrip(".").strip() or default


def url_label(url: str, default: str = "file") -> str:
    """The name of the file behind an address, without anything of its query."""
    if url[:5].lower() == "data:":
        return default
    try:
        return clean_label(unquote(urlsplit(url).path, errors="replace"), default)
    except ValueError:
        return default


@contextmanager
def labelled(*files: tuple[Path, str]) -> Iterator[list[Path]]:
    """Each file, seen under its label alone in a folder of its own: readers name it so, and find nothing beside it."""
    with storage_errors("the temporary folder"):
        folder = tempfile.TemporaryDirectory(prefix="rocktop-")
    with folder as name:
        links = []
        for number, (path, label) in enumerate(files):
            link = Path(name, str(number), clean_label(label))
            with storage_errors("the temporary folder"):
                link.parent.mkdir()
                link.symlink_to(path.absolute())
            links.append(link)
        yield links


@contextmanager
def hiding(places: dict[str, str]) -> Iterator[None]:
    """Errors that leave the block do not show the given folders and addresses (each with a word to say instead), nor
    temporary folders."""
    try:
        yield
    except RocktopError as error:
        shown = hide(error.message, places)
        if shown != error.message:
            error.message, error.args = shown, (shown, *error.args[1:])
        raise


def hide(text: str, places: dict[str, str]) -> str:
    """``text`` without the names of ``places``."""
    temporary = re.escape(tempfile.gettempdir())
    text = re.sub(temporary + r"/rocktop-[^/\s]+/(?:\d+/)?", "", text)
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(f"{place}/", "").replace(f" {places[place]} {place}", f" {places[place]}")
        text = text.replace(place, places[place])
    return text
