"""The bytes of a retrieval index: faiss's ``IVF{n},Flat`` with L2 distances, as RVC and Applio write it.

faiss reads files in C++ and trusts them. The format is simple, so foreign files are read here instead, with every size
checked against the file first. What is written is what faiss itself writes, byte for byte.

Layout (little endian): ``IwFl``, header, nlist and nprobe as uint64, a flat index of the centroids (``IxF2``, header,
uint64 count, float32 values), the direct map (one byte and an empty uint64 vector), and the inverted lists: ``ilar``,
nlist, bytes per vector, ``full`` or ``sprs`` with the list sizes, then for each list its vectors and its int64 ids. A
header is int32 dim, int64 count, two unused int64, one byte "trained", int32 metric (1 = L2).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rocktop_ray.errors import IndexFormatError
from rocktop_ray.protocols import Array

MAX_DIM = 8192
MAX_LISTS = 1 << 20
MAX_VECTORS = 1 << 26
_UNUSED = 1 << 20
_L2 = 1
_HEADER = struct.Struct("<iqqqBi")


@dataclass(frozen=True, eq=False)
class IndexArrays:
    """What an index file holds."""

    centroids: Array
    """``[lists, dim]``"""
    sizes: npt.NDArray[np.int64]
    """Vectors per list, ``[lists]``."""
    vectors: Array
    """``[count, dim]``, list after list."""
    ids: npt.NDArray[np.int64]
    """Number of each vector in order of addition, ``[count]``."""
    nprobe: int = 1
    """Lists that a search looks into."""


def parse(data: bytes | memoryview) -> IndexArrays:
    """The arrays in an index file's bytes; large ones are views of ``data``. Raises IndexFormatError."""
    return _Parser(memoryview(data)).index()


def serialise(arrays: IndexArrays) -> bytes:
    """The bytes that faiss writes for this index."""
    lists, dim = arrays.centroids.shape
    count = len(arrays.vectors)
    parts = [b"IwFl", _HEADER.pack(dim, count, _UNUSED, _UNUSED, 1, _L2), struct.pack("<QQ", lists, arrays.nprobe)]
    parts += [b"IxF2", _HEADER.pack(dim, lists, _UNUSED, _UNUSED, 1, _L2), struct.pack("<Q", lists * dim)]
    parts += [_bytes(arrays.centroids, "<f4"), struct.pack("<BQ", 0, 0), b"ilar", struct.pack("<QQ", lists, dim * 4)]
    filled = np.flatnonzero(arrays.sizes)
    if len(filled) > lists // 2:
        parts += [b"full", struct.pack("<Q", lists), _bytes(arrays.sizes, "<i8")]
    else:
        pairs = np.stack([filled, arrays.sizes[filled]], axis=1)
        parts += [b"sprs", struct.pack("<Q", pairs.size), _bytes(pairs, "<i8")]
    start = 0
    for number in filled:
        stop = start + int(arrays.sizes[number])
        parts += [_bytes(arrays.vectors[start:stop], "<f4"), _bytes(arrays.ids[start:stop], "<i8")]
        start = stop
    return b"".join(parts)


def _bytes(array: npt.NDArray[np.generic], dtype: str) -> bytes:
    return np.ascontiguousarray(array, dtype).tobytes()


