"""A machine for the pickles in weight files: it makes plain data, imports nothing and calls nothing that a file names.

A name in the file is looked up in the tables below, never in Python. Three kinds are known: those that build tensors
and numbers, those of harmless bookkeeping objects (``INERT``), which become :class:`Inert` values, and all others,
which are refused.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch

from rocktop_ray.errors import UnsafeFileError, VoiceFormatError

MAX_PICKLE = 64 << 20
"""Longest pickle in bytes."""
_MAX_OPS = 4_000_000

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
_STORAGES = {
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


@dataclass
class Machine:
    """Runs one pickle and gives its value, with :class:`TensorRef` for tensors.

    Handles the opcodes of protocols 0 to 5 that plain data and tensors need. Calls (REDUCE, NEWOBJ) go to
    :func:`_build`, which knows a fixed set of names.
    """

    stream: Any
    storages: dict[str, Storage] = field(default_factory=dict)

    def run(self) -> Any:
        """The value. Raises UnsafeFileError or VoiceFormatError, or ValueError, IndexError... if damaged."""
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}
        begin = self.stream.tell()

        def since_mark() -> list[Any]:
            at = marks.pop()
            items = stack[at:]
            del stack[at:]
            return items

        arg: Any
        for number, (opcode, arg, position) in enumerate(pickletools.genops(self.stream)):
            if number > _MAX_OPS or (position or 0) - begin > MAX_PICKLE:
                raise VoiceFormatError("its pickle is too long")
            op = opcode.name
            if op in _CONSTANTS:
                stack.append(_CONSTANTS[op])
            elif op in _LITERALS:
                stack.append(arg)
            elif op in ("PROTO", "FRAME"):
                continue
            elif op == "STOP":
                return stack.pop()
            elif op == "MARK":
                marks.append(len(stack))
            elif op in ("POP", "POP_MARK"):
                since_mark() if op == "POP_MARK" else stack.pop()
            elif op == "DUP":
                stack.append(stack[-1])
            elif op in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if op == "MEMOIZE" else arg] = stack[-1]
            elif op in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[arg])
            elif op == "EMPTY_DICT":
                stack.append({})
            elif op in ("EMPTY_LIST", "EMPTY_SET"):  # a set is kept as a list: nothing here is looked up in it
                stack.append([])
            elif op == "LIST":
                stack.append(since_mark())
            elif op in ("TUPLE", "FROZENSET"):
                stack.append(tuple(since_mark()))
            elif op in ("TUPLE1", "TUPLE2", "TUPLE3"):
                items = _pop(stack, int(op[-1]))
                stack.append(tuple(items))
            elif op == "DICT":
                items = since_mark()
                stack.append(_fill({}, items))
            elif op == "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            elif op in ("APPENDS", "ADDITEMS"):
                items = since_mark()
                _extend(stack[-1], items)
            elif op == "SETITEM":
                items = _pop(stack, 2)
                _fill(stack[-1], items)
            elif op == "SETITEMS":
                items = since_mark()
                _fill(stack[-1], items)
            elif op == "GLOBAL":
                stack.append(_known(*arg.split(" ", 1)))
            elif op == "STACK_GLOBAL":
                stack.append(_known(*_pop(stack, 2)))
            elif op in ("REDUCE", "NEWOBJ"):
                called, arguments = _pop(stack, 2)
                if not isinstance(called, Name) or not isinstance(arguments, tuple):
                    raise UnsafeFileError(f"calls a {type(called).__name__}. It was not loaded")
                stack.append(_build(called.name, arguments))
            elif op == "BUILD":
                state = stack.pop()
                _set_state(stack[-1], state)
            elif op == "BINPERSID":
                stack.append(self._storage(stack.pop()))
            else:
                raise UnsafeFileError(f"uses the pickle operation {op}, which weights never need. It was not loaded")
        raise EOFError("the pickle has no end")

    def _storage(self, identity: Any) -> Storage:
        kind, storage_type, key, _, count = identity[:5]
        if kind != "storage" or not isinstance(storage_type, Name) or not isinstance(key, str):
            raise VoiceFormatError("refers to data in an unknown way")
        dtype = _STORAGES.get(storage_type.name.rpartition(".")[2])
        if dtype is None:
            raise VoiceFormatError(f"has tensors of type {storage_type.name}, which is not supported")
        if type(count) is not int or not 0 <= count < 1 << 40 or (len(identity) > 5 and identity[5] is not None):
            raise VoiceFormatError(f"its tensor data {key[:40]!r} has an impossible size")
        storage = Storage(key, dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise VoiceFormatError(f"its tensor data {key[:40]!r} is described in two ways")
        return storage


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = frozenset(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"))
_TEXTS = frozenset(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"))
_BYTES = frozenset(("STRING", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"))
_LITERALS = _NUMBERS | _TEXTS | _BYTES
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


def _known(module: Any, name: Any) -> Any:
    """The token for a global, or UnsafeFileError."""
    full = f"{module}.{name}"
    parent, _, last = full.rpartition(".")
    if parent == "torch" and last in _DTYPES:
        return _DTYPES[last]
    if full in _KNOWN or (parent in ("torch", "torch.cuda", "torch.storage") and last in _STORAGES) or _inert(full):
        return Name(full)
    raise UnsafeFileError(f"asks for {full[:100]!r}, which a file of weights never needs. It was not loaded")


def _build(name: str, arguments: tuple[Any, ...]) -> Any:
    """The value of a call of a known name. Only plain values are made, by code of this module."""
    if name in _TENSOR_BUILDERS:
        if name.endswith("_rebuild_parameter"):
            if not isinstance(arguments[0], TensorRef):
                raise VoiceFormatError("a parameter without a tensor")
            return arguments[0]
        return _tensor_ref(*arguments[:4])
    if name in _DICT_NAMES or name == "builtins.dict":
        pairs = arguments[-1] if arguments and isinstance(arguments[-1], (list, dict)) else []
        return _fill({}, [part for pair in (pairs.items() if isinstance(pairs, dict) else pairs) for part in pair])
    if name in _LIST_NAMES or name == "builtins.list":
        return list(arguments[0]) if arguments else []
    if name == "torch.Size":
        return tuple(arguments[0])
    if name == "_codecs.encode":  # how protocol 2 writes bytes
        text, encoding = arguments
        if encoding not in ("latin1", "latin-1"):
            raise VoiceFormatError(f"bytes in encoding {str(encoding)[:20]!r}")
        return text.encode("latin1")
    if name == "numpy.dtype":
        return NumpyType(str(arguments[0])[:8])
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


def _pop(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise IndexError("pickle stack underflow")
    items = stack[-count:]
    del stack[-count:]
    return items


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Inert):
        raise VoiceFormatError(f"appends to a {type(target).__name__}")


def _fill(target: Any, items: list[Any]) -> Any:
    if isinstance(target, Inert):
        return target
    if not isinstance(target, dict) or len(items) % 2:
        raise VoiceFormatError(f"sets items of a {type(target).__name__}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not (key is None or isinstance(key, (str, int, float, bytes))):
            raise VoiceFormatError(f"a dictionary key of type {type(key).__name__}")
        target[key] = value
    return target


def _set_state(target: Any, state: Any) -> None:
    """BUILD: keep the state of inert objects and of numpy types, drop that of dictionaries (``_metadata``)."""
    if isinstance(target, Inert):
        target.state = state
    elif isinstance(target, NumpyType):
        target.order = str(state[1])
    elif not isinstance(target, (dict, TensorRef)):
        raise UnsafeFileError(f"sets the state of a {type(target).__name__}. It was not loaded")
