"""Read foreign weight files without running anything from them.

``torch.save`` files, zip or the older stream, go through ``pickle_machine``; safetensors through ``safetensors_file``.
Sizes that a file declares are checked before memory is taken for them.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Collection
from math import prod
from pathlib import Path
from typing import IO, Any, TypeVar

import torch

from rocktop_ray.errors import UnsafeFileError, VoiceFormatError, VoiceNotFoundError, storage_error
from rocktop_ray.voices.pickle_machine import MAX_PICKLE, Machine
from rocktop_ray.voices.pickle_values import Inert, Name, NumpyType, Storage, TensorRef
from rocktop_ray.voices.safetensors_file import MAX_HEADER, read_bytes, read_metadata, read_safetensors

__all__ = ["MAX_BYTES", "Inert", "is_safetensors", "load_metadata", "load_pickle_tensors", "load_safetensors"]

MAX_BYTES = 2 << 30
"""Default bound on the tensors of one file: twice the largest encoder in use, with room for training state."""
_T = TypeVar("_T")
_MAX_DEPTH = 64
_MAX_VALUES = 1 << 20
_MAX_ENTRIES = 65_536
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, EOFError, RecursionError, struct.error)
"""What reading damaged data runs into."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def load_pickle_tensors(path: str | Path, *, max_bytes: int = MAX_BYTES, skip: Collection[str] = ()) -> dict[Any, Any]:
    """The dictionary in a ``torch.save`` file (zip or the older stream format), tensors on the CPU.

    Values are plain data: dict, list, tuple, str, bytes, numbers, None, CPU tensors, and :class:`Inert`. Top-level
    keys in ``skip`` are left out, and their tensors are not read. Raises UnsafeFileError if the file asks for code,
    VoiceFormatError if it is no readable weight file or holds more than ``max_bytes`` of tensors, VoiceNotFoundError if
    there is no such file, StorageError if the disk refuses.
    """
    path = Path(path)
    with _open(path) as file:
        start = file.read(4)
        file.seek(0)
        try:
            if start[:2] == b"PK":
                root, storages = _read_zip(file, max_bytes)
            elif start[:1] == b"\x80":
                root, storages = _read_legacy(file, max_bytes)
            else:
                raise VoiceFormatError(_what_it_is(file))
            if not isinstance(root, dict):
                raise VoiceFormatError(f"holds a {type(root).__name__}, expected a dictionary of tensors")
            kept = {key: value for key, value in root.items() if key not in skip}
            result = _Materialiser(storages, max_bytes).value(kept, 0)
        except (UnsafeFileError, VoiceFormatError) as error:
            raise type(error)(f"{path.name}: {error.message}") from error
        except _DAMAGE as error:
            raise VoiceFormatError(f"{path.name}: damaged or cut off: {_short(error)}") from error
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
        ) as error:  # RuntimeError: encrypted, or torch refused
            raise VoiceFormatError(f"{path.name}: damaged or cut off: {_short(error)}") from error
        except MemoryError as error:
            raise VoiceFormatError(f"{path.name}: needs more memory than there is") from error
        except OSError as error:
            raise storage_error(error, path, "read") from error
    assert isinstance(result, dict)
    return result


