"""The peer's training loop (rvc-next) in a process of its own environment: ``worker_peer.py JOB.json``.

Its own loop runs, from its own request; only random draws are replaced by ours, and each step waits until it is wanted
(see ``step.py``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rvc_next.engine.train import dataset, loop

from benchmarks.load import Watch
from benchmarks.train.exchange import answer, wait


class NoMoreStepsError(Exception):
    """No more steps are wanted."""


class Steps:
    """Lets the peer's loop go one step at a time: its loader waits, its progress answers."""

    def __init__(self, folder: Path) -> None:
        self.draws = np.load(folder / "draws.npz")
        self.number = -1
        self.watch: Watch | None = None
        self.losses: dict[str, float] = {}
        self._coming: Iterator[torch.Tensor] = iter(())

    def begin(self) -> None:
        """After a batch was loaded."""
        self.watch = wait()
        if self.watch is None:
            raise NoMoreStepsError
        self.number += 1
        names = ("posterior", "source")
        self._coming = iter([torch.from_numpy(self.draws[f"{name} {self.number}"]) for name in names])

    def normal(self, like: torch.Tensor, **_: Any) -> torch.Tensor:
        """In place of ``torch.randn_like``: the posterior's draw, then the source's."""
        return next(self._coming).to(like)

    def starts(self, *shape: Any, **options: Any) -> torch.Tensor:
        """In place of ``torch.rand``: where segments start, as shares of the room there is. Phases are drawn too, but
        those of the fundamental are overwritten with 0."""
        if shape and isinstance(shape[0], list):
            return torch.from_numpy(self.draws[f"start {self.number}"])
        return torch.zeros(*shape, **options)

    def heard(self, message: tuple[Any, ...]) -> None:
        """What the loop reports: losses first, then that the step is done."""
        if message[0] == "metric" and message[1]["kind"] == "step":
            found = message[1]["losses"]
            mel_and_kl = found["g_total"] - found["gen"] - found["fm"]
            self.losses = {
                "discriminator": found["d_total"],
                "adversarial": found["gen"],
                "feature": found["fm"],
                "mel and kl": mel_and_kl,
                "generator": found["g_total"],
            }
        elif message[0] == "progress":
            status = Path("/proc/self/status").read_text()
            answer(self.watch, losses=self.losses, resident=int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main(job_file: str) -> None:
    """Its request, with an epoch of one batch."""
    job = json.loads(Path(job_file).read_text())
    folder = Path(job["shared"])
    for old in folder.glob("[GD]_*.pth"):
        old.unlink()
    steps = Steps(folder)
    collate = dataset.TextAudioCollateMultiNSFsid.__call__

    def collated(self: Any, batch: Any) -> Any:
        together = collate(self, batch)
        steps.begin()
        return together

    dataset.TextAudioCollateMultiNSFsid.__call__ = collated
    torch.randn_like, torch.rand = steps.normal, steps.starts
    gpus = (0,) if job["device"] == "cuda" else ()
    request = loop.TrainRequest(
        str(folder), "48k", epochs=10**6, save_every=10**6, batch_size=job["batch"], previews=False, num_workers=0,
        log_interval=1, gpus=gpus, precision=job["precision"], pretrained_g=str(folder / "G.pth"),
        pretrained_d=str(folder / "D.pth"),
    )  # fmt: skip
    settings = loop.prepare(request)
    listed = folder / "filelist.txt"
    lines = [line for line in listed.read_text().splitlines() if "/mute/" not in line]  # nothing but our examples
    listed.write_text("\n".join(lines))
    precision = loop.training_precision(gpus, job["precision"])
    answer(None, precision=precision)
    try:
        device = "cuda:0" if gpus else "cpu"
        loop._train(0, 1, settings, loop.Sink(steps.heard), None, device, False, precision)
    except NoMoreStepsError:
        pass


if __name__ == "__main__":
    main(sys.argv[1])
