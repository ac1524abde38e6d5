"""The bundle's synthesizer as a stream: the frame network and the vocoder, each with what it must remember.

The network sees 45 frames to each side. ``NetStream.step`` waits for all of them and equals the whole. ``early`` gives
the frames that still wait at once, with 0 in place of what is not known yet, as at the end of a take; it leaves the
stream as it was, so those frames come again, exactly, later on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rocktop_ray.models.singer.filters import TAIL_BLOCKS, SourceFilter
from rocktop_ray.models.singer.network import REFERENCE_HZ, ConvBlock, SingerNet
from rocktop_ray.models.singer.source import shaped_between
from rocktop_ray.protocols import Array, Noise

LAG = 2
"""Frames by which the vocoder's wave lags: a frame's window reaches one hop on, and a pulse train needs the F0 after
its last frame."""


@dataclass(frozen=True)
class NetState:
    """The frame network under way."""

    frames: int
    """Frames taken in so far."""
    blocks: tuple[Tensor, ...]
    """The last rows before each block: ``[2 * reach, width]``."""


class NetStream:
    """The streaming form of a ``SingerNet`` on the processor, whose weights it shares."""

    def __init__(self, net: SingerNet) -> None:
        self._net = net
        self._reaches = [_reach(block) for block in net.blocks]
        self.lag = sum(self._reaches)
        """Frames by which the latent lags behind the units."""

    def begin(self) -> NetState:
        """The state before the first frame."""
        return NetState(0, tuple(torch.zeros(2 * reach, self._net.config.width) for reach in self._reaches))

    def step(self, state: NetState, units: Array, f0: Array, voiced: Array, speaker: int = 0) -> tuple[NetState, Array]:
        """Units ``[frames, dim]`` -> latent ``[latent_dim, frames]``, ``lag`` frames earlier.

        What comes out before frame 0 means nothing.

        Args:
            state: what came before.
            units: at 100/s.
            f0: ``[frames]`` in Hz without gaps, all > 0.
            voiced: ``[frames]``, 1 where the take is voiced, else 0.
            speaker: number of the speaker.
        """
        states, latent = self.step_many([state], units[None], np.asarray(f0)[None], np.asarray(voiced)[None], [speaker])
        return states[0], latent[0]

    @torch.inference_mode()
    def step_many(
        self, states: Sequence[NetState], units: Array, f0: Array, voiced: Array, speakers: Sequence[int]
    ) -> tuple[list[NetState], Array]:
        """The same for several streams, which are the first dimension of everything."""
        x = self._entering(units, f0, voiced, speakers)
        count, late = x.shape[1], 0
        kept: list[Tensor] = []
        for number, (block, reach) in enumerate(zip(self._net.blocks, self._reaches, strict=True)):
            joined = torch.cat([torch.stack([state.blocks[number] for state in states]), x], 1)
            kept.append(joined[:, count:].clone())
            late += reach
            x = _silenced(_block(block, joined), [state.frames - late for state in states])
        after = [
            NetState(state.frames + count, tuple(rows[place].clone() for rows in kept))
            for place, state in enumerate(states)
        ]
        return after, self._leaving(x)

    def early(self, state: NetState, most: int | None = None, last: int | None = None) -> Array:
        """The latent frames that wait, ``[latent_dim, lag]``, as if the take ended here; the state stays.

        ``most`` gives only the oldest so many, ``last`` only the newest so many of those. What lies before frame 0
        means nothing.
        """
        return self.early_many([state], most, last)[0]

    @torch.inference_mode()
    def early_many(self, states: Sequence[NetState], most: int | None = None, last: int | None = None) -> Array:
        """The same for several streams: ``[streams, latent_dim, lag]``."""
        most = self.lag if most is None else most
        last = most if last is None else last
        stop = most - self.lag  # all places count from the last frame that the stream has taken in
        x = torch.zeros(len(states), 0, self._net.config.width)
        settled = first = 0  # where the stream's own rows end, and where those of x begin
        after = self.lag
        for number, (block, reach) in enumerate(zip(self._net.blocks, self._reaches, strict=True)):
            if first == settled:
                held = torch.stack([state.blocks[number] for state in states])
                x, first = torch.cat([held, x], 1), settled - 2 * reach
            settled, after = settled - reach, after - reach
            begin, end = max(settled, stop - last - after), min(0, stop + after)
            x = torch.cat([x, x.new_zeros(len(states), reach, x.shape[2])], 1)
            x = _block(block, x[:, begin - reach - first : end + reach - first])
            x, first = _silenced(x, [state.frames + begin for state in states]), begin
        return self._leaving(x)

    def _entering(self, units: Array, f0: Array, voiced: Array, speakers: Sequence[int]) -> Tensor:
        """Rows before the first block."""
        net = self._net
        log_f0 = torch.from_numpy(np.log2(np.asarray(f0, np.float64) / REFERENCE_HZ).astype(np.float32))
        features = torch.stack([log_f0, log_f0.square(), torch.from_numpy(np.asarray(voiced, np.float32))], -1)
        content = net.content(torch.from_numpy(np.ascontiguousarray(units, np.float32)))
        made: Tensor = content + net.pitch(features) + net.speaker.weight[list(speakers)][:, None]
        return made

    def _leaving(self, x: Tensor) -> Array:
        core = self._net.head(self._net.norm(x))
        latent: Array = torch.cat([core, self._net.high(core)], -1).mT.numpy()
        return latent


def _silenced(rows: Tensor, first: Sequence[int]) -> Tensor:
    """Rows ``[streams, rows, width]``, of each stream from its own frame ``first`` on: 0 before frame 0."""
    for place, frame in enumerate(first):
        if frame < 0:
            rows[place, :-frame] = 0
    return rows


def _reach(block: torch.nn.Module) -> int:
    assert isinstance(block, ConvBlock)
    return (block.depthwise.kernel_size[0] // 2) * block.depthwise.dilation[0]


def _block(block: torch.nn.Module, rows: Tensor) -> Tensor:
    """``[streams, rows + 2 * reach, width]`` -> ``[streams, rows, width]``."""
    assert isinstance(block, ConvBlock)
    conv, reach = block.depthwise, _reach(block)
    y = F.conv1d(rows.mT, conv.weight, conv.bias, dilation=conv.dilation, groups=conv.groups).mT
    y = block.narrow(F.gelu(block.widen(block.norm(y))))
    return rows[:, reach : rows.shape[1] - reach] + block.scale * y


@dataclass(frozen=True)
class VocoderState:
    """The vocoder under way."""

    frames: int
    """Frames taken in so far."""
    f0: float
    """Hz of the last frame."""
    cycles: float
    """Phase of the pulses at the last frame, below 1."""
    latent: Array
    """The last frame ``[latent_dim, 1]``."""
    excitation: Array
    """Pulses and noise of the hop before the last frame: ``[2, hop]``."""
    ringing: Array
    """What earlier frames add to the three hops to come ``[3 * hop]``."""


class VocoderStream:
    """The streaming form of ``SingerVoice.wave``; lags by ``delay`` samples."""

    def __init__(self, synth: SourceFilter, sample_rate: int) -> None:
        self._synth, self._rate, self.hop = synth, sample_rate, synth.hop
        self.delay = LAG * self.hop

    def begin(self) -> VocoderState:
        """The state before the first frame."""
        dim, hop = self._synth.config.latent_dim, self.hop
        return VocoderState(
            0,
            1.0,
            0.0,
            np.zeros((dim, 1), np.float32),
            np.zeros((2, hop), np.float32),
            np.zeros((TAIL_BLOCKS - 1) * hop, np.float32),
        )

    def step(
        self, state: VocoderState, latent: Array, f0: Array, *, noise: Noise | None = None, frame_offset: int = 0
    ) -> tuple[VocoderState, Array]:
        """Latent ``[latent_dim, frames]``, F0 ``[frames]`` in Hz without gaps -> wave ``[frames * hop]``.

        The wave begins ``delay`` samples earlier than the frames; before the first frame it is 0. Noise rows are those
        of the whole, from ``frame_offset`` on. Without noise only the harmonics sound.
        """
        states, waves = self.step_many([state], latent[None], np.asarray(f0)[None], [noise], [frame_offset])
        return states[0], waves[0]

    def step_many(
        self,
        states: Sequence[VocoderState],
        latent: Array,
        f0: Array,
        noise: Sequence[Noise | None],
        frame_offsets: Sequence[int],
    ) -> tuple[list[VocoderState], list[Array]]:
        """The same for several streams: latent ``[streams, latent_dim, frames]``, F0 ``[streams, frames]``."""
        return self._step(states, latent, np.asarray(f0, np.float64), noise, frame_offsets, ended=False)

    def finish(self, state: VocoderState, *, noise: Noise | None = None, frame_offset: int = 0) -> Array:
        """What is still to come of the wave after the last frame: ``[min(delay, frames * hop)]``."""
        latent = np.repeat(state.latent, LAG, axis=1)
        f0 = np.full((1, LAG), state.f0)
        _, (wave,) = self._step([state], latent[None], f0, [noise], [frame_offset], ended=True)
        return wave[max(0, LAG - state.frames) * self.hop :]

    @torch.inference_mode()
    def _step(
        self,
        states: Sequence[VocoderState],
        latent: Array,
        f0: np.ndarray,
        noise: Sequence[Noise | None],
        frame_offsets: Sequence[int],
        *,
        ended: bool,
    ) -> tuple[list[VocoderState], list[Array]]:
        streams, count, hop = len(states), f0.shape[1], self.hop
        started = np.array([state.frames > 0 for state in states])
        before = np.where(started, [state.f0 for state in states], f0[:, 0])
        melody = np.concatenate([before[:, None], f0], axis=1)
        turns = (melody[:, :-1] + melody[:, 1:]) / 2 * hop / self._rate
        cycles = np.where(started, [state.cycles for state in states], -turns[:, 0])
        phases = np.cumsum(np.concatenate([cycles[:, None], turns], axis=1), axis=1)
        begins, ends, at = (part.reshape(-1) for part in (melody[:, :-1], melody[:, 1:], phases[:, :-1]))
        train = shaped_between(begins, ends, at, hop, self._rate).reshape(streams, count, hop)
        # Hop 0 of the new ones is that of the last frame, which had to wait for the F0 at its end.
        fresh = np.zeros((2, streams, count, hop), np.float32)
        last = 1 if ended else count
        for place, (state, drawn, offset) in enumerate(zip(states, noise, frame_offsets, strict=True)):
            first = 0 if state.frames else 1
            fresh[0, place, first:last] = train[place, first:last]
            if drawn is not None and last > first:
                row = (offset + state.frames - 1 + first) * hop
                rows = drawn.normal("source", row, (last - first) * hop, 1)
                fresh[1, place, first:last] = rows.reshape(-1, hop)
        held = np.stack([state.excitation for state in states], axis=1)
        excitation = np.concatenate([held, fresh.reshape(2, streams, -1)], axis=2)
        frames = np.concatenate([np.stack([state.latent for state in states]), latent], axis=2)
        harmonic, noisy = self._synth.filters(torch.from_numpy(np.ascontiguousarray(frames[:, :, :count])))
        spectra = self._synth.analyse(torch.from_numpy(excitation).flatten(0, 1))
        # Where nothing is drawn, the excitation by noise is 0.
        filtered = spectra[:streams] * harmonic + spectra[streams:] * noisy
        wave = self._synth.join(filtered).numpy()
        wave[:, : states[0].ringing.size] += np.stack([state.ringing for state in states])
        after, made = [], []
        for place, state in enumerate(states):
            own = wave[place, : count * hop].copy()
            if state.frames < LAG:
                own[: (LAG - state.frames) * hop] = 0
            made.append(own)
            kept = VocoderState(
                state.frames + count,
                float(f0[place, -1]),
                float(phases[place, -1] % 1.0),
                frames[place, :, -1:].copy(),
                excitation[:, place, -hop:].copy(),
                wave[place, count * hop :].copy(),
            )
            after.append(kept)
        return after, made
