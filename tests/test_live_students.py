"""The listener and the live net with random weights: streaming, batches, lag, files."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.errors import AudioError, SettingsError, VoiceFormatError, VoiceNotFoundError
from rocktop_ray.models.about import NetworkAbout
from rocktop_ray.models.listener import ListenerConfig, ListenerNet, ListenerStream
from rocktop_ray.models.listener.causal import LeakyMean
from rocktop_ray.models.listener.front import HOP, class_hz
from rocktop_ray.models.listener.network import melody
from rocktop_ray.models.packed_linear import RowLinear
from rocktop_ray.models.singer.live_net import LiveConfig, LiveFrameNet, LiveNet
from rocktop_ray.voices.student_format import (
    LISTENER,
    LIVE_NET,
    open_listener,
    open_live_net,
    read_live_net,
    write_student,
)

Net = TypeVar("Net", bound=torch.nn.Module)
FRAMES = 60
CLOSE = 1e-5
SMALL = ListenerConfig(units=16, width=24, dilations=(1, 2, 4), pitch_width=20, pitch_dilations=(1, 3), mean_rows=40)
SMALL_LIVE = LiveConfig(
    content_dim=16, width=24, dilations=(1, 2, 1), delays=(1, 1), speakers=3, core_dim=10, high_bands=2
)


def listener(seed: int = 0, half: bool = False) -> ListenerStream:
    torch.manual_seed(seed)
    return ListenerStream(rounded(ListenerNet(SMALL), half))


def live_net(seed: int = 0, half: bool = False) -> LiveNet:
    torch.manual_seed(seed)
    return LiveNet(rounded(LiveFrameNet(SMALL_LIVE), half))


def rounded(net: Net, half: bool) -> Net:
    """With ``half``, weights that are float16 numbers, as those of files are."""
    for weights in net.parameters():
        weights.data = weights.data.half().float() if half else weights.data
    return net


def sound(streams: int, frames: int = FRAMES, seed: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(streams, frames * HOP, generator=torch.Generator().manual_seed(seed))


def frames_in(streams: int, frames: int = FRAMES, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    units = torch.randn(streams, frames, SMALL_LIVE.content_dim, generator=source)
    f0 = 100 + 300 * torch.rand(streams, frames, generator=source)
    return units, f0, (torch.rand(streams, frames, generator=source) > 0.3).float()


def hear(stream: ListenerStream, audio: torch.Tensor, blocks: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    states, units, f0, start = [stream.begin() for _ in audio], [], [], 0
    for block in blocks:
        states, u, p = stream.step(states, audio[:, start * HOP : (start + block) * HOP])
        units.append(u)
        f0.append(p)
        start += block
    return torch.cat(units, 1), torch.cat(f0, 1)


def sing(net: LiveNet, parts: tuple[torch.Tensor, ...], speakers: list[int], blocks: list[int]) -> torch.Tensor:
    states, made, start = [net.begin() for _ in speakers], [], 0
    for block in blocks:
        states, latent = net.step(states, *(part[:, start : start + block] for part in parts), speakers)
        made.append(latent)
        start += block
    return torch.cat(made, 2)


def cut(frames: int, sizes: list[int]) -> list[int]:
    blocks: list[int] = []
    while sum(blocks) < frames:
        blocks.append(min(sizes[len(blocks) % len(sizes)], frames - sum(blocks)))
    return blocks


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.booleans())
def test_blocks_equal_the_whole(sizes: list[int], half: bool) -> None:
    blocks = cut(FRAMES, sizes)
    stream, net = listener(half=half), live_net(half=half)
    whole, pieces = hear(stream, sound(1), [FRAMES]), hear(stream, sound(1), blocks)
    assert (whole[0] - pieces[0]).abs().max() < CLOSE
    assert (whole[1] - pieces[1]).abs().max() < 0.02, "Hz"
    latent = sing(net, frames_in(1), [1], [FRAMES])
    assert (latent - sing(net, frames_in(1), [1], blocks)).abs().max() < CLOSE


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("rows", [1, 4, 17, 64, 65])
def test_few_rows_equal_many(rows: int, half: bool) -> None:
    """Whatever way the weights are read: float16 up to 16 rows, float32 up to 64, the layer's own way above."""
    torch.manual_seed(3)
    plain, settled = RowLinear(40, 24), RowLinear(40, 24)
    settled.load_state_dict(rounded(plain, half).state_dict())
    settled.settle()
    x = torch.randn(rows, 40)
    with torch.inference_mode():
        assert (plain(x) - settled(x)).abs().max() < CLOSE
        assert torch.equal(settled(x[None])[0], settled(x))


