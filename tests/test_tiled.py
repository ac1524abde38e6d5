"""The tiled decoder equals the plain module, whatever the tiles, threads and parts."""

from __future__ import annotations

import os
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rocktop_ray.models.rvc import short_conv, tiled
from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.hifigan import HifiganDecoder
from rocktop_ray.models.rvc.short_conv import DirectConv, RowConv, ShortConv, Workspace
from rocktop_ray.models.rvc.tiled import TILE, TiledDecoder, grid

TOLERANCE = 1e-5  # of the peak
STOCK: dict[str, dict[str, Any]] = {
    "v2 48k": {"upsample_rates": (12, 10, 2, 2), "upsample_kernel_sizes": (24, 20, 4, 4), "sample_rate": 48_000},
    "v1 48k": {"upsample_rates": (10, 6, 2, 2, 2), "upsample_kernel_sizes": (16, 16, 4, 4, 4), "sample_rate": 48_000},
    "40k": {"upsample_rates": (10, 10, 2, 2), "upsample_kernel_sizes": (16, 16, 4, 4), "sample_rate": 40_000},
    "v2 32k": {"upsample_rates": (10, 8, 2, 2), "upsample_kernel_sizes": (20, 16, 4, 4), "sample_rate": 32_000},
    "v1 32k": {"upsample_rates": (10, 4, 2, 2, 2), "upsample_kernel_sizes": (16, 16, 4, 4, 4), "sample_rate": 32_000},
}
OTHERS: dict[str, dict[str, Any]] = {
    "no F0": {"uses_f0": False},
    "MRF": {"decoder": "mrf-hifigan"},
    "single convolutions": {"resblock": "2", "resblock_dilation_sizes": ((1, 3),) * 3},
    "other kernels": {"resblock_kernel_sizes": (1, 5, 13)},
    "odd rates": {"upsample_rates": (5, 3, 7), "upsample_kernel_sizes": (10, 7, 14), "sample_rate": 10_500},
}


def config(**changes: Any) -> SynthesizerConfig:
    """A decoder of the stock shape, an eighth as wide: 64 channels come down to 4 or less."""
    values: dict[str, Any] = {
        "spec_channels": 65,
        "segment_size": 8,
        "inter_channels": 12,
        "hidden_channels": 16,
        "filter_channels": 16,
        "n_heads": 2,
        "n_layers": 1,
        "kernel_size": 3,
        "p_dropout": 0.0,
        "resblock": "1",
        "resblock_kernel_sizes": (3, 7, 11),
        "resblock_dilation_sizes": ((1, 3, 5),) * 3,
        "upsample_rates": (5, 4, 2, 2),
        "upsample_initial_channel": 128,
        "upsample_kernel_sizes": (10, 8, 4, 4),
        "speakers": 2,
        "gin_channels": 8,
        "sample_rate": 8000,
    }
    return SynthesizerConfig(**{**values, **changes})


@cache
def decoder(**changes: Any) -> HifiganDecoder:
    made = HifiganDecoder(config(**changes)).requires_grad_(False).eval()
    draw = torch.Generator().manual_seed(3)
    for name, weight in made.named_parameters():
        if weight.ndim == 1:
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.05)
        else:
            gain = 2.5 if name.startswith("ups") else 1.2 if "convs1" in name else 0.5
            weight.copy_(torch.randn(weight.shape, generator=draw) * gain / weight[0].numel() ** 0.5)
    return made


