import json

import numpy as np
import pytest
import torch

from rocktop_ray.models.singer import SingerConfig, SingerNet
from rocktop_ray.models.singer.filters import SourceFilter
from train_loops.bundle.dataset import HOP, Crops
from train_loops.bundle.losses import SpectralDistance, energy_distance
from train_loops.bundle.sources import RATE, SPEAKERS
from train_loops.bundle.texts import passage
from train_loops.bundle.train import inner, render


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for number, speaker in enumerate(["heart", "rms"]):
        frames = 120
        entry = {"name": f"{speaker}_{90 + number:04d}", "speaker": speaker, "sha256": str(number)}
        np.savez(
            tmp_path / f"{speaker}.npz",
            audio=(random.normal(size=frames * HOP) * 1000).astype(np.int16),
            f0=random.uniform(100, 200, frames).astype(np.float32),
            units=random.normal(size=(2, frames // 2, 512)).astype(np.float16),
            entry=json.dumps(entry),
        )
    return tmp_path


def test_one_training_step_lowers_the_loss_on_its_own_batch(folder):
    torch.manual_seed(0)
    batch = Crops(folder, frames=60, batch=2, seed=0).draw()
    assert batch.wave.shape == (2, 60 * HOP) and batch.units.shape == (2, 60, 512)
    config = SingerConfig(speakers=len(SPEAKERS), width=16, dilations=(1,))
    net, synth, distance = SingerNet(config), SourceFilter(config, RATE), SpectralDistance((512,))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        one, two = render(net, synth, batch)
        loss = energy_distance(distance, inner(batch.wave), (inner(one), inner(two)), batch.band, repulsion=1.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_energy_distance_is_smallest_at_the_true_noise_level():
    generator = torch.Generator().manual_seed(0)
    distance, band = SpectralDistance((512, 128)), torch.tensor([12_000.0] * 8)
    target = 0.1 * torch.randn(8, RATE // 2, generator=generator)

    def loss(level: float, repulsion: float) -> float:
        draws = [level * torch.randn(target.shape, generator=generator) for _ in range(2)]
        return energy_distance(distance, target, (draws[0], draws[1]), band, repulsion=repulsion).item()

    levels = [0.05, 0.08, 0.1, 0.125, 0.2]
    assert min(levels, key=lambda level: loss(level, 1.0)) == 0.1


def test_texts_repeat_for_a_seed():
    assert passage(3, 5) == passage(3, 5) != passage(3, 6)
