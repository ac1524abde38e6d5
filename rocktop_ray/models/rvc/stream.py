"""The HiFi-GAN decoder as a stream: frames in, as many frames of wave out, the same wave as of the whole.

Every convolution keeps the rows that its next outputs still need, so a block costs what it would cost inside a whole.
Convolutions look ahead, so the wave lags behind the frames by a fixed number of samples, which is added up from the
layers: no output is guessed and later corrected. Rows before the first frame and after the last count as 0, as a
convolution's padding does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rocktop_ray.models.rvc.few_rows import for_few_rows
from rocktop_ray.models.rvc.hifigan import SLOPE
from rocktop_ray.models.rvc.short_conv import RowConv, Workspace
from rocktop_ray.models.rvc.source import HarmonicMix, PhaseSum
from rocktop_ray.models.rvc.stream_source import Phase, sines_from, start_phase
from rocktop_ray.models.rvc.tiled import LAST_SLOPE, Stage, TiledDecoder, silence
from rocktop_ray.protocols import Array, Noise

_ENDLESS = 2**62


@dataclass(frozen=True)
class StageState:
    """What one upsampling stage remembers."""

    inputs: Tensor
    """The last rows before the upsampling, rectified."""
    rows: Tensor
    """The last rows before each residual convolution, one convolution after the other: ``[rows, channels]``."""


@dataclass(frozen=True)
class DecoderState:
    """A stream under way. Its size does not change; a step makes a new one and leaves the old one as it is."""

    frames: int
    """Frames taken in so far."""
    latent: Tensor
    """The last latent frames ``[frames, latent]``."""
    phase: Phase
    source: Tensor
    """The last samples of the source."""
    stages: tuple[StageState, ...]
    last: Tensor
    """The last rows before the last convolution."""


class DecoderStream:
    """The streaming form of a ``TiledDecoder``, whose weights it shares.

    Args:
        tiles: the decoder.
        mix: makes the source of the sines; None for a voice without F0.
        sample_rate: Hz of the wave.
        phase_sum: how the phase adds up.
    """

    def __init__(
        self, tiles: TiledDecoder, mix: HarmonicMix | None, *, sample_rate: int, phase_sum: PhaseSum = "frames"
    ) -> None:
        self.hop = tiles.hop
        self._tiles, self._mix, self._rate, self._phase_sum = tiles, mix, sample_rate, phase_sum
        lag, rate = len(tiles.pre) // 2, 1
        self._stages = []
        for stage in tiles.stages:
            lag, rate = lag * stage.rate + stage.padding, rate * stage.rate
            self._stages.append(_StageStream(stage, lag, rate))
            lag += stage.reach
        self._edge = tiles.post.shape[1] // 2
        self.delay = lag + self._edge
        """Samples by which the wave lags behind the frames."""
        self._heard = max(stage.heard for stage in self._stages)
        self._spare: deque[Workspace] = deque()

    def begin(self) -> DecoderState:
        """The state before the first frame."""
        taps, latent, _ = self._tiles.pre.shape
        return DecoderState(
            0,
            torch.zeros(taps - 1, latent),
            start_phase(0 if self._mix is None else self._mix.overtones),
            torch.zeros(self._heard if self._mix is not None else 0),
            tuple(stage.begin() for stage in self._stages),
            torch.zeros(2 * self._edge, len(self._tiles.post)),
        )

    def step(
        self,
        state: DecoderState,
        latent: Array,
        f0: Array | None,
        speaker: Tensor,
        *,
        noise: Noise | None = None,
        frame_offset: int = 0,
    ) -> tuple[DecoderState, Array]:
        """Latent ``[latent, frames]``, F0 ``[frames]`` in Hz, speaker ``[gin, 1]`` -> wave ``[frames * hop]``.

        The wave begins ``delay`` samples earlier than the frames; before the first frame it is 0. Noise rows are those
        of the whole, from ``frame_offset`` on.
        """
        rows = torch.from_numpy(np.ascontiguousarray(latent.T, np.float32))
        return self._step(state, rows, f0, speaker, noise, frame_offset, _ENDLESS)

    def finish(self, state: DecoderState, speaker: Tensor) -> Array:
        """What is still to come of the wave after the last frame: ``[min(delay, frames * hop)]``."""
        frames = -(-self.delay // self.hop)
        nothing = torch.zeros(frames, state.latent.shape[1])
        f0 = None if self._mix is None else np.zeros(frames, np.float32)
        _, wave = self._step(state, nothing, f0, speaker, None, 0, state.frames)
        return wave[max(0, self.delay - state.frames * self.hop) : self.delay]

    @torch.inference_mode()
    def _step(
        self,
        state: DecoderState,
        latent: Tensor,
        f0: Array | None,
        speaker: Tensor,
        noise: Noise | None,
        frame_offset: int,
        total: int,
    ) -> tuple[DecoderState, Array]:
        """One block of ``total`` frames in all."""
        tiles, frames = self._tiles, len(latent)
        phase, source = self._source(state, f0, noise, frame_offset, total)
        bias = tiles.cond(speaker)[:, 0] + tiles.pre_bias
        joined = torch.cat([state.latent, latent])
        x = torch.addmm(bias, joined[:frames], tiles.pre[0])
        for tap in range(1, len(tiles.pre)):
            x.addmm_(joined[tap : tap + frames], tiles.pre[tap])
        silence(x, state.frames - len(tiles.pre) // 2, total)
        work = self._spare.pop() if self._spare else Workspace()
        stages = []
        for stage, held in zip(self._stages, state.stages, strict=True):
            kept, x = stage.step(held, x, state.frames, source, total, work)
            stages.append(kept)
        self._spare.append(work)
        rows = torch.cat([state.last, F.leaky_relu_(x, LAST_SLOPE)])
        parts = rows @ tiles.post
        wave = parts[: len(x), 0].clone()
        for tap in range(1, parts.shape[1]):
            wave += parts[tap : tap + len(x), tap]
        if tiles.post_bias is not None:
            wave += tiles.post_bias
        silence(wave.tanh_(), state.frames * self.hop - self.delay, total * self.hop)
        after = DecoderState(
            state.frames + frames,
            joined[frames:].clone(),
            phase,
            source[frames * self.hop :].clone(),
            tuple(stages),
            rows[len(x) :].clone(),
        )
        return after, wave.numpy()

    def _source(
        self, state: DecoderState, f0: Array | None, noise: Noise | None, frame_offset: int, total: int
    ) -> tuple[Phase, Tensor]:
        """The phase after the block, and the source up to its end, as far back as it is still heard."""
        if self._mix is None:
            return state.phase, state.source
        assert f0 is not None
        draw = None
        if noise is not None:
            first, harmonics = (frame_offset + state.frames) * self.hop, 1 + self._mix.overtones
            draw = torch.from_numpy(noise.normal("source", first, len(f0) * self.hop, harmonics))
        melody = torch.from_numpy(np.ascontiguousarray(f0, np.float32))
        phase, sines = sines_from(
            state.phase, melody, hop=self.hop, sample_rate=self._rate, phase_sum=self._phase_sum, noise=draw
        )
        mixed = self._mix(sines[None])[0, 0]
        return phase, torch.cat([state.source, silence(mixed, state.frames * self.hop, total * self.hop)])


class _StageStream:
    """One upsampling with its source and residual blocks; ``lag`` rows behind the frames once upsampled."""

    def __init__(self, stage: Stage, lag: int, rate: int) -> None:
        self._stage, self._lag, self._rate = stage, lag, rate
        blocks = [[[for_few_rows(conv, rate) for conv in step] for step in block] for block in stage.blocks]
        self._blocks = [_chain(block, stage.reach) for block in blocks]
        self._back = max(chain.back for chain in self._blocks)
        """Rows before the new ones that the blocks' first convolutions need. They share them."""
        self._kept = sum(chain.kept for chain in self._blocks)
        self.heard = 0 if stage.noise is None else lag * stage.stride + stage.noise_padding
        """Samples of the source before a block that its rows still need."""

    def begin(self) -> StageState:
        """Nothing but the 0 before the first frame."""
        stage = self._stage
        return StageState(
            torch.zeros(stage.reads - 1, stage.runs.shape[1]), torch.zeros(self._kept + self._back, stage.width)
        )

    def step(
        self, state: StageState, x: Tensor, frames: int, source: Tensor, total: int, work: Workspace
    ) -> tuple[StageState, Tensor]:
        """Rows ``[n, wide]`` after ``frames`` frames -> rows ``[n * rate, width]``, later by the blocks' reach."""
        stage, count, back = self._stage, len(x), self._back
        rows = count * stage.rate
        low, end = frames * self._rate - self._lag, total * self._rate
        joined = torch.cat([state.inputs, F.leaky_relu_(x, SLOPE)])
        signal = work.get("signal", back + rows + stage.slack, stage.width)
        signal[:back] = state.rows[self._kept :]
        made = signal[back : back + rows].view(count, -1)
        torch.addmm(stage.bias, joined[stage.reads - 1 :], stage.runs[0], out=made)
        for run in range(1, stage.reads):
            made.addmm_(joined[stage.reads - 1 - run :][:count], stage.runs[run])
        if stage.noise is not None:
            taps = len(stage.noise)
            first = len(source) - count * stage.rate * stage.stride - self.heard
            heard = source[first:][: (rows - 1) * stage.stride + taps]
            signal[back : back + rows].addmm_(heard.unfold(0, taps, stage.stride), stage.noise)
        silence(signal[back : back + rows], low, end)
        signal[back + rows :].zero_()
        kept = torch.empty_like(state.rows)
        kept[self._kept :] = signal[rows : rows + back]
        out = torch.empty(rows, stage.width)
        place = 0
        for number, chain in enumerate(self._blocks):
            part = slice(place, place + chain.kept)
            made = self._residual(
                chain, signal[back - chain.back :], rows, low, end, state.rows[part], kept[part], work
            )
            place += chain.kept
            if number == 0:
                out.copy_(made)
            else:
                out.add_(made)
        return StageState(joined[count:].clone(), kept), silence(out, low - stage.reach, end)

    def _residual(
        self,
        chain: _Chain,
        current: Tensor,
        rows: int,
        low: int,
        end: int,
        held: Tensor,
        kept: Tensor,
        work: Workspace,
    ) -> Tensor:
        """One block: ``current`` and the rows ``held`` of its other convolutions -> ``rows`` rows, and what is kept."""
        low -= chain.waits
        place = 0
        entering = current
        for turn, link in enumerate(chain.links):
            if link.opens:
                entering = current
            back = link.next_back
            target = work.get(f"rows {turn % 3}", back + rows + self._stage.slack, self._stage.width)
            low -= link.conv.reach
            link.conv(current, rows, target[back:], work, None if link.skip is None else entering[link.skip :])
            target[back + rows :].zero_()
            silence(target[back : back + rows], low, end)
            if back:
                target[:back] = held[place : place + back]
                kept[place : place + back] = target[rows : rows + back]
                place += back
            current = target
        return current[:rows]


@dataclass(frozen=True)
class _Link:
    """A convolution of a residual block."""

    conv: RowConv
    opens: bool
    """Whether its input is also that of a residual connection, which begins ``skip`` rows into it where it ends."""
    skip: int | None
    next_back: int
    """Rows before the new ones that the next convolution needs."""


@dataclass(frozen=True)
class _Chain:
    """A residual block."""

    links: list[_Link]
    waits: int
    """Rows that it stays behind, so that it ends where its slowest neighbour does."""
    back: int
    """Rows of the stage's signal before the new ones that it needs."""
    kept: int
    """Rows before all its convolutions but the first."""


def _chain(block: list[list[RowConv]], slowest: int) -> _Chain:
    reaches = [conv.reach for step in block for conv in step]
    links: list[_Link] = []
    for step in block:
        skip = 2 * step[0].reach - sum(conv.reach for conv in step)
        for conv in step:
            following = reaches[len(links) + 1 :]
            back = 2 * following[0] if following else 0
            links.append(_Link(conv, conv is step[0], skip if conv is step[-1] else None, back))
    waits = slowest - sum(reaches)
    return _Chain(links, waits, waits + 2 * reaches[0], 2 * sum(reaches[1:]))
