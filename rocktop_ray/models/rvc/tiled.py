"""The HiFi-GAN decoder on processors: the wave of ``HifiganDecoder``, in cache-sized tiles and with fewer products.

The plain module walks a whole take through memory once per layer. Here one tile of frames goes through all stages while
it is in the cache, as rows ``[samples, channels]``, and residual convolutions are ``short_conv``'s. Threads share the
tiles among them, not the rows of each operation: nothing waits, and the wave does not depend on the number of threads.
Tiles lie on a grid of absolute frames, so parts that begin and end on it join to the very bytes of the whole.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from threading import Barrier, Lock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rocktop_ray.models.rvc.hifigan import SLOPE, HifiganDecoder, ResBlock1, ResBlock2
from rocktop_ray.models.rvc.short_conv import RowConv, Workspace, row_conv

TILE = 50
"""Frames per tile. A smaller tile repeats more of its neighbours' first stage, a larger one leaves the cache."""
_BLOCK = 2**18
"""Values of a stage's signal that go through its residual blocks at a time."""
LAST_SLOPE = 0.01


@dataclass(frozen=True)
class _Span:
    """Rows of one stage that a tile needs: inputs ``first .. last`` make samples ``low .. high``, of which all but the
    blocks' reach at each end, ``out_low .. out_high``, go on.
    """

    first: int
    last: int
    low: int
    high: int
    out_low: int
    out_high: int


