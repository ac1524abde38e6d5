"""Our pipeline in a fresh process: ``worker_ours.py JOB.json`` writes what it measured to the job's ``report``.

See ``compare.py`` for the job. Threads come from OMP_NUM_THREADS, as they do for the peer.
"""

from __future__ import annotations

import sys
import time

BEGAN = time.perf_counter()

import numpy as np  # noqa: E402

from benchmarks.load import Meter, read_job, resident_mib  # noqa: E402
from rocktop_ray.convert import Converter  # noqa: E402
from rocktop_ray.features.content.registry import build_content_encoder  # noqa: E402
from rocktop_ray.features.pitch.registry import build_pitch_extractor  # noqa: E402
from rocktop_ray.protocols import Array  # noqa: E402
from rocktop_ray.settings import ConvertSettings  # noqa: E402
from rocktop_ray.voices.open import open_voice  # noqa: E402

WARM_UP = 10 * 48_000
STAGES = {"content": "content", "pitch": "pitch", "retrieval": "retrieval", "acoustic": "voice", "vocoder": "voice"}


class Silence:
    """Draws that are all zero, so that two implementations can be compared."""

    def normal(self, name: str, start: int, count: int, width: int) -> Array:
        """See ``protocols.Noise``."""
        return np.zeros((count, width), np.float32)


def main(job_file: str) -> None:
    """Load, warm up on the first 10 s without noise (that output is kept), then time runs over the whole clip."""
    job = read_job(job_file)
    imported, files = resident_mib(), job["files"]
    voice = open_voice(files["voice"], index=files["index"])
    encoder = build_content_encoder("hubert-v2", path=files["hubert"])
    extractor = build_pitch_extractor("rmvpe", path=files["rmvpe"])
    converter = Converter(encoder, extractor, voice.model, voice.index)
    meter = Meter(job, time.perf_counter() - BEGAN, imported)
    take = np.load(job["clip_48k"])
    still = ConvertSettings(unvoiced="interpolate", rms_mix=1)
    np.save(job["wave"], converter.convert(take[:WARM_UP], still, noise=Silence()).audio)
    settings = ConvertSettings(unvoiced="interpolate")

    def run() -> dict[str, float]:
        spent: dict[str, float] = {}
        for stage, seconds in converter.convert(take, settings).seconds.items():
            name = STAGES.get(stage, "other")
            spent[name] = spent.get(name, 0.0) + seconds
        return spent

    meter.measure(run)


if __name__ == "__main__":
    main(sys.argv[1])