def inputs(made: HifiganDecoder, frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Latent, speaker, source."""
    draw = torch.Generator().manual_seed(seed)
    latent = torch.randn(made.config.inter_channels, frames, generator=draw)
    speaker = torch.randn(made.config.gin_channels, 1, generator=draw)
    if not made.config.uses_f0:
        return latent, speaker, None
    sines = torch.randn(1, frames * made.config.hop, 1 + made.overtones, generator=draw) * 0.3
    return latent, speaker, made.m_source(sines)[0, 0]


def plain(made: HifiganDecoder, frames: int) -> torch.Tensor:
    """The module's own wave, from the same source."""
    latent, speaker, source = inputs(made, frames)
    x = made.head(latent[None], speaker[None])
    for index in range(len(made.ups)):
        x = made.stage(index, x, None if source is None else source[None, None])
    return made.tail(x)[0, 0]


@cache
def whole(frames: int) -> torch.Tensor:
    """The plain wave of the small decoder."""
    return plain(decoder(), frames)


@pytest.mark.parametrize("changes", [*STOCK.values(), *OTHERS.values()], ids=[*STOCK, *OTHERS])
@pytest.mark.parametrize("frames", [1, TILE + 9])
def test_equals_the_plain_module(changes: dict[str, Any], frames: int) -> None:
    made = decoder(**changes)
    expected = plain(made, frames)
    found = TiledDecoder(made).wave(*inputs(made, frames), start=0, stop=frames, offset=13)
    assert expected.abs().max() > 0.05
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("changes", [{}, {"uses_f0": False}], ids=["F0", "no F0"])
def test_the_same_bytes_for_any_threads_and_parts_on_the_grid(changes: dict[str, Any]) -> None:
    made, frames, offset = decoder(**changes), 3 * TILE - 20, 10
    tiles, given_ = TiledDecoder(made), inputs(made, frames)
    usual = torch.get_num_threads()
    try:
        waves = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            waves.append(tiles.wave(*given_, start=0, stop=frames, offset=offset))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(usual)
    assert torch.equal(waves[0], waves[1])
    assert torch.equal(waves[0], waves[2])
    cuts = [0, TILE - offset, 2 * TILE - offset, frames]
    parts = [tiles.wave(*given_, start=a, stop=b, offset=offset) for a, b in pairwise(cuts)]
    assert torch.equal(torch.cat(parts), waves[0])


def test_later_frames_with_their_context_only_give_the_same_bytes() -> None:
    made, frames, cut, start = decoder(), 4 * TILE, 2 * TILE - 25, 2 * TILE
    tiles, (latent, speaker, source) = TiledDecoder(made), inputs(made, frames)
    assert source is not None
    whole = tiles.wave(latent, speaker, source, start=0, stop=frames)
    later = tiles.wave(
        latent[:, cut:], speaker, source[cut * tiles.hop :], start=start - cut, stop=frames - cut, offset=cut
    )
    assert torch.equal(later, whole[start * tiles.hop :])


@settings(deadline=None, max_examples=10)
@given(st.data())
def test_any_part_is_that_part_of_the_whole(data: st.DataObject) -> None:
    made, frames = decoder(), 40
    start = data.draw(st.integers(0, frames - 1))
    stop = data.draw(st.integers(start + 1, frames))
    tiles, given_ = TiledDecoder(made), inputs(made, frames)
    part = tiles.wave(*given_, start=start, stop=stop, offset=data.draw(st.integers(0, 10_000)))
    expected = whole(frames)
    difference = part - expected[start * tiles.hop : stop * tiles.hop]
    assert difference.abs().max() <= TOLERANCE * expected.abs().max()


def test_a_broken_latent_does_not_stay() -> None:
    made, frames = decoder(), 30
    tiles, given_ = TiledDecoder(made), inputs(made, frames)
    before = tiles.wave(*given_, start=0, stop=frames)
    tiles.wave(torch.full_like(given_[0], torch.nan), *given_[1:], start=0, stop=frames)
    assert torch.equal(tiles.wave(*given_, start=0, stop=frames), before)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 500), st.integers(1, 400), st.integers(0, 1000), st.integers(1, 60))
def test_the_grid_covers_every_frame_once(start: int, count: int, offset: int, step: int) -> None:
    tiles = list(grid(start, start + count, offset, step))
    assert [frame for low, high in tiles for frame in range(low, high)] == list(range(start, start + count))
    assert all((low + offset) % step == 0 for low, _ in tiles[1:])
    assert all(0 < high - low <= step for low, high in tiles)


@pytest.mark.parametrize("kind", [ShortConv, DirectConv])
@settings(deadline=None, max_examples=40)
@given(st.sampled_from([1, 3, 5, 7, 11, 15]), st.integers(1, 6), st.integers(1, 90), st.booleans(), st.integers(0, 99))
def test_a_row_convolution_is_a_convolution(
    kind: type[ShortConv | DirectConv], taps: int, dilation: int, rows: int, with_residual: bool, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    channels = 8
    weight = torch.randn(channels, channels, taps, generator=draw) / (channels * taps) ** 0.5
    bias = torch.randn(channels, generator=draw)
    conv: RowConv = kind(weight, bias, dilation)
    x = torch.randn(rows + 2 * conv.reach + conv.slack, channels, generator=draw)
    residual = torch.randn(rows + conv.slack, channels, generator=draw) if with_residual else None
    out = torch.full((rows + conv.slack, channels), torch.nan)
    conv(x, rows, out, Workspace(), residual)
    active = F.leaky_relu(x[: rows + 2 * conv.reach].T.double(), short_conv.SLOPE)
    expected = F.conv1d(active[None], weight.double(), bias.double(), dilation=dilation)[0].T
    if residual is not None:
        expected = expected + residual[:rows]
    assert (out[:rows] - expected).abs().max() <= 2e-5


@pytest.mark.parametrize("size", [2, 3, 4])
def test_tile_matrices_are_exact(size: int) -> None:
    outputs, filters, inputs_ = short_conv.matrices(size)
    x = torch.arange(len(inputs_), dtype=torch.float64) ** 2 + 1
    taps = torch.arange(size, dtype=torch.float64) - 0.5
    made = outputs @ ((filters @ taps) * (inputs_ @ x))
    expected = F.conv1d(x[None, None], taps[None, None])[0, 0]
    assert torch.allclose(made, expected, rtol=1e-12)


def test_workers_stay_single_threaded() -> None:
    """Else each of them starts a team of its own, and libgomp makes everybody sleep at every barrier."""
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        square = torch.randn(300, 300)
        workers = tiled._pool(2, os.getpid())
        assert list(workers.map(lambda _: (square @ square, torch.get_num_threads())[1], range(8))) == [1] * 8
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(usual)
