"""What a pickle in a weight file may name and make: plain values, built by code of this module.

Three kinds of names are known: those that build tensors and numbers, those of harmless bookkeeping objects (``INERT``),
which become :class:`Inert` values, and all others, which are refused. Nothing is ever imported for a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from rocktop_ray.errors import UnsafeFileError, VoiceFormatError

INERT = (
    "argparse.Namespace",
    "fairseq.",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "omegaconf.",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "torch.device",
    "typing.Any",
)
"""Names that become :class:`Inert`: nothing is imported for them. One that ends in a dot stands for a whole package.

fairseq's Dictionary and the omegaconf containers are in HuBERT checkpoints, Namespace and paths in training state.
"""

_DTYPES = {
    name: getattr(torch, name)
    for name in ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")
}
STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "BoolStorage": torch.bool,
}


@dataclass
class Inert:
    """What stands for an object whose class was not loaded: its name, and its attributes as plain data."""

    name: str
    state: Any = None


@dataclass(frozen=True)
class Name:
    """A name that the file mentions. Nothing is imported for it."""

    name: str


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors look at: ``count`` of them, found under ``key``."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor to be made: a view of a storage, in numbers of its type."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class NumpyType:
    """A numpy dtype, as its code and byte order."""

    code: str
    order: str = "<"


_TENSOR_BUILDERS = frozenset(
    f"torch._utils.{name}"
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
)
_DICT_NAMES = frozenset(("collections.OrderedDict", "collections.defaultdict", "collections.Counter"))
_LIST_NAMES = frozenset(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "frozenset"))
_NUMBER_NAMES = frozenset(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"))
_OTHER_NAMES = frozenset(
    ("_codecs.encode", "numpy.dtype", "torch.Size", "builtins.dict", "builtins.list", "builtins.int", "builtins.float")
)
_KNOWN = _TENSOR_BUILDERS | _DICT_NAMES | _LIST_NAMES | _NUMBER_NAMES | _OTHER_NAMES


def _inert(name: str) -> bool:
    return any(name.startswith(entry) if entry.endswith(".") else name == entry for entry in INERT)


def known(module: Any, name: Any) -> Any:
    """The token for a global, or UnsafeFileError."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise UnsafeFileError("asks for something that has no name. It was not loaded")
    full = f"{module}.{name}"
    parent, _, last = full.rpartition(".")
    if parent == "torch" and last in _DTYPES:
        return _DTYPES[last]
    if full in _KNOWN or (parent in ("torch", "torch.cuda", "torch.storage") and last in STORAGES) or _inert(full):
        return Name(full)
    raise UnsafeFileError(f"asks for {full[:100]!r}, which a file of weights never needs. It was not loaded")


def build(name: str, arguments: tuple[Any, ...]) -> Any:
    """The value of a call of a known name. Only plain values are made, by code of this module."""
    if name in _TENSOR_BUILDERS:
        if name.endswith("_rebuild_parameter"):
            if not isinstance(arguments[0], TensorRef):
                raise VoiceFormatError("a parameter without a tensor")
            return arguments[0]
        return _tensor_ref(*arguments[:4])
    if name in _DICT_NAMES or name == "builtins.dict":
        pairs = arguments[-1] if arguments and isinstance(arguments[-1], (list, dict)) else []
        return fill({}, [part for pair in (pairs.items() if isinstance(pairs, dict) else pairs) for part in pair])
    if name in _LIST_NAMES or name == "builtins.list":
        return list(arguments[0]) if arguments else []
    if name == "torch.Size":
        return tuple(arguments[0])
    if name == "_codecs.encode":  # how protocol 2 writes bytes
        text, encoding = arguments
        if encoding not in ("latin1", "latin-1"):
            raise VoiceFormatError("bytes in an encoding other than latin1")
        return text.encode("latin1")
    if name == "numpy.dtype":
        if not isinstance(arguments[0], str):
            raise VoiceFormatError("a numpy type without a name")
        return NumpyType(arguments[0][:8])
    if name in _NUMBER_NAMES:
        return _number(*arguments)
    if _inert(name):
        return Inert(name)
    raise VoiceFormatError(f"calls {name} in an unexpected way")


def _number(kind: Any, data: Any) -> Any:
    if not isinstance(kind, NumpyType) or not isinstance(data, bytes) or kind.code.lstrip("<>=|")[:1] not in "fiub":
        raise VoiceFormatError("a numpy number of unknown type")
    dtype = np.dtype(kind.code).newbyteorder(">" if kind.order == ">" else "<")
    if dtype.itemsize != len(data):
        raise VoiceFormatError("a numpy number of the wrong size")
    return np.frombuffer(data, dtype)[0].item()


def _tensor_ref(storage: Any, offset: Any, size: Any, stride: Any) -> TensorRef:
    if not isinstance(storage, Storage):
        raise VoiceFormatError("a tensor without data")
    numbers = [offset, *size, *stride]
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers) or len(size) != len(stride):
        raise VoiceFormatError("a tensor with an impossible shape")
    count = prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # A tensor larger than its data would be cheap here and huge at the first copy.
    if len(size) > 8 or count > storage.count or (count and last >= storage.count) or offset > storage.count:
        raise VoiceFormatError(f"a tensor of shape {list(size)} does not fit its {storage.count} stored numbers")
    return TensorRef(storage, offset, tuple(size), tuple(stride))


def fill(target: Any, items: list[Any]) -> Any:
    """Set ``items`` (key, value, key, value...) in a dictionary; an inert object forgets them."""
    if isinstance(target, Inert):
        return target
    if not isinstance(target, dict) or len(items) % 2:
        raise VoiceFormatError(f"sets items of a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not (key is None or isinstance(key, (str, int, float, bytes))):
            raise VoiceFormatError(f"a dictionary key of type {type(key).__name__}")
        target[key] = value
    return target
