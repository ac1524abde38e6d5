"""Draws what runs learnt: ``python -m train_loops.proof.curves --out FILE.png NAME=RUN ...``.

A run is a folder of ``learn`` with the ``measured.json`` of ``measure`` in it. The first one gives the thick lines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Curve = list[tuple[float, float]]
"""Minutes and values."""
COLOURS = ("#1f5fa8", "#c8641e", "#3d8a4e", "#8a3d80")


@dataclass(frozen=True)
class Run:
    """What is known of a run."""

    history: list[dict[str, float]]
    measured: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(cls, folder: Path) -> Run:
        """A run's folder. Raises OSError, ValueError."""
        lines = (folder / "history.jsonl").read_text().splitlines()
        return cls([json.loads(line) for line in lines], json.loads((folder / "measured.json").read_text()))

    def curve(self, name: str) -> Curve:
        """What the training told, by its minutes."""
        return [(line["seconds"] / 60, line[name]) for line in self.history if name in line]

    def voices(self, name: str) -> Curve:
        """What was measured of the voices that were kept, by minutes."""
        found = [
            (float(voice.removeprefix("minute-")), values[name])
            for voice, values in self.measured.items()
            if voice.startswith("minute-") and name in values
        ]
        return sorted(found)

    def bound(self, kind: str) -> float:
        """Similarity to the target that recordings of a kind have."""
        return self.measured["takes themselves"][f"{kind}/speaker_to_target"]


def draw(path: Path, runs: Mapping[str, Run]) -> None:
    """Write the picture: two rows of three."""
    figure = Figure(figsize=(11, 6.2), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    places = dict(zip(("score", "mel", "mcd", "f0", "own", "foreign"), axes.flat, strict=True))
    titles = {
        "score": "held-out score (log-mel distance of conversions, dB)",
        "mel": "held-out mel loss",
        "mcd": "MCD of held-out takes, dB",
        "f0": "F0 RMSE of held-out takes, cents",
        "own": "similarity to the target: held-out takes",
        "foreign": "similarity to the target: vocadito, converted",
    }
    for name, title in titles.items():
        places[name].set_title(title, fontsize=9)
        places[name].set_xlabel("minutes of training", fontsize=8)
        places[name].grid(alpha=0.3)
        places[name].tick_params(labelsize=8)
    for (label, run), colour in zip(runs.items(), COLOURS, strict=False):
        for name, curve, mark in (
            ("score", run.curve("validation/score"), ""),
            ("mel", run.curve("validation/mel"), ""),
            ("mcd", run.voices("held-out/mcd_db"), "o"),
            ("f0", run.voices("held-out/f0_rmse_cents"), "o"),
            ("own", run.voices("held-out/speaker_to_target"), "o"),
            ("foreign", run.voices("foreign/speaker_to_target"), "o"),
        ):
            if curve:
                places[name].plot(*zip(*curve, strict=True), marker=mark, ms=4, color=colour, label=label)
    first = next(iter(runs.values()))
    for name, kind, what in (
        ("own", "held-out", "the recordings themselves"),
        ("foreign", "foreign", "before conversion"),
    ):
        places[name].axhline(first.bound(kind), color="#777", ls="--", lw=1, label=what)
        places[name].legend(fontsize=8, loc="lower right")
    places["score"].legend(fontsize=8)
    figure.savefig(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="label=folder")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    pairs = [run.rpartition("=") for run in given.runs]
    draw(given.out, {label: Run.read(Path(folder)) for label, _, folder in pairs})


if __name__ == "__main__":
    main()
