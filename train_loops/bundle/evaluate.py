"""Measures a voice file: ``python -m train_loops.bundle.evaluate --voice FILE --target FILE TAKE...``.

Converts each take with the installed content encoder and pitch extractor and prints one JSON line per take: melody
agreement, speaker similarity, words (by a recogniser, see ``evaluate.words``), level, speed, and naturalness where
distillmos is installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import logging
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from rocktop_ray.audio.resample import resample
from rocktop_ray.convert import Converter
from rocktop_ray.evaluate.instruments import Instruments, default_speaker_encoder
from rocktop_ray.evaluate.pair import evaluate_pair
from rocktop_ray.evaluate.words import find_recogniser
from rocktop_ray.features.content.whisper import WhisperEncoder
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.features.pitch.fcpe import FcpeExtractor
from rocktop_ray.paths import models
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.voices.singer_format import load_singer

log = logging.getLogger("evaluate")
WORDS = {
    "vocadito_14": "happy birthday to you happy birthday to you happy birthday dear listener happy birthday to you",
    "vocadito_10": "fine bog handsome bog the bog down in the valley fine bog handsome bog the bog down in the valley",
}
"""What is sung in the sample recordings, by ear."""


class Naturalness:
    """DistillMOS (Stahl and Gamper 2025), a predictor of listeners' scores from 1 to 5, trained on speech."""

    def __init__(self) -> None:
        import distillmos

        self._model = distillmos.ConvTransformerSQAModel().eval()

    def __call__(self, audio: Array, rate: int) -> float:
        """Mono audio -> score."""
        low = resample(audio, rate, ENCODER_RATE)
        low = low * (0.06 / np.sqrt(np.mean(low**2)))
        with torch.inference_mode():
            return round(float(self._model(torch.from_numpy(low)[None])), 2)


def read(path: Path) -> Array:
    """A file as mono at 48 kHz."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(resample(audio.mean(1), rate, TAKE_RATE), np.float32)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("takes", nargs="+", type=Path)
    parser.add_argument("--voice", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True, help="a recording of the target voice")
    parser.add_argument("--index-rate", type=float, default=0.0, help="with the .index file beside the voice")
    parser.add_argument("--key", type=float, default=0.0)
    parser.add_argument("--models", type=Path, default=models(), help="folder of the content encoder and FCPE")
    parser.add_argument("--out", type=Path, help="folder for the converted takes")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    encoder = WhisperEncoder.load(given.models / "whisper-base-encoder.safetensors")
    pitch = FcpeExtractor(given.models / "fcpe_c_v001.pt")
    index = RetrievalIndex.read(given.voice.with_suffix(".index")) if given.index_rate else None
    converter = Converter(encoder, pitch, load_singer(given.voice), index)
    settings = ConvertSettings(key=given.key, index_rate=given.index_rate)
    target = read(given.target)
    tools = Instruments(pitch=pitch, speaker=default_speaker_encoder(), recogniser=find_recogniser("en"))
    naturalness = Naturalness() if importlib.util.find_spec("distillmos") else None
    for path in given.takes:
        take = read(path)
        began = time.perf_counter()
        done = converter.convert(take, settings)
        spent = time.perf_counter() - began
        report = evaluate_pair(
            take, done.audio, TAKE_RATE, metrics=("f0", "speaker", "words"), target=target, key=given.key,
            true_words=WORDS.get(path.stem), instruments=tools,
        )  # fmt: skip
        line: dict[str, object] = {"take": path.stem, "voice": str(given.voice), "index_rate": given.index_rate}
        line |= {"real_time_factor": round(spent / (len(take) / TAKE_RATE), 3)}
        line |= {
            "voice_real_time_factor": round(
                (done.seconds["acoustic"] + done.seconds["vocoder"]) / (len(take) / TAKE_RATE), 4
            )
        }
        if naturalness is not None:
            line |= {"mos_source": naturalness(take, TAKE_RATE), "mos_result": naturalness(done.audio, TAKE_RATE)}
        for name in ("f0", "similarity", "words", "result_levels"):
            part = getattr(report, name)
            line[name] = None if part is None else dataclasses.asdict(part)
        log.info("%s", json.dumps(line))
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
            soundfile.write(given.out / f"{path.stem}.wav", done.audio, TAKE_RATE, subtype="FLOAT")


if __name__ == "__main__":
    main()
