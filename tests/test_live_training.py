"""The students' training: crops, losses that fall, a schedule by the clock."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rocktop_ray.models.listener import ListenerConfig, ListenerNet
from rocktop_ray.models.listener.network import Heard, melody
from rocktop_ray.models.singer.live_net import LiveConfig, LiveFrameNet
from rocktop_ray.models.singer.network import SingerConfig, SingerNet
from train_loops.bundle.live_listener import aligned
from train_loops.bundle.live_losses import latent_loss, listening_loss, pitch_target
from train_loops.bundle.live_run import ClockedRun
from train_loops.bundle.live_set import HOP, LiveBatch, LiveCrops, read_f0, smooth
from train_loops.bundle.live_singing import held_on, octaves, warm_start

UNITS = 12


def item(folder: Path, name: str, frames: int = 600) -> None:
    random = np.random.default_rng(len(name))
    time = np.arange(frames * HOP) / 16_000
    audio = (8000 * np.sin(2 * np.pi * 200 * time)).astype(np.int16)
    units = np.repeat(np.arange(frames // 2)[:, None], UNITS, 1).astype(np.float16)
    f0 = np.where(random.random(frames) < 0.8, 200.0, 0.0).astype(np.float32)
    entry = json.dumps({"name": name, "sha256": "0"})
    np.savez(folder / f"{name}.npz", audio=audio, f0=f0, units=units, entry=entry)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (1, 6, 7, 8):
        item(tmp_path, f"speech_{number:04d}")
    return tmp_path


def test_crops_leave_some_items_out_and_take_in_new_ones(folder: Path) -> None:
    crops = LiveCrops(folder, seed=1)
    assert list(crops.held) == ["speech_0001"] and len(crops.items) == 3
    before = crops.fingerprint()
    item(folder, "copy_song_0009")
    crops.look()
    assert len(crops.items) == 4 and crops.fingerprint() != before
    batch = crops.draw(3, 100)
    assert batch.audio.shape == (3, 16_000) and batch.units.shape == (3, 100, UNITS)
    assert batch.f0.shape == batch.loud.shape == (3, 100)
    assert torch.isfinite(batch.audio).all() and batch.audio.abs().max() <= 1


def test_a_resampled_crop_keeps_its_units_and_moves_its_pitch(folder: Path) -> None:
    """The units of these items count their own places: their slope tells the speed, which must be that of the F0."""
    batch = LiveCrops(folder, seed=3, resampled=1.0).draw(8, 100)
    for row in range(8):
        slope = float(np.polyfit(np.arange(100), batch.units[row, :, 0].numpy(), 1)[0]) * 2
        voiced = batch.f0[row][batch.f0[row] > 0]
        assert voiced.mean() == pytest.approx(200 * slope, rel=0.01)
        spectrum = np.abs(np.fft.rfft(batch.audio[row].numpy() * np.hanning(16_000)))
        spectrum[:110] = 0  # rumble of the noise that is added
        assert spectrum.argmax() == pytest.approx(200 * slope, abs=3), "Hz"


def test_units_are_read_between_their_middles() -> None:
    units = np.arange(10, dtype=np.float32)[:, None]
    np.testing.assert_allclose(smooth(units, np.array([4.0, 5.0, 4.5]))[:, 0], [1.75, 2.25, 2.0])
    f0 = np.array([100.0, 200.0, 0.0, 0.0], np.float32)
    np.testing.assert_allclose(read_f0(f0, np.array([0.5, 1.2, 1.8, 2.5])), [141.42, 200, 0, 0], rtol=1e-4)


def test_the_listener_learns() -> None:
    torch.manual_seed(0)
    sizes = ListenerConfig(units=UNITS, width=24, dilations=(1, 2), pitch_width=20, pitch_dilations=(1,))
    net = ListenerNet(sizes)
    time = torch.arange(60 * HOP) / 16_000
    audio = 0.2 * torch.sin(2 * np.pi * torch.tensor([[150.0], [300.0]]) * time)
    batch = LiveBatch(
        audio,
        torch.tensor([1.0, -1.0])[:, None, None].expand(2, 60, UNITS),
        torch.tensor([[150.0], [300.0]]).expand(2, 60),
        torch.ones(2, 60),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, parts = listening_loss(*aligned(net(audio), batch, sizes.lag), torch.eye(UNITS), 1.0)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0], "one step"
    assert losses[-1] < 0.3 * losses[0]
    heard = net(audio)
    found = melody(heard.salience, heard.voicing)[:, 20:]
    assert set(parts) == {"units", "seen", "pitch", "voicing"}
    assert (1200 * torch.log2(found.median(1).values / torch.tensor([150.0, 300.0]))).abs().max() < 30, "cents"


def test_the_right_answer_costs_least() -> None:
    f0 = torch.tensor([[220.0, 0.0, 440.0]])
    units, loud = torch.randn(1, 3, UNITS), torch.ones(1, 3)
    peaks = torch.logit(pitch_target(f0).clamp(1e-4, 1 - 1e-4))
    voicing = torch.tensor([[9.0, -9.0, 9.0]])
    views = torch.eye(UNITS)
    best = listening_loss(Heard(units, peaks, voicing), units, f0, loud, views, 1.0)[0]
    for wrong in (
        Heard(units + 0.5, peaks, voicing),
        Heard(units, peaks.roll(3, -1), voicing),
        Heard(units, peaks, -voicing),
    ):
        assert listening_loss(wrong, units, f0, loud, views, 1.0)[0] > best + 0.05
    assert latent_loss(units, units) == 0
    assert latent_loss(torch.zeros(1, 1, 2), torch.tensor([[[1.0, -12.0]]])) < 12


def test_the_live_net_begins_near_its_teacher_and_learns() -> None:
    torch.manual_seed(0)
    teacher = SingerNet(SingerConfig(content_dim=UNITS, width=32, harmonic_bands=6, noise_bands=4, speakers=2)).eval()
    with torch.no_grad():
        teacher.head.weight.normal_(std=0.3)
    sizes = LiveConfig(content_dim=UNITS, width=32, speakers=2, core_dim=10)
    warm, cold = LiveFrameNet(sizes), LiveFrameNet(sizes)
    warm_start(warm, teacher)
    units, f0 = torch.randn(2, 80, UNITS), np.full((2, 80), 200.0)
    given = (units, octaves(f0, np.zeros(2)), torch.ones(2, 80), torch.tensor([0, 1]))
    with torch.no_grad():
        wanted = teacher.core(*given)[:, : -warm.stack.lag]

    def loss(net: LiveFrameNet) -> torch.Tensor:
        return latent_loss(net.core(*given)[:, net.stack.lag :], wanted)

    assert loss(warm) < 0.5 * loss(cold)
    optimizer = torch.optim.AdamW(warm.parameters(), lr=1e-3)
    first = loss(warm)
    first.backward()
    optimizer.step()
    assert loss(warm) < first


def test_f0_is_held_as_a_stream_holds_it() -> None:
    np.testing.assert_array_equal(held_on(np.array([0, 0, 200.0, 0, 300.0, 0])), [200, 200, 200, 200, 300, 300])
    np.testing.assert_array_equal(held_on(np.zeros(2)), [150, 150])


def test_a_run_ends_by_the_clock_and_keeps_what_it_learnt(tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 2)
    soon = datetime.datetime.now() + datetime.timedelta(minutes=30)
    if soon.day != datetime.datetime.now().day:
        pytest.skip("the minute of the day is of today")
    run = ClockedRun(net, tmp_path / "run", 1e-2, soon.strftime("%H:%M"), warm=1)
    assert 0 <= run.done < 0.1
    run.learn(net(torch.ones(1, 3)).square().sum(), {"loss": 1.0})
    first = run.optimizer.param_groups[0]["lr"]
    run.began, run.end = run.began - 1000, run.began
    assert run.done == 1.0
    run.learn(net(torch.ones(1, 3)).square().sum(), {"loss": 1.0})
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.02 * 1e-2) and first > 0.9e-2
    run.save({"config": {}})
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 2 and set(state["average"]) == {"weight", "bias"}