class _Parser:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def index(self) -> IndexArrays:
        kind = self.take(4)
        if kind == b"IxF2":  # every vector in one list
            dim, count = self.header()
            vectors = self.floats(count, dim)
            self.end()
            centroid = vectors.mean(axis=0, keepdims=True) if count else np.zeros((1, dim), np.float32)
            return IndexArrays(centroid, np.array([count]), vectors, np.arange(count))
        if kind != b"IwFl":
            raise IndexFormatError(
                f"not an index of a supported type: it starts with {kind!r}, expected IVF,Flat (b'IwFl')"
            )
        dim, count = self.header()
        lists, nprobe = self.unpack("<QQ")
        if not 1 <= lists <= MAX_LISTS or nprobe < 1:
            raise IndexFormatError(f"{lists} lists and nprobe {nprobe}: impossible")
        quantizer = self.take(4)
        if quantizer != b"IxF2" or self.header() != (dim, lists):
            raise IndexFormatError(f"its coarse index ({quantizer!r}) is not {lists} flat vectors of {dim}")
        centroids = self.floats(lists, dim)
        self.direct_map(count)
        sizes = self.list_sizes(lists, dim)
        if int(sizes.sum()) != count:
            raise IndexFormatError(f"its lists hold {int(sizes.sum())} vectors, its header says {count}")
        if len(self.data) - self.at < count * (dim * 4 + 8):
            raise IndexFormatError("cut off: fewer bytes than vectors need")
        vectors, ids = np.empty((count, dim), np.float32), np.empty(count, np.int64)
        start = 0
        for size in sizes[sizes > 0]:
            stop = start + int(size)
            vectors[start:stop] = self.array("<f4", int(size) * dim).reshape(-1, dim)
            ids[start:stop] = self.array("<i8", int(size))
            start = stop
        self.end()
        return IndexArrays(centroids, sizes, vectors, ids, min(nprobe, lists))

    def take(self, count: int) -> bytes:
        return bytes(self.slice(count))

    def slice(self, count: int) -> memoryview:
        if not 0 <= count <= len(self.data) - self.at:
            raise IndexFormatError("cut off, or no retrieval index")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.slice(struct.calcsize(form)))

    def array(self, dtype: str, count: int) -> npt.NDArray[np.generic]:
        return np.frombuffer(self.slice(count * np.dtype(dtype).itemsize), dtype)

    def header(self) -> tuple[int, int]:
        dim, count, _, _, trained, metric = _HEADER.unpack(self.slice(_HEADER.size))
        if not 1 <= dim <= MAX_DIM or not 0 <= count <= MAX_VECTORS:
            raise IndexFormatError(f"{count} vectors of {dim} numbers: impossible")
        if metric != _L2 or not trained:
            raise IndexFormatError(f"not a trained index with L2 distances (metric {metric}, trained {trained})")
        return dim, count

    def floats(self, rows: int, dim: int) -> Array:
        (count,) = self.unpack("<Q")
        if count != rows * dim:
            raise IndexFormatError(f"{count} numbers where {rows} x {dim} are expected")
        return np.asarray(self.array("<f4", count).reshape(rows, dim), np.float32)

    def direct_map(self, count: int) -> None:
        kind, entries = self.unpack("<BQ")
        if kind not in (0, 1) or entries not in (0, count):
            raise IndexFormatError(f"an unsupported direct map (type {kind}, {entries} entries)")
        self.slice(entries * 8)

    def list_sizes(self, lists: int, dim: int) -> npt.NDArray[np.int64]:
        kind = self.take(4)
        if kind != b"ilar" or self.unpack("<QQ") != (lists, dim * 4):
            raise IndexFormatError(f"its lists ({kind!r}) are not {lists} lists of plain vectors of {dim}")
        form = self.take(4)
        (count,) = self.unpack("<Q")
        possible = count == lists if form == b"full" else form == b"sprs" and count <= 2 * lists and count % 2 == 0
        if not possible:
            raise IndexFormatError(f"{count} list sizes of form {form!r}: impossible")
        sizes = np.asarray(self.array("<i8", count), np.int64)
        if form == b"sprs":
            pairs = sizes.reshape(-1, 2)
            if len(pairs) and (pairs[0, 0] < 0 or pairs[-1, 0] >= lists or (np.diff(pairs[:, 0]) <= 0).any()):
                raise IndexFormatError("its list numbers are not in order")
            sizes = np.zeros(lists, np.int64)
            sizes[pairs[:, 0]] = pairs[:, 1]
        if (sizes < 0).any() or (sizes > MAX_VECTORS).any():
            raise IndexFormatError("a list of impossible size")
        return sizes

    def end(self) -> None:
        if self.at != len(self.data):
            raise IndexFormatError(f"{len(self.data) - self.at} bytes after the end of the index")
