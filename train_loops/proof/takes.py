"""Makes the folders of takes: ``python -m train_loops.proof.takes SET FOLDER``, a folder for each speaker.

``target``: one real person, for the proof. ``several``: six others, for the pretrained pair. The same versions of the
packages give the same takes. What is needed is listed in docs/learning.md.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

import soundfile

from train_loops.proof.sources import Passage, flite, heart, prompts, syllables

log = logging.getLogger("takes")
SEED = 4
MOST = 80
"""Passages of one speaker, at most 18 minutes or so."""


def speakers(chosen: str, asterisk: Path, gcin: Path) -> dict[str, Callable[[], Iterator[Passage]]]:
    """Who sings in a set, and what."""
    if chosen == "target":
        return {"gcin5": lambda: syllables(gcin, "5", SEED)}
    return {
        "heart": lambda: chain(heart(SEED, 40, sung=False), heart(SEED + 1, 40, sung=True)),
        "ivrvoice-ru": lambda: prompts(asterisk / "ru_RU_f_IvrvoiceRU", SEED),
        "gcin3": lambda: syllables(gcin, "3", SEED),
        "slt": lambda: flite("slt", SEED, 25),
        "rms": lambda: flite("rms", SEED + 1, 25),
        "awb": lambda: flite("awb", SEED + 2, 25),
    }


def write(folder: Path, passages: Iterator[Passage]) -> float:
    """Write passages as numbered 16-bit files; returns their seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    seconds = 0.0
    for number, (audio, rate) in enumerate(islice(passages, MOST)):
        soundfile.write(folder / f"{number:03d}.flac", audio, rate, subtype="PCM_16")
        seconds += len(audio) / rate
    return seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=("target", "several"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--asterisk", type=Path, default=Path("/usr/share/asterisk/sounds"))
    parser.add_argument("--gcin", type=Path, default=Path("/usr/share/gcin-voice/ogg"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, make in speakers(given.set, given.asterisk, given.gcin).items():
        log.info("%s: %.1f minutes", name, write(given.folder / name, make()) / 60)


if __name__ == "__main__":
    main()
