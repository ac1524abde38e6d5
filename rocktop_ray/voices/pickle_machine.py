"""A machine for the pickles in weight files: it makes plain data, imports nothing and calls nothing that a file names.

It knows the opcodes that plain data and tensors need; what names stand for is decided in ``pickle_values``.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any

from rocktop_ray.errors import UnsafeFileError, VoiceFormatError
from rocktop_ray.voices.pickle_values import STORAGES, Inert, Name, NumpyType, Storage, TensorRef, build, fill, known

MAX_PICKLE = 64 << 20
"""Longest pickle in bytes."""
_MAX_OPS = 4_000_000
_MAX_BITS = 256


@dataclass
class Machine:
    """Runs one pickle and gives its value, with :class:`TensorRef` for tensors.

    Handles the opcodes of protocols 0 to 5 that plain data and tensors need. Calls (REDUCE, NEWOBJ) go to
    :func:`build`, which knows a fixed set of names.
    """

    stream: Any
    storages: dict[str, Storage] = field(default_factory=dict)
    copied: int = 0
    """Bytes that calls copied, about: a short pickle may ask for copies of one long list without end."""

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
                if isinstance(arg, int) and arg.bit_length() > _MAX_BITS:
                    raise VoiceFormatError(f"a number of {arg.bit_length()} bits")
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
                stack.append(fill({}, items))
            elif op == "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            elif op in ("APPENDS", "ADDITEMS"):
                items = since_mark()
                _extend(stack[-1], items)
            elif op == "SETITEM":
                items = _pop(stack, 2)
                fill(stack[-1], items)
            elif op == "SETITEMS":
                items = since_mark()
                fill(stack[-1], items)
            elif op == "GLOBAL":
                stack.append(known(*arg.split(" ", 1)))
            elif op == "STACK_GLOBAL":
                stack.append(known(*_pop(stack, 2)))
            elif op in ("REDUCE", "NEWOBJ"):
                called, arguments = _pop(stack, 2)
                if not isinstance(called, Name) or not isinstance(arguments, tuple):
                    raise UnsafeFileError(f"calls a {type(called).__name__}. It was not loaded")
                self._count(arguments)
                stack.append(build(called.name, arguments))
            elif op == "BUILD":
                state = stack.pop()
                _set_state(stack[-1], state)
            elif op == "BINPERSID":
                stack.append(self._storage(stack.pop()))
            else:
                raise UnsafeFileError(f"uses the pickle operation {op}, which weights never need. It was not loaded")
        raise EOFError("the pickle has no end")

    def _count(self, arguments: tuple[Any, ...]) -> None:
        for argument in arguments:
            if isinstance(argument, (str, bytes, list, tuple, dict)):
                self.copied += len(argument) * (1 if isinstance(argument, (str, bytes)) else 16)
        if self.copied > MAX_PICKLE:
            raise VoiceFormatError("its pickle is too long")

    def _storage(self, identity: Any) -> Storage:
        kind, storage_type, key, _, count = identity[:5]
        if kind != "storage" or not isinstance(storage_type, Name) or not isinstance(key, str):
            raise VoiceFormatError("refers to data in an unknown way")
        dtype = STORAGES.get(storage_type.name.rpartition(".")[2])
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


def _set_state(target: Any, state: Any) -> None:
    """BUILD: keep the state of inert objects and of numpy types, drop that of dictionaries (``_metadata``)."""
    if isinstance(target, Inert):
        target.state = state
    elif isinstance(target, NumpyType):
        target.order = state[1] if isinstance(state[1], str) else "|"
    elif not isinstance(target, (dict, TensorRef)):
        raise UnsafeFileError(f"sets the state of a {type(target).__name__}. It was not loaded")
