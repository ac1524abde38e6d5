"""Sources of the synthesizer's random draws, addressed by position (see ``protocols.Noise``)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from rocktop_ray.errors import SettingsError
from rocktop_ray.protocols import Array

_BLOCK = 4096


class SeededNoise:
    """Standard normal tables from a counter-based generator (Philox) keyed by seed, table and block of rows.

    Any slice of a table is the same whatever was drawn before, so chunked conversion equals whole conversion.
    """

    def __init__(self, seed: int = 0) -> None:
        if not 0 <= seed < 2**64:
            raise SettingsError(f"the seed must be between 0 and 2**64 - 1, not {seed}")
        self.seed = seed

    def normal(self, name: str, start: int, count: int, width: int) -> Array:
        """Rows ``start .. start + count`` of table ``name``: ``[count, width]``."""
        rows = np.empty((count, width), np.float32)
        done = 0
        while done < count:
            block, inside = divmod(start + done, _BLOCK)
            table = self._table(name, block, width)
            take = min(_BLOCK - inside, count - done)
            rows[done : done + take] = table[inside : inside + take]
            done += take
        return rows

    def _table(self, name: str, block: int, width: int) -> Array:
        return _drawn(self.seed, name, block, width)


class KeptNoise(SeededNoise):
    """The same draws for readers that take a few rows at a time: the last blocks of all tables are kept."""

    def _table(self, name: str, block: int, width: int) -> Array:
        return _kept(self.seed, name, block, width)


def _drawn(seed: int, name: str, block: int, width: int) -> Array:
    """One block of rows of a table."""
    key = np.array([seed, zlib.crc32(name.encode())], np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, block, width], np.uint64)))
    return generator.standard_normal((_BLOCK, width), np.float32)


_kept = lru_cache(maxsize=16)(_drawn)


class GivenNoise:
    """Tables that the caller supplies: name -> ``[rows, width]``. Rows past the end are an error."""

    def __init__(self, tables: Mapping[str, Array]) -> None:
        self.tables = dict(tables)

    def normal(self, name: str, start: int, count: int, width: int) -> Array:
        """Rows ``start .. start + count`` of the given table ``name``."""
        table = self.tables.get(name)
        if table is None or table.shape[1:] != (width,) or len(table) < start + count:
            found = "no such table" if table is None else f"shape {table.shape}"
            raise SettingsError(f"noise {name!r} needs shape [>= {start + count}, {width}]: {found}")
        return np.asarray(table[start : start + count], np.float32)
