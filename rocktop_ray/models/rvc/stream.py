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

from rocktop_ray.models.rvc.short_conv import Workspace
from rocktop_ray.models.rvc.source import HarmonicMix, PhaseSum
from rocktop_ray.models.rvc.stage_stream import StageState, StageStream
from rocktop_ray.models.rvc.stream_source import Phase, sines_from, start_phase
from rocktop_ray.models.rvc.tiled import LAST_SLOPE, TiledDecoder, silence
from rocktop_ray.protocols import Array, Noise

_ENDLESS = 2**62


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
        spare: deque[Workspace] = deque()
        self._stages = []
        for stage in tiles.stages:
            lag, rate = lag * stage.rate + stage.padding, rate * stage.rate
            self._stages.append(StageStream(stage, lag, rate, spare))
            lag += stage.reach
        self._edge = tiles.post.shape[1] // 2
        self.delay = lag + self._edge
        """Samples by which the wave lags behind the frames."""
        self._heard = max(stage.heard for stage in self._stages)

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
        stages = []
        for stage, held in zip(self._stages, state.stages, strict=True):
            kept, x = stage.step(held, x, state.frames, source, total)
            stages.append(kept)
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
