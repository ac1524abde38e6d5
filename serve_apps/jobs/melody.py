"""The melodies of a conversion, kept beside its result: two float32 arrays in one file (NumPy's npz)."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np

from rocktop_ray.errors import StorageError
from rocktop_ray.protocols import FRAME_RATE, Array


def melody_bytes(source: Array, result: Array) -> bytes:
    """F0 of take and result, Hz at 100/s, as a file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, source=source.astype(np.float32), result=result.astype(np.float32))
    return stream.getvalue()


def melody_data(data: bytes) -> dict[str, Any]:
    """The file as plain data: ``rate``, ``source``, ``result``; Hz to 0.01. Raises StorageError if it is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            curves = {name: np.round(found[name].astype(np.float64), 2).tolist() for name in ("source", "result")}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise StorageError("the melody of this job is damaged") from error
    return {"rate": FRAME_RATE, **curves}