def load_safetensors(path: str | Path, *, max_bytes: int = MAX_BYTES) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the string metadata of a ``.safetensors`` file.

    Header length, offsets, shapes and types are checked against the file's size before any tensor is made. Raises
    VoiceFormatError, VoiceNotFoundError or StorageError.
    """
    return _parsed(Path(path), lambda file: read_safetensors(file, max_bytes))


def load_metadata(path: str | Path) -> dict[str, str]:
    """Only the string metadata of a ``.safetensors`` file. Raises as ``load_safetensors``."""
    return _parsed(Path(path), read_metadata)


def is_safetensors(path: str | Path) -> bool:
    """Whether the file starts like safetensors: a length, then a JSON object."""
    with _open(Path(path)) as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER


def _parsed(path: Path, parse: Callable[[IO[bytes]], _T]) -> _T:
    with _open(path) as file:
        try:
            return parse(file)
        except VoiceFormatError as error:
            raise VoiceFormatError(f"{path.name}: {error.message}") from error
        except (ValueError, KeyError, TypeError, OverflowError, EOFError, RecursionError) as error:
            raise VoiceFormatError(f"{path.name}: not a safetensors file: {_short(error)}") from error
        except MemoryError as error:
            raise VoiceFormatError(f"{path.name}: needs more memory than there is") from error
        except OSError as error:
            raise storage_error(error, path, "read") from error


def _open(path: Path) -> IO[bytes]:
    try:
        if path.is_dir():
            raise VoiceFormatError(f"{path} is a folder, expected a file")
        if not path.exists():
            raise VoiceNotFoundError(f"no such file: {path}")
        if not path.is_file():
            raise VoiceFormatError(f"{path} is not an ordinary file")
        return path.open("rb")
    except OSError as error:
        raise storage_error(error, path, "open") from error
    except ValueError as error:  # a NUL byte in the name
        raise VoiceNotFoundError(f"no such file: {path!r}") from error


def _what_it_is(file: IO[bytes]) -> str:
    """What people have in place of the weights they meant to download."""
    start = file.read(512).lstrip()
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the weights: run 'git lfs pull', or download the file itself"
    if start[:1] == b"<":
        return "a web page, not weights: download the file itself"
    return "neither a zip nor a pickle: not a file written by torch.save"


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__


# --- the two containers of torch.save ------------------------------------------------------------------------------

_StorageReader = Callable[["Storage"], torch.Tensor]


def _read_zip(file: IO[bytes], max_bytes: int) -> tuple[Any, _StorageReader]:
    archive = zipfile.ZipFile(file)
    entries = archive.infolist()
    names = {entry.filename for entry in entries}
    if len(entries) > _MAX_ENTRIES or len(names) != len(entries):
        raise VoiceFormatError("its zip has too many or repeated entries")
    if sum(entry.file_size for entry in entries) > max_bytes:
        raise VoiceFormatError(f"unpacks to more than the {max_bytes} bytes that are allowed")
    size = file.seek(0, io.SEEK_END)
    if sum(entry.compress_size for entry in entries) > size:
        raise VoiceFormatError("its zip entries overlap")
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise VoiceFormatError("a zip, but not one written by torch.save (no data.pkl in it)")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise UnsafeFileError("a TorchScript program, not weights. It was not loaded")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise VoiceFormatError("written on a big-endian machine, which is not supported")
    if archive.getinfo(pickles[0]).file_size > MAX_PICKLE:
        raise VoiceFormatError("its data.pkl is too large")

    def read(storage: Storage) -> torch.Tensor:
        name = f"{root}data/{storage.key}"
        if name not in names:
            raise VoiceFormatError(f"its tensor data {storage.key!r} is missing")
        if archive.getinfo(name).file_size != storage.count * storage.dtype.itemsize:
            raise VoiceFormatError(f"its tensor data {storage.key!r} has the wrong size")
        with archive.open(name) as stream:
            data = read_bytes(stream, storage.count * storage.dtype.itemsize)
            stream.read(1)  # the end of the entry, where zipfile compares the checksum
        return data

    return Machine(io.BytesIO(archive.read(pickles[0]))).run(), read


def _read_legacy(file: IO[bytes], max_bytes: int) -> tuple[Any, _StorageReader]:
    stream = _Stream(file)
    if Machine(stream).run() != _LEGACY_MAGIC or Machine(stream).run() != _LEGACY_PROTOCOL:
        raise VoiceFormatError("a pickle, but not one written by torch.save")
    system = Machine(stream).run()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise VoiceFormatError("written on a big-endian machine, which is not supported")
    machine = Machine(stream)
    root = machine.run()
    keys = Machine(stream).run()
    data: dict[str, torch.Tensor] = {}
    total = 0
    for key in keys:
        storage = machine.storages[key]
        count = int.from_bytes(stream.read(8), "little")
        total += count * storage.dtype.itemsize
        if count != storage.count or total > max_bytes:
            raise VoiceFormatError(
                f"its tensor data {key!r} has the wrong size, or there is more than {max_bytes} bytes"
            )
        data[key] = read_bytes(stream, count * storage.dtype.itemsize)  # type: ignore[arg-type]
    return root, lambda storage: data[storage.key]


class _Stream:
    """A file that refuses at once to read past its end, whatever length the data asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def tell(self) -> int:
        return self.file.tell()

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.size - self.file.tell():
            raise EOFError("the file ends too early")
        return self.file.read(count)

    def readline(self) -> bytes:
        return self.file.readline(1 << 16)


class _Materialiser:
    """Turns the machine's value into plain data with tensors; storages are read once, when first used."""

    def __init__(self, read: _StorageReader, max_bytes: int) -> None:
        self.read = read
        self.left = max_bytes
        self.max_bytes = max_bytes
        self.storages: dict[str, torch.Tensor] = {}
        self.done: dict[int, tuple[Any, int]] = {}  # with the number of values in it
        self.active: set[int] = set()
        self.values = 0

    def value(self, value: Any, depth: int) -> Any:
        before, self.values = self.values, self.values + 1
        if not isinstance(value, (dict, list, tuple, Inert, TensorRef, Name, Storage, NumpyType)):
            return value
        if id(value) in self.done:
            made, count = self.done[id(value)]
            self.values = before + count
            self._bound()
            return made
        if id(value) in self.active or depth > _MAX_DEPTH:
            raise VoiceFormatError("its data contains itself, or is nested too deeply")
        self.active.add(id(value))
        if isinstance(value, TensorRef):
            made = self._tensor(value)
        elif isinstance(value, dict):
            made = {key: self.value(item, depth + 1) for key, item in value.items()}
        elif isinstance(value, (list, tuple)):
            made = type(value)([self.value(item, depth + 1) for item in value])
        elif isinstance(value, Inert):
            made = Inert(value.name, self.value(value.state, depth + 1))
        else:
            made = Inert(value.name if isinstance(value, Name) else type(value).__name__)
        self.active.discard(id(value))
        self.done[id(value)] = made, self.values - before
        self._bound()
        return made

    def _bound(self) -> None:
        """Lists that hold one list many times are small here and endless for whoever walks through them."""
        if self.values > _MAX_VALUES:
            raise VoiceFormatError(f"its data holds more than {_MAX_VALUES} values")

    def _tensor(self, ref: TensorRef) -> torch.Tensor:
        self.left -= prod(ref.size) * ref.storage.dtype.itemsize
        if self.left < 0:
            raise VoiceFormatError(f"more than the {self.max_bytes} bytes of tensors that are allowed")
        if ref.storage.key not in self.storages:
            self.storages[ref.storage.key] = self.read(ref.storage).view(ref.storage.dtype)
        return self.storages[ref.storage.key].as_strided(ref.size, ref.stride, ref.offset)