class TiledDecoder:
    """Executes a HiFi-GAN decoder (NSF, without F0, MRF) on the processor in float32.

    Holds its own copy of the weights, as it needs them; the module is not kept.
    """

    def __init__(self, decoder: HifiganDecoder) -> None:
        blocks = decoder.blocks_per_stage
        pre, post = decoder.conv_pre, decoder.conv_post
        self.hop = decoder.config.hop
        self.cond = decoder.cond
        self.pre = pre.weight.permute(2, 1, 0).contiguous()
        self.pre_bias = pre.bias
        self.stages = []
        for index, up in enumerate(decoder.ups):
            noise = decoder.noise_convs[index] if decoder.config.uses_f0 else None
            parallel = [_steps(block) for block in decoder.resblocks[index * blocks : (index + 1) * blocks]]
            self.stages.append(Stage(up, noise, parallel, scale=1 / blocks if index else 1.0))
        # Leaky rectifiers keep a factor, so each mean over blocks is left to the weights that come next.
        self.post = (post.weight[0] / blocks).contiguous()
        self.post_bias = post.bias
        self._spare: deque[Workspace] = deque()
        if (threads := torch.get_num_threads()) > 1:
            _workers(threads)

    @torch.inference_mode()
    def wave(
        self, latent: Tensor, speaker: Tensor, source: Tensor | None, *, start: int, stop: int, offset: int = 0
    ) -> Tensor:
        """Frames ``start .. stop`` of the wave of a whole: ``[(stop - start) * hop]`` within ±1.

        ``latent`` is ``[latent, frames]``, ``speaker`` ``[gin, 1]``, ``source`` ``[frames * hop]`` or None without F0.
        ``offset`` is the absolute number of the first frame given: the grid of tiles is anchored there.
        """
        rows = latent.T.contiguous()
        bias = self.cond(speaker)[:, 0] + self.pre_bias
        wave = torch.empty((stop - start) * self.hop)

        @torch.inference_mode()  # a thread's own setting
        def render(tile: tuple[int, int]) -> None:
            low, high = tile
            wave[(low - start) * self.hop : (high - start) * self.hop] = self._tile(rows, bias, source, low, high)

        tiles = list(grid(start, stop, offset, TILE))
        threads = torch.get_num_threads()
        if threads == 1:
            for tile in tiles:
                render(tile)
        else:
            list(_workers(threads).map(render, tiles))
        return wave

    def _tile(self, latent: Tensor, bias: Tensor, source: Tensor | None, start: int, stop: int) -> Tensor:
        """Latent rows ``[frames, latent]`` -> wave of frames ``start .. stop``. Rows outside the whole count as 0."""
        try:
            work = self._spare.pop()
        except IndexError:
            work = Workspace()
        edge = self.post.shape[1] // 2
        spans = self._spans(start * self.hop - edge, stop * self.hop + edge)
        taps = len(self.pre)
        first, count = spans[0].first, spans[0].last - spans[0].first
        padded = _window(latent, first - taps // 2, first + count + taps // 2)
        x = torch.addmm(bias, padded[:count], self.pre[0])
        for tap in range(1, taps):
            x.addmm_(padded[tap : tap + count], self.pre[tap])
        total = len(latent)
        silence(x, first, total)
        for stage, span in zip(self.stages, spans, strict=True):
            x = stage(x, span, total, source, work)
            total *= stage.rate
        F.leaky_relu_(x, LAST_SLOPE)
        parts = x @ self.post
        count = len(x) - 2 * edge
        wave = parts[:count, 0].clone()
        for tap in range(1, parts.shape[1]):
            wave += parts[tap : tap + count, tap]
        if self.post_bias is not None:
            wave += self.post_bias
        self._spare.append(work)
        return wave.tanh_()

    def _spans(self, low: int, high: int) -> list[_Span]:
        """What each stage must do so that samples ``low .. high`` of the last come out."""
        spans = []
        for stage in reversed(self.stages):
            spans.append(stage.span(low, high))
            low, high = spans[-1].first, spans[-1].last
        return spans[::-1]


class Stage:
    """One upsampling with its source and residual blocks, over rows."""

    def __init__(self, up: nn.Module, noise: nn.Module | None, blocks: list[list[list[RowConv]]], scale: float) -> None:
        assert isinstance(up, nn.ConvTranspose1d)
        assert noise is None or isinstance(noise, nn.Conv1d)
        self.rate = up.stride[0]
        self.padding = _number(up.padding)
        self.width = up.out_channels
        # A transposed convolution is a matrix product per input row, whose result is a run of ``rate`` output rows.
        self.reads = -(-up.kernel_size[0] // self.rate)
        runs = F.pad(up.weight * scale, (0, self.reads * self.rate - up.kernel_size[0]))
        runs = runs.unflatten(2, (self.reads, self.rate)).permute(2, 0, 3, 1)
        self.runs = runs.flatten(2).contiguous()
        bias = _bias(up) if noise is None else _bias(up) + _bias(noise)
        self.bias = bias.repeat(self.rate)
        self.noise: Tensor | None = None
        if noise is not None:
            self.noise = noise.weight[:, 0].T.contiguous()
            self.stride, self.noise_padding = noise.stride[0], _number(noise.padding)
        self.blocks = blocks
        self.reach = max(reach_of(block) for block in blocks)
        self.slack = max(conv.slack for block in blocks for step in block for conv in step)

    def span(self, out_low: int, out_high: int) -> _Span:
        """The rows that outputs ``out_low .. out_high`` need."""
        low, high = out_low - self.reach, out_high + self.reach
        first = (low + self.padding) // self.rate - (self.reads - 1)
        last = (high - 1 + self.padding) // self.rate + 1
        return _Span(first, last, low, high, out_low, out_high)

    def __call__(self, x: Tensor, span: _Span, frames: int, source: Tensor | None, work: Workspace) -> Tensor:
        """Inputs of the span (of ``frames`` in the whole) -> its outputs, summed over the blocks."""
        total = frames * self.rate
        signal = self._upsample(F.leaky_relu_(x, SLOPE), span, work)
        if source is not None:
            assert self.noise is not None
            start = span.low * self.stride - self.noise_padding
            heard = _window(source, start, start + (span.high - span.low - 1) * self.stride + len(self.noise))
            signal[: span.high - span.low].addmm_(heard.unfold(0, len(self.noise), self.stride), self.noise)
        silence(signal[: span.high - span.low], span.low, total)
        out = torch.empty(span.out_high - span.out_low, self.width)
        parts = max(1, round(out.numel() / _BLOCK))
        cuts = [len(out) * part // parts for part in range(parts + 1)]
        for low, high in pairwise(cuts):
            # Windows overlap: each needs the reach on both sides.
            self._residual(signal[low:], span.low + low, total, out[low:high], work)
        return silence(out, span.out_low, total)

    def _upsample(self, x: Tensor, span: _Span, work: Workspace) -> Tensor:
        """Rows ``span.low .. span.high`` of the transposed convolution, with rows of 0 as slack behind them."""
        count = len(x) - self.reads + 1
        rows = count * self.rate
        skipped = span.low + self.padding - (span.first + self.reads - 1) * self.rate
        buffer = work.get("signal", rows + self.slack, self.width)
        made = buffer[:rows].view(count, -1)
        torch.addmm(self.bias, x[self.reads - 1 :], self.runs[0], out=made)
        for run in range(1, self.reads):
            made.addmm_(x[self.reads - 1 - run :][:count], self.runs[run])
        end = skipped + span.high - span.low
        buffer[end : end + self.slack].zero_()
        return buffer[skipped : end + self.slack]

    def _residual(self, signal: Tensor, low: int, total: int, out: Tensor, work: Workspace) -> None:
        """The sum of the blocks. Row 0 of ``signal`` is row ``low`` of the whole, ``reach`` rows before ``out``."""
        size = len(out) + 2 * self.reach
        touches_edge = low < 0 or low + size > total
        middle = work.get("middle", size + self.slack, self.width)
        for number, block in enumerate(self.blocks):
            skipped = self.reach - reach_of(block)
            current, rows, row = signal[skipped:], size - 2 * skipped, low + skipped
            for turn, step in enumerate(block):
                following = work.get(f"following {turn % 2}", size + self.slack, self.width)
                residual = current[sum(conv.reach for conv in step) :]
                for conv in step:
                    rows, row = rows - 2 * conv.reach, row + conv.reach
                    last = conv is step[-1]
                    target = following if last else middle
                    conv(current, rows, target, work, residual if last else None)
                    target[rows : rows + self.slack].zero_()
                    if touches_edge:
                        silence(target[:rows], row, total)
                    current = target
            if number == 0:
                out.copy_(current[:rows])
            else:
                out.add_(current[:rows])


def _steps(block: nn.Module) -> list[list[RowConv]]:
    """The convolutions of a residual block, by residual connection."""
    assert isinstance(block, ResBlock1 | ResBlock2)
    lists = [block.convs1, block.convs2] if isinstance(block, ResBlock1) else [block.convs]
    return [
        [row_conv(conv.weight, _bias(conv), conv.dilation[0]) for conv in step] for step in zip(*lists, strict=True)
    ]


def _bias(conv: nn.Module) -> Tensor:
    assert isinstance(conv.bias, Tensor)
    return conv.bias


def _number(padding: str | tuple[int, ...]) -> int:
    assert not isinstance(padding, str)
    return padding[0]


def reach_of(block: list[list[RowConv]]) -> int:
    """Rows that a residual block sees to each side."""
    return sum(conv.reach for step in block for conv in step)


def grid(start: int, stop: int, offset: int, step: int) -> Iterator[tuple[int, int]]:
    """Frames ``start .. stop``, cut at absolute multiples of ``step``; ``offset`` is the absolute number of frame 0."""
    while start < stop:
        end = min(stop, start + step - (start + offset) % step)
        yield start, end
        start = end


def _window(x: Tensor, low: int, high: int) -> Tensor:
    """Rows ``low .. high`` of ``x``; those outside are 0."""
    before, after = max(0, -low), max(0, high - len(x))
    inside = x[max(0, low) : max(0, high)]
    return F.pad(inside, (*(0, 0) * (x.ndim - 1), before, after)) if before or after else inside


def silence(x: Tensor, low: int, total: int) -> Tensor:
    """Set rows outside ``0 .. total`` to 0, as a convolution's padding is; row 0 of ``x`` is row ``low``."""
    if low < 0:
        x[:-low].zero_()
    if low + len(x) > total:
        x[max(0, total - low) :].zero_()
    return x


_MAKING = Lock()


def _workers(threads: int) -> ThreadPoolExecutor:
    """The workers of this process, made by the first thread that asks.

    While they are made, threads that begin to compute would find a number of 1, so decoders make them before any wave.
    """
    with _MAKING:
        return _pool(threads, os.getpid())


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Workers whose torch operations are single-threaded, shared by all voices of a process (a fork gets its own)."""
    started = Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # takes over the process's number, which would otherwise happen at the first operation
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, f"tiles-{process}", begin)
    usual = torch.get_num_threads()
    for _ in range(threads):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(usual)  # a thread's own setting, but also what threads that start later inherit
    return pool
