"""Parts: the slices of up to 28 s of a take as one Parquet file, one row group each, so that any of them is read alone.

Columns: ``start`` (sample in the take), ``wave`` ``[frames * hop]``, ``units`` ``[frames / 2][dim]``, ``f0``
``[frames]`` Hz or null. Plain lists of float32, so that every reader of Parquet knows them; what they are is said in
the metadata under ``rocktop``. The same slices give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rocktop_ray.errors import TrainingError
from rocktop_ray.protocols import Array
from train_loops.dataset.features import SliceData

METADATA = b"rocktop"


def schema(dim: int, about: Mapping[str, Any]) -> pa.Schema:
    """The columns, and ``about`` as JSON in the metadata."""
    floats = pa.float32()
    return pa.schema(
        [
            pa.field("start", pa.int64(), nullable=False),
            pa.field("wave", pa.list_(floats), nullable=False),
            pa.field("units", pa.list_(pa.list_(floats, dim)), nullable=False),
            pa.field("f0", pa.list_(floats)),
        ],
        {METADATA: json.dumps(about, sort_keys=True).encode()},
    )


def part_bytes(slices: list[SliceData], dim: int, about: Mapping[str, Any]) -> bytes:
    """The file of a part."""
    columns = schema(dim, about)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        columns,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        # The bytes of floats that belong together lie together: some 15 % smaller.
        use_byte_stream_split=["wave.list.element", "units.list.element.list.element", "f0.list.element"],
        write_statistics=False,
    ) as writer:
        for one in slices:
            writer.write_table(_row(one, columns), row_group_size=1)
    return bytes(sink.getvalue())


def _row(one: SliceData, columns: pa.Schema) -> pa.Table:
    units = pa.FixedSizeListArray.from_arrays(pa.array(one.units.ravel()), one.units.shape[1])
    f0 = pa.nulls(1, columns.field("f0").type) if one.f0 is None else _list(pa.array(one.f0))
    arrays = [pa.array([one.start], pa.int64()), _list(pa.array(one.wave)), _list(units), f0]
    typed = [array.cast(field.type) for array, field in zip(arrays, columns, strict=True)]
    return pa.Table.from_arrays(typed, schema=columns)


def _list(values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


class PartFile:
    """An open part. Raises TrainingError if it is not one."""

    def __init__(self, source: BinaryIO | pa.NativeFile) -> None:
        try:
            self._file = pq.ParquetFile(source, pre_buffer=True)
            self.about: dict[str, Any] = json.loads(self._file.schema_arrow.metadata[METADATA])
        except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"a file of the dataset is damaged ({error}); preprocess again") from error

    def __len__(self) -> int:
        return int(self._file.num_row_groups)

    def read(self, row: int) -> SliceData:
        """One slice."""
        table = self._table(row)
        f0 = table["f0"].combine_chunks()
        return SliceData(
            table["start"][0].as_py(),
            _numpy(table["wave"].combine_chunks().flatten()),
            _units(table),
            None if f0.null_count else _numpy(f0.flatten()),
        )

    def units(self, row: int) -> Array:
        """Only the content units of a slice, ``[frames / 2, dim]``; the rest is not read."""
        return _units(self._table(row, ["units"]))

    def _table(self, row: int, columns: list[str] | None = None) -> pa.Table:
        try:
            return self._file.read_row_group(row, columns=columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise TrainingError(f"a file of the dataset is damaged ({error}); preprocess again") from error


def _units(table: pa.Table) -> Array:
    units = table["units"].combine_chunks().flatten()
    return _numpy(units.flatten()).reshape(len(units), -1)


def _numpy(values: pa.Array) -> Array:
    """A copy: what Arrow lends may not be written to."""
    return np.array(values.to_numpy(zero_copy_only=False), np.float32)
