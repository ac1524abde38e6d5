"""Measures voices: ``python -m train_loops.proof.measure --takes FOLDER --set SET --out FILE.json VOICE...``.

Converts the held-out takes of the target, and takes of others, with each voice as ``rocktop convert`` does (no index),
and writes what ``rocktop_ray.evaluate`` says of the results, averaged over takes.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
import torch

from rocktop_ray.audio.resample import resample
from rocktop_ray.convert import Converter
from rocktop_ray.engine import build_engine
from rocktop_ray.evaluate.instruments import build_instruments
from rocktop_ray.evaluate.measures import values_of
from rocktop_ray.evaluate.pair import evaluate_pair
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings
from train_loops.dataset.reader import Dataset
from train_loops.proof.learn import HELD_OUT

log = logging.getLogger("measure")
METRICS = ("f0", "speaker", "mcd")
KEPT = ("f0_rmse_cents", "f0_median_cents", "voicing_f1", "speaker_to_target", "speaker_to_source", "mcd_db")
REFERENCE_SECONDS = 60.0
"""Of the target's training takes that results are compared with."""


def read(path: Path) -> Array:
    """A file as mono at 48 kHz."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(resample(audio.mean(1), rate, TAKE_RATE), np.float32)


def held_out(dataset: Dataset, takes: Path, most: int) -> tuple[list[Path], list[Path]]:
    """Files of the takes that the dataset holds out, at most so many, and those it learns from."""
    hidden = sorted({take.split(" ")[0] for take in dataset.held_out.takes})
    known = sorted(set(dataset.training.takes) - set(hidden))
    return [takes / name for name in hidden[:most]], [takes / name for name in known]


def reference(files: Iterable[Path]) -> Array:
    """A minute of the target."""
    parts: list[Array] = []
    for path in files:
        parts.append(read(path))
        if sum(map(len, parts)) >= REFERENCE_SECONDS * TAKE_RATE:
            break
    return np.concatenate(parts)


class Judge:
    """Measures conversions against their sources and the target."""

    def __init__(self, own: list[Path], foreign: list[Path], target: Array, median_f0: float) -> None:
        self.takes = {"held-out": [(path, read(path)) for path in own], "foreign": [(p, read(p)) for p in foreign]}
        self.target, self.median_f0 = target, median_f0
        self.tools = build_instruments(METRICS)

    def run(self, converter: Converter, samples: Path | None = None) -> dict[str, float]:
        """Means over the takes of each kind; foreign ones are also listed by name."""
        found: dict[str, list[float]] = defaultdict(list)
        for kind, takes in self.takes.items():
            # the key is the voice's business with foreign takes only: its own are in its range
            settings = ConvertSettings(index_rate=0.0, rms_mix=1.0, auto_key=kind == "foreign")
            for path, take in takes:
                done = converter.convert(take, settings)
                report = evaluate_pair(
                    take, done.audio, TAKE_RATE, metrics=METRICS, key=None if kind == "foreign" else 0.0,
                    target=self.target, instruments=self.tools,
                )  # fmt: skip
                for name, value in values_of(report).items():
                    if name in KEPT:
                        found[f"{kind}/{name}"].append(value)
                        if kind == "foreign":
                            found[f"{path.stem}/{name}"].append(value)
                if samples is not None:
                    samples.mkdir(parents=True, exist_ok=True)
                    soundfile.write(samples / f"{path.stem}.flac", done.audio, TAKE_RATE, subtype="PCM_16")
        return {name: round(float(np.mean(values)), 4) for name, values in found.items()}

    def bounds(self) -> dict[str, float]:
        """Similarity to the reference of the takes themselves: what a perfect voice, and none at all, would get."""
        speaker = self.tools.speaker
        assert speaker is not None
        own = speaker.embed(resample(self.target, TAKE_RATE, ENCODER_RATE))
        found = {}
        for kind, takes in self.takes.items():
            others = [speaker.embed(resample(take, TAKE_RATE, ENCODER_RATE)) for _, take in takes]
            mean = np.mean([speaker.similarity(own, other) for other in others])
            found[f"{kind}/speaker_to_target"] = round(float(mean), 4)
        return found


def melody_middle(dataset: Dataset) -> float:
    """Median F0 in Hz of the first slices."""
    curves = [dataset[index].f0 for index in range(min(40, len(dataset)))]
    voiced = np.concatenate([f0[f0 > 0] for f0 in curves if f0 is not None])
    return float(np.median(voiced))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voices", nargs="+", type=Path)
    parser.add_argument("--set", required=True, help="dataset that the voices learnt from")
    parser.add_argument("--takes", type=Path, required=True, help="folder that the dataset was made of")
    parser.add_argument(
        "--foreign", type=Path, nargs="+", default=sorted(Path("assets/samples").glob("vocadito_*.wav"))
    )
    parser.add_argument("--most", type=int, default=4, help="held-out takes that are converted")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=Path, help="folder for the conversions")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    dataset = Dataset.open(given.set, held_out=HELD_OUT)
    own, known = held_out(dataset, given.takes, given.most)
    judge = Judge(own, given.foreign, reference(known), melody_middle(dataset))
    results: dict[str, dict[str, float]] = {"takes themselves": judge.bounds()}
    for path in given.voices:
        engine = build_engine(path, pitch="fcpe", device="cpu").converter
        converter = Converter(engine.encoder, engine.extractor, engine.voice, median_f0=judge.median_f0)
        results[path.stem] = judge.run(converter, given.samples / path.stem if given.samples else None)
        log.info("%s %s", path.stem, json.dumps(results[path.stem]))
    given.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
