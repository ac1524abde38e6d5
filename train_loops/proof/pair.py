"""Writes a run as the pair that ships: ``python -m train_loops.proof.pair RUN FILE --dataset SET``.

``RUN/last.safetensors`` is what ``learn`` left; float16 weights of both networks are kept, without the optimizers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import open_storage
from train_loops.dataset.manifest import Manifest
from train_loops.rvc.checkpoints import read_recipe, restore
from train_loops.rvc.networks import fresh
from train_loops.rvc.pretrained_pair import PairInfo, write_pair
from train_loops.rvc.step import AdversarialStep

LICENCE = "GPL-3.0-or-later"
CREDITS = (
    "Learnt from: hibari-tts 0.2.1 'heart', also re-sung with WORLD (Apache-2.0); asterisk-core-sounds-ru by Maxim "
    "Topal, ivrvoice.ru (CC BY 3.0); gcin-voice '3' (LGPL-3 or GPL-3); flite slt, rms, awb (CMU, free)."
)


FIRST = "heart"
"""Speaker whose row of the table comes first: a voice of one speaker starts as this one, whose range is the widest."""


def write(run: Path, path: Path, dataset: str) -> None:
    """Raises VoiceFormatError, VoiceNotFoundError, StorageError, TrainingError."""
    checkpoint = run / "last.safetensors"
    recipe = read_recipe(checkpoint)
    step = AdversarialStep(*fresh(recipe), recipe)
    progress = restore(checkpoint, step)
    manifest = Manifest.read(open_storage(dataset, StorageSettings.from_environment()))
    order = sorted(range(len(manifest.speakers)), key=lambda number: manifest.speakers[number] != FIRST)
    table = step.weights["generator"]["emb_g.weight"]
    table.data = table.data[order]
    info = PairInfo(
        recipe,
        stock="small",
        content_name=manifest.networks.encoder,
        steps=progress.step,
        licence=LICENCE,
        training_data=manifest.fingerprint,
        info=CREDITS,
    )
    write_pair(path, step, info)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--dataset", required=True, help="set that the run learnt from")
    given = parser.parse_args()
    write(given.run, given.file, given.dataset)


if __name__ == "__main__":
    main()
