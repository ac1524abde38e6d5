"""The bundle's synthesizer as a stream: the frame network and the vocoder, each with what it must remember.

The network sees 45 frames to each side. ``NetStream.step`` waits for all of them and equals the whole. ``early`` gives
the frames that still wait at once, with 0 in place of what is not known yet, as at the end of a take; it leaves the
stream as it was, so those frames come again, exactly, later on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rocktop_ray.models.singer.filters import TAIL_BLOCKS, SourceFilter
from rocktop_ray.models.singer.network import REFERENCE_HZ, ConvBlock, SingerNet
from rocktop_ray.models.singer.source import shaped
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

    @torch.inference_mode()
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
        x = self._entering(units, f0, voiced, speaker)
        low, kept = state.frames, []
        for block, reach, held in zip(self._net.blocks, self._reaches, state.blocks, strict=True):
            joined = torch.cat([held, x])
            kept.append(joined[len(x) :].clone())
            low -= reach
            x = _block(block, joined)
            if low < 0:
                x[:-low] = 0
        return NetState(state.frames + len(units), tuple(kept)), self._leaving(x)

    @torch.inference_mode()
    def early(self, state: NetState, most: int | None = None, last: int | None = None) -> Array:
        """The latent frames that wait, ``[latent_dim, lag]``, as if the take ended here; the state stays.

        ``most`` gives only the oldest so many, ``last`` only the newest so many of those. What lies before frame 0
        means nothing.
        """
        most = self.lag if most is None else most
        last = most if last is None else last
        stop = state.frames - self.lag + most
        x = torch.zeros(0, self._net.config.width)
        settled = first = state.frames  # where the stream's own rows end, and where those of x begin
        after = self.lag
        for block, reach, held in zip(self._net.blocks, self._reaches, state.blocks, strict=True):
            if first == settled:
                x, first = torch.cat([held, x]), settled - 2 * reach
            settled, after = settled - reach, after - reach
            begin, end = max(settled, stop - last - after), min(state.frames, stop + after)
            x = torch.cat([x, torch.zeros(reach, x.shape[1])])[begin - reach - first : end + reach - first]
            x, first = _block(block, x), begin
            if first < 0:
                x[:-first] = 0
        return self._leaving(x)

    def _entering(self, units: Array, f0: Array, voiced: Array, speaker: int) -> Tensor:
        """Rows before the first block."""
        net = self._net
        log_f0 = torch.from_numpy(np.log2(np.asarray(f0, np.float64) / REFERENCE_HZ).astype(np.float32))
        features = torch.stack([log_f0, log_f0.square(), torch.from_numpy(np.asarray(voiced, np.float32))], -1)
        content = net.content(torch.from_numpy(np.ascontiguousarray(units, np.float32)))
        made: Tensor = content + net.pitch(features) + net.speaker.weight[speaker]
        return made

    def _leaving(self, x: Tensor) -> Array:
        core = self._net.head(self._net.norm(x))
        latent: Array = torch.cat([core, self._net.high(core)], -1).T.numpy()
        return latent


def _reach(block: torch.nn.Module) -> int:
    assert isinstance(block, ConvBlock)
    return (block.depthwise.kernel_size[0] // 2) * block.depthwise.dilation[0]


def _block(block: torch.nn.Module, rows: Tensor) -> Tensor:
    """``[rows + 2 * reach, width]`` -> ``[rows, width]``."""
    assert isinstance(block, ConvBlock)
    conv, reach = block.depthwise, _reach(block)
    y = F.conv1d(rows.T[None], conv.weight, conv.bias, dilation=conv.dilation, groups=conv.groups)[0].T
    y = block.narrow(F.gelu(block.widen(block.norm(y))))
    return rows[reach : len(rows) - reach] + block.scale * y


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
        return self._step(state, latent, np.asarray(f0, np.float64), noise, frame_offset, ended=False)

    def finish(self, state: VocoderState, *, noise: Noise | None = None, frame_offset: int = 0) -> Array:
        """What is still to come of the wave after the last frame: ``[min(delay, frames * hop)]``."""
        latent = np.repeat(state.latent, LAG, axis=1)
        _, wave = self._step(state, latent, np.full(LAG, state.f0), noise, frame_offset, ended=True)
        return wave[max(0, LAG - state.frames) * self.hop :]

    @torch.inference_mode()
    def _step(
        self,
        state: VocoderState,
        latent: Array,
        f0: np.ndarray,
        noise: Noise | None,
        frame_offset: int,
        *,
        ended: bool,
    ) -> tuple[VocoderState, Array]:
        count, hop, started = len(f0), self.hop, state.frames > 0
        melody = np.concatenate([[state.f0 if started else f0[0]], f0])
        turns = (melody[:-1] + melody[1:]) / 2 * hop / self._rate
        phases = np.cumsum(np.concatenate([[state.cycles if started else -turns[0]], turns]))
        train = shaped(melody, phases[:-1], hop, self._rate)
        # Hop 0 of the new ones is that of the last frame, which had to wait for the F0 at its end.
        fresh = np.zeros((2, count, hop), np.float32)
        first = 0 if started else 1
        last = 1 if ended else count
        fresh[0, first:last] = train[first:last]
        if noise is not None and last > first:
            row = (frame_offset + state.frames - 1 + first) * hop
            fresh[1, first:last] = noise.normal("source", row, (last - first) * hop, 1).reshape(-1, hop)
        excitation = np.concatenate([state.excitation, fresh.reshape(2, -1)], axis=1)
        frames = np.concatenate([state.latent, latent], axis=1)
        harmonic, noisy = self._synth.filters(torch.from_numpy(frames[None, :, :count]))
        spectra = self._synth.analyse(torch.from_numpy(excitation))
        filtered = spectra[:1] * harmonic
        if noise is not None:
            filtered = filtered + spectra[1:] * noisy
        wave = self._synth.join(filtered)[0].numpy()
        wave[: len(state.ringing)] += state.ringing
        made = wave[: count * hop].copy()
        if state.frames < LAG:
            made[: (LAG - state.frames) * hop] = 0
        after = VocoderState(
            state.frames + count,
            float(f0[-1]),
            float(phases[-1] % 1.0),
            frames[:, -1:].copy(),
            excitation[:, -hop:].copy(),
            wave[count * hop :].copy(),
        )
        return after, made