@pytest.mark.parametrize("half", [False, True])
def test_streams_in_a_batch_equal_each_alone(half: bool) -> None:
    stream, net, blocks = listener(half=half), live_net(half=half), cut(FRAMES, [4])
    units, f0 = hear(stream, sound(3), blocks)
    latent = sing(net, frames_in(3), [0, 2, 1], blocks)
    for place in range(3):
        alone = hear(stream, sound(3)[place : place + 1], blocks)
        assert (alone[0] - units[place]).abs().max() < CLOSE
        assert (alone[1] - f0[place]).abs().max() < 0.02
        parts = tuple(part[place : place + 1] for part in frames_in(3))
        assert (sing(net, parts, [[0, 2, 1][place]], blocks) - latent[place]).abs().max() < CLOSE


def test_streams_of_different_age_share_a_step() -> None:
    stream, audio = listener(), sound(1)
    old = stream.step([stream.begin()], audio[:, : 20 * HOP])[0][0]
    _, units, _ = stream.step([old, stream.begin()], torch.cat([audio[:, 20 * HOP : 24 * HOP], audio[:, : 4 * HOP]]))
    whole, _ = hear(stream, audio, [FRAMES])
    assert (units[0] - whole[0, 20:24]).abs().max() < CLOSE
    assert (units[1] - whole[0, :4]).abs().max() < CLOSE


def test_a_step_leaves_the_state_as_it_was() -> None:
    stream = listener()
    state = stream.step([stream.begin()], sound(1)[:, : 9 * HOP])[0][0]
    copies = [tensor.clone() for tensor in state.held]
    first = stream.step([state], sound(1, 4, 5))
    assert all(torch.equal(a, b) for a, b in zip(state.held, copies, strict=True))
    again = stream.step([state], sound(1, 4, 5))
    assert torch.equal(first[1], again[1])
    assert [t.shape for t in state.held] == [t.shape for t in stream.begin().held]


@pytest.mark.parametrize("at", [0, 7, 23])
def test_the_listener_is_causal_and_as_late_as_it_says(at: int) -> None:
    """Row j is for frame j - lag and hears samples up to 160 (j + 1): the look-ahead is 160 (lag + 1) samples."""
    stream = listener()
    quiet = sound(1)
    click = quiet.clone()
    click[0, at * HOP + 100] += 0.5
    change = (hear(stream, click, [FRAMES])[0] - hear(stream, quiet, [FRAMES])[0])[0].abs().amax(1)
    assert at == 0 or change[:at].max() == 0
    assert change[at] > 0


@pytest.mark.parametrize("at", [0, 7, 23])
def test_the_live_net_is_causal_and_its_lag_is_that_of_its_layers(at: int) -> None:
    net = live_net()
    assert net.lag == sum(SMALL_LIVE.delays) == 2
    units, f0, voiced = frames_in(1)
    other = units.clone()
    other[0, at] += 1.0
    change = (sing(net, (other, f0, voiced), [0], [FRAMES]) - sing(net, (units, f0, voiced), [0], [FRAMES]))[0]
    moved = change.abs().amax(0)
    assert at == 0 or moved[:at].max() == 0
    assert moved[at] > 0, "the frame `lag` before hears this one"


def test_the_residual_path_is_as_late_as_the_lag() -> None:
    """With all filters silent, what is left is the input, `lag` rows later."""
    torch.manual_seed(0)
    net = LiveFrameNet(SMALL_LIVE)
    with torch.no_grad():
        for block in net.stack.blocks:
            block.scale.zero_()
    rows = torch.randn(1, 20, SMALL_LIVE.width)
    _, out = net.stack(net.stack.begin()[None], rows)
    assert torch.equal(out[:, net.stack.lag :], rows[:, : -net.stack.lag])


