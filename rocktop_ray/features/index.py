"""The retrieval index: real units of a voice's training data, to pull a take's units towards the voice's own."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rocktop_ray.errors import IndexFormatError, VoiceNotFoundError, storage_error
from rocktop_ray.features.index_file import IndexArrays, parse, serialise
from rocktop_ray.protocols import Array
from rocktop_ray.store.atomic import write_bytes

MAX_BYTES = 2 << 30
"""Largest index file that is read by default."""
NEIGHBOURS = 8
_COARSE = 1 << 22
"""Distances to centroids that are held at once."""
_ROWS = 256
"""Units that are compared with one list at once."""
_MAX_TRAINED = 200_000
_CLUSTERS = 10_000
_CLUSTER_BATCH = 2048


@dataclass(frozen=True, eq=False)
class RetrievalIndex:
    """Units of a voice, grouped in lists around centroids: an inverted file with flat vectors, L2 distances.

    Reads and writes the faiss format of RVC (``index_file``). Everything is kept in memory; searching changes nothing,
    so one index can serve many threads.
    """

    arrays: IndexArrays
    _starts: npt.NDArray[np.int64] = field(init=False, repr=False)
    _norms: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        arrays = self.arrays
        if not np.isfinite(arrays.vectors).all() or not np.isfinite(arrays.centroids).all():
            raise IndexFormatError("the retrieval index holds numbers that are not finite")
        object.__setattr__(self, "_starts", np.concatenate([[0], np.cumsum(arrays.sizes)]))
        with np.errstate(over="ignore"):
            object.__setattr__(self, "_norms", np.einsum("ij,ij->i", arrays.centroids, arrays.centroids))

    @property
    def dim(self) -> int:
        """Width of a unit."""
        return int(self.arrays.vectors.shape[1])

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.arrays.vectors)

    @classmethod
    def read(cls, path: str | Path, *, dim: int | None = None, max_bytes: int = MAX_BYTES) -> RetrievalIndex:
        """From a ``.index`` file. ``dim`` is the width that the voice needs.

        A ``trained_*`` file holds no units: as in RVC, the ``added_*`` file beside it is taken. Raises IndexFormatError
        if it is no index of this format or of another width, VoiceNotFoundError if there is none, StorageError.
        """
        path = usable_path(path)
        try:
            if not path.is_file():
                raise VoiceNotFoundError(f"no such index file: {path}")
            size = path.stat().st_size
            if size > max_bytes:
                raise IndexFormatError(f"{path.name}: {size} bytes, at most {max_bytes} are allowed")
            arrays = parse(path.read_bytes())
            index = cls(arrays)
        except IndexFormatError as error:
            raise IndexFormatError(f"{path.name}: {error.message}") from error
        except OSError as error:
            raise storage_error(error, path, "read") from error
        if not index.count:
            raise IndexFormatError(
                f"{path.name} holds no units: the file whose name starts with 'added_' is the one to use"
            )
        if dim is not None:
            index.check_dim(dim, path.name)
        return index

    def check_dim(self, dim: int, name: str = "the retrieval index") -> None:
        """Raise IndexFormatError unless the units are ``dim`` wide."""
        if self.dim != dim:
            raise IndexFormatError(
                f"{name} holds units of {self.dim} numbers, but the voice sings units of {dim}: it is of another voice"
            )

    def search_blend(self, units: Array, rate: float) -> Array:
        """Units ``[frames, dim]`` -> the same, moved towards the voice's own by ``rate`` (0 to 1).

        Each is mixed with the mean of its 8 nearest neighbours in the nearest list, weighted by ``1 / score ** 2``
        (score: squared L2 distance). Exact matches take all the weight; a unit whose list is empty stays as it is.
        """
        units = np.asarray(units, np.float32)
        if units.ndim != 2 or units.shape[1] != self.dim:
            raise IndexFormatError(
                f"units of shape {list(units.shape)} against an index of {self.dim} numbers per unit"
            )
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must be between 0 and 1, not {rate}")
        blended = units.copy()
        if rate > 0 and self.count:
            rows = max(256, _COARSE // len(self.arrays.sizes))
            for start in range(0, len(units), rows):
                self._blend(units[start : start + rows], blended[start : start + rows], rate)
        return blended

    def _blend(self, units: Array, out: Array, rate: float) -> None:
        """One block of rows. Units that look into the same lists are compared together."""
        with np.errstate(over="ignore", invalid="ignore"):
            coarse = self._norms - 2 * (units @ self.arrays.centroids.T)
        nprobe = self.arrays.nprobe
        if nprobe == 1:
            probes = coarse.argmin(axis=1)[:, None]
        else:
            probes = np.sort(np.argpartition(coarse, nprobe - 1, axis=1)[:, :nprobe], axis=1)
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, lists in enumerate(probes.tolist()):
            groups.setdefault(tuple(lists), []).append(row)
        candidates = np.full((len(units), 2 * NEIGHBOURS), -1)
        for lists, rows in groups.items():
            spans = [(self._starts[k], self._starts[k + 1]) for k in lists]
            vectors = _joined([self.arrays.vectors[low:high] for low, high in spans])
            if not len(vectors):
                continue
            places = None if nprobe == 1 else _joined([np.arange(low, high) for low, high in spans])
            for first in range(0, len(rows), _ROWS):
                some = rows[first : first + _ROWS]
                found = _candidates(units[some], vectors)
                candidates[some, : found.shape[1]] = found + spans[0][0] if places is None else places[found]
        # One mixture for all lists: a stream asks for four units at a time, and most look into lists of their own.
        for first in range(0, len(units), _ROWS):
            some_units, of = units[first : first + _ROWS], candidates[first : first + _ROWS]
            out[first : first + _ROWS] = _mix(some_units, self.arrays.vectors, of, rate)

    @classmethod
    def build(cls, vectors: Array, *, seed: int = 0, max_vectors: int = _MAX_TRAINED) -> RetrievalIndex:
        """Train an index on the units ``[count, dim]`` of a voice's recordings, the way RVC does.

        Above ``max_vectors`` the units are replaced by 10,000 k-means centres. The number of lists is
        ``min(16 * sqrt(count), count // 39)``, at least 1. The same units and seed give the same index. Raises
        IndexFormatError if there is nothing to index, or it is not finite.
        """
        import faiss

        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.ndim != 2 or not vectors.size:
            raise IndexFormatError(f"an index needs units [count, dim], not shape {list(vectors.shape)}")
        if not np.isfinite(vectors).all():
            raise IndexFormatError("the units to index are not all finite")
        vectors = vectors[np.random.default_rng(seed).permutation(len(vectors))]
        if len(vectors) > max_vectors:
            vectors = _centres(vectors, min(_CLUSTERS, max_vectors), seed)
        index = faiss.index_factory(vectors.shape[1], f"IVF{list_count(len(vectors))},Flat")
        ivf = faiss.extract_index_ivf(index)
        ivf.nprobe = 1
        ivf.cp.seed = 1234 + seed % 1_000_000
        index.train(vectors)
        for start in range(0, len(vectors), 8192):
            index.add(vectors[start : start + 8192])
        return cls(parse(faiss.serialize_index(index).tobytes()))

    def save(self, path: str | Path) -> None:
        """Write the file as faiss would, atomically. Raises StorageError."""
        write_bytes(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The index as faiss would write it."""
        return serialise(self.arrays)


def list_count(count: int) -> int:
    """Lists of an index of ``count`` units."""
    return max(1, min(int(16 * np.sqrt(count)), count // 39))


def usable_path(path: str | Path) -> Path:
    """``path``, or for a file named ``trained_*`` the ``added_*`` file beside it if there is one."""
    path = Path(path)
    added = path.with_name(re.sub("trained", "added", path.name))
    return added if added != path and os.path.lexists(added) else path


def _joined(pieces: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _mix(units: Array, vectors: Array, candidates: npt.NDArray[np.int64], rate: float) -> Array:
    """Blend ``units [rows, dim]`` with the nearest of their ``candidates [rows, n]`` among ``vectors`` (-1: none)."""
    row = np.arange(len(units))[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        difference = units[:, None] - vectors[candidates]
        scores = np.einsum("rkd,rkd->rk", difference, difference)
    scores[candidates < 0] = np.inf
    nearest = np.argpartition(scores, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
    scores, found = scores[row, nearest], vectors[candidates[row, nearest]]
    scores = scores.astype(np.float64)
    best = scores.min(axis=1, keepdims=True)
    # Relative to the best, the weights neither overflow nor vanish together; an exact match is 1 against 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(scores == best, 1.0, np.square(best / scores))
    weights[~np.isfinite(scores)] = 0
    total = weights.sum(axis=1, keepdims=True)
    weights = (weights / np.where(total > 0, total, 1)).astype(np.float32)
    mean = np.matmul(weights[:, None], found)[:, 0]
    blended = mean * np.float32(rate) + units * np.float32(1 - rate)
    return np.where(total > 0, blended, units).astype(np.float32)


def _candidates(units: Array, vectors: Array) -> npt.NDArray[np.int64]:
    """The likely nearest of ``vectors``, twice as many as needed, by one matrix product: ``[rows, <= 16]``.

    Taken relative to the list's first vector, so that a common offset costs no precision.
    """
    if len(vectors) <= 2 * NEIGHBOURS:
        return np.broadcast_to(np.arange(len(vectors)), (len(units), len(vectors)))
    with np.errstate(over="ignore", invalid="ignore"):
        relative = vectors - vectors[0]
        scores = np.einsum("sd,sd->s", relative, relative) - 2 * ((units - vectors[0]) @ relative.T)
    return np.argpartition(scores, 2 * NEIGHBOURS - 1, axis=1)[:, : 2 * NEIGHBOURS]


def _centres(vectors: Array, clusters: int, seed: int) -> Array:
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(
        n_clusters=clusters, batch_size=_CLUSTER_BATCH, init="random", compute_labels=False, random_state=seed % 2**32
    )
    return np.ascontiguousarray(kmeans.fit(vectors).cluster_centers_, np.float32)