def test_the_leaky_mean_counts_what_was_and_forgets_it() -> None:
    mean, rows = LeakyMean(50), torch.randn(1, 700, 3)
    _, means = mean(mean.begin(3)[None], rows)
    weights = (1 - 1 / 50) ** np.arange(700)[::-1]
    expected = (weights[:, None] * rows[0].numpy()).sum(0) / weights.sum()
    np.testing.assert_allclose(means[0, -1].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(means[0, 0].numpy(), rows[0, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("hertz", [55.0, 220.0, 987.8])
def test_a_peak_is_decoded_to_its_pitch(hertz: float) -> None:
    place = 1200 / 20 * np.log2(hertz / 50)
    salience = 4 - 0.5 * (torch.arange(288) - place) ** 2
    found = melody(salience.float(), torch.tensor(1.0))
    assert abs(1200 * np.log2(float(found) / hertz)) < 1.0, "cents"
    assert melody(salience.float(), torch.tensor(-1.0)) == 0
    assert class_hz(torch.tensor(60.0)) == pytest.approx(100.0)


def test_wrong_shapes_are_refused() -> None:
    stream, net = listener(), live_net()
    for audio in (torch.zeros(1, 100), torch.zeros(2, HOP), torch.zeros(HOP)):
        with pytest.raises(AudioError):
            stream.step([stream.begin()], audio)
    units, f0, voiced = frames_in(1, 4)
    for wrong in ((units[..., :3], f0, voiced), (units, f0[:, :2], voiced), (units[0], f0, voiced)):
        with pytest.raises(SettingsError):
            net.step([net.begin()], *wrong, [0])
    with pytest.raises(SettingsError, match="speakers 0 to 2"):
        net.step([net.begin()], units, f0, voiced, [3])
    assert stream.step([stream.begin()], torch.zeros(1, 0))[1].shape == (1, 0, 16)
    assert net.step([net.begin()], units[:, :0], f0[:, :0], voiced[:, :0], [0])[1].shape == (1, 12, 0)


ABOUT = NetworkAbout(encoder="whisper-base", info="test", recipe={"steps": 1})


def test_files_hold_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    torch.manual_seed(0)
    net = ListenerNet(SMALL)
    write_student(path, LISTENER, net, SMALL, ABOUT)
    audio = sound(1)
    gap = hear(open_listener(path), audio, [FRAMES])[0] - hear(ListenerStream(net), audio, [FRAMES])[0]
    assert gap.abs().max() < 0.02, "float16"
    live = tmp_path / "b.safetensors"
    write_student(live, LIVE_NET, LiveFrameNet(SMALL_LIVE), SMALL_LIVE, ABOUT)
    assert read_live_net(live)[1] == ABOUT and open_live_net(live).lag == 2
    for wrong in (lambda: open_listener(live), lambda: open_live_net(path)):
        with pytest.raises(VoiceFormatError, match="expected format rocktop-student"):
            wrong()
    with pytest.raises(VoiceNotFoundError):
        open_listener(tmp_path / "none.safetensors")


def damaged(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(VoiceFormatError):
        open_listener(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_student(path, LISTENER, ListenerNet(SMALL), SMALL, ABOUT)
    whole = path.read_bytes()
    with safetensors.safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    path.write_bytes(whole[:-100])
    with pytest.raises(VoiceFormatError, match="not a readable"):
        open_listener(path)
    name = "pitch_head.weight"
    damaged(path, {k: v for k, v in tensors.items() if k != name}, metadata)
    damaged(path, {**tensors, "more": torch.zeros(1)}, metadata)
    damaged(path, {**tensors, name: tensors[name][:-1].clone()}, metadata)
    damaged(path, {**tensors, name: torch.full_like(tensors[name], float("nan"))}, metadata)
    damaged(path, {**tensors, name: tensors[name].to(torch.int16)}, metadata)
    for key, value in {
        "format": "rocktop-singer",
        "config": "{}x",
        "recipe": "[]",
    }.items():
        damaged(path, tensors, {**metadata, key: value})
    for old, new in (
        ('"width": 24', '"width": 1000000'),
        ('"lag": 2', '"lag": -1'),
        ('"lag": 2', '"lag": "2"'),
        ('"kernel": 7', '"kernel": true'),
        ('"dilations": [1, 2, 4]', '"dilations": []'),
        ('"dilations": [1, 2, 4]', '"dilations": [1, 2, 100000]'),
        ('"units": 16', '"other": 16'),
    ):
        assert old in metadata["config"]
        damaged(path, tensors, {**metadata, "config": metadata["config"].replace(old, new, 1)})
    damaged(path, tensors, {k: v for k, v in metadata.items() if k != "encoder"})
