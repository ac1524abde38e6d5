"""Prior encoder and flow of an RVC voice over a stream: frames once sure are kept, as what later frames need of them.

That is keys and values in the prior encoder's attention, and the last rows before each convolution. A frame is final
when ``ahead`` more are known; those are computed again with the next block. With a look-ahead to the end and a context
back to the beginning this is the whole; with less, frames hear those beyond as if the take ended there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rocktop_ray.models.rvc.flow import Coupling
from rocktop_ray.models.rvc.prior_encoder import SLOPE, FeedForward, RelativeAttention
from rocktop_ray.models.rvc.synthesizer import Synthesizer


@dataclass(frozen=True)
class LatentState:
    """A stream under way. Its size does not change."""

    frames: int
    """Frames so far that are final."""
    keys: Tensor
    """``[layers, left, channels]``"""
    values: Tensor
    inputs: tuple[Tensor, ...]
    """The last rows before each convolution, in the order in which they are met: ``[rows, channels]``."""


Held = list[Tensor]
"""What the convolutions of all streams remember, ``[streams, rows, channels]`` each."""


class _RowConv:
    """A convolution over rows ``[streams, n, channels]``, the rows before which come from the state."""

    def __init__(self, conv: nn.Conv1d, before: int, after: int) -> None:
        taps = conv.kernel_size[0]
        self.before, self.after, self.taps, self.channels = before, after, taps, conv.in_channels
        self._weight = conv.weight.detach().permute(2, 1, 0).flatten(0, 1).contiguous()
        self._bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()

    def __call__(self, x: Tensor, held: Tensor | None = None) -> Tensor:
        """Rows ``[streams, n, in]``, after those ``held`` and before nothing -> ``[streams, n, out]``."""
        if self.taps > 1:
            assert held is not None
            joined = F.pad(torch.cat([held, x], 1), (0, 0, 0, self.after))
            x = joined.unfold(1, self.taps, 1).transpose(2, 3).flatten(2)
        made = torch.addmm(self._bias, x.flatten(0, 1), self._weight)
        return made.unflatten(0, x.shape[:2])


class _Memory:
    """Hands every convolution what it remembers, and keeps what it will."""

    def __init__(self, held: Held, fresh: int) -> None:
        self._held, self._fresh, self._next = held, fresh, 0
        self.kept: Held = []

    def run(self, conv: _RowConv, x: Tensor) -> Tensor:
        """The convolution over rows ``[streams, n, channels]``; the first ``fresh`` of them are final."""
        if not conv.before:
            return conv(x, x[:, :0])
        held = self._held[self._next]
        self._next += 1
        self.kept.append(torch.cat([held, x[:, : self._fresh]], 1)[:, -conv.before :].clone())
        return conv(x, held)


class LatentStream:
    """A synthesizer's ``latent`` over streams, in float32 on the processor, with ``left`` frames of context."""

    def __init__(self, model: Synthesizer, left: int) -> None:
        self._model, self._left = model, left
        encoder = model.enc_p.encoder
        self._attention = [each for each in encoder.attn_layers if isinstance(each, RelativeAttention)]
        self._feed = [_feed_convs(each) for each in encoder.ffn_layers if isinstance(each, FeedForward)]
        self._project = [
            tuple(_RowConv(conv, 0, 0) for conv in (each.conv_q, each.conv_k, each.conv_v, each.conv_o))
            for each in self._attention
        ]
        self._out = _RowConv(model.enc_p.proj, 0, 0)
        couplings = [each for each in reversed(list(model.flow.flows.values())) if isinstance(each, Coupling)]
        self._couplings = [_CouplingStream(each) for each in couplings]
        feeds = [conv for pair in self._feed for conv in pair]
        self._convs = [*feeds, *(conv for coupling in self._couplings for conv in coupling.taps)]

    def begin(self) -> LatentState:
        """The state before the first frame."""
        channels = self._model.config.hidden_channels
        empty = torch.zeros(len(self._attention), self._left, channels)
        inputs = tuple(torch.zeros(conv.before, conv.channels) for conv in self._convs if conv.before)
        return LatentState(0, empty, empty, inputs)

    @torch.inference_mode()
    def step_many(
        self,
        states: Sequence[LatentState],
        units: Tensor,
        pitch: Tensor | None,
        speakers: Tensor,
        noise: Tensor,
        fresh: int,
    ) -> tuple[list[LatentState], Tensor]:
        """``fresh`` frames of each stream, and those ahead -> states, latent ``[streams, latent_dim, fresh]``.

        Args:
            units: ``[streams, fresh + ahead, dim]`` at 100/s.
            pitch: bins ``[streams, fresh + ahead]``; None for a voice without F0.
            speakers: conditioning ``[streams, gin, 1]``.
            noise: the prior's draw, already scaled, ``[streams, fresh + ahead, latent_dim]``.
        """
        memory = _Memory([torch.stack(each) for each in zip(*(state.inputs for state in states), strict=True)], fresh)
        prior = self._model.enc_p
        x = prior.emb_phone(units)
        if prior.uses_f0:
            x = x + prior.emb_pitch(pitch)
        x = F.leaky_relu(x * math.sqrt(x.shape[2]), SLOPE)
        x, keys, values = self._encode(x, states, memory, fresh)
        mean, log_scale = memory.run(self._out, x).chunk(2, 2)
        latent = mean + log_scale.exp() * noise
        for coupling in self._couplings:
            latent = coupling.undo(latent.flip(2), speakers, memory)
        after = [
            LatentState(
                state.frames + fresh,
                torch.stack([layer[place] for layer in keys]),
                torch.stack([layer[place] for layer in values]),
                tuple(each[place].clone() for each in memory.kept),
            )
            for place, state in enumerate(states)
        ]
        return after, latent[:, :fresh].mT.contiguous()

    def _encode(
        self, x: Tensor, states: Sequence[LatentState], memory: _Memory, fresh: int
    ) -> tuple[Tensor, Held, Held]:
        """The prior encoder's layers; and keys and values to keep, ``[streams, left, channels]`` of each layer."""
        pasts = [min(self._left, state.frames) for state in states]
        past = max(pasts)
        mask = None
        if min(pasts) < past:
            mask = torch.arange(past + x.shape[1])[None] >= torch.tensor([past - each for each in pasts])[:, None]
        encoder = self._model.enc_p.encoder
        norms = zip(encoder.norm_layers_1, encoder.norm_layers_2, strict=True)
        kept: tuple[Held, Held] = ([], [])
        for number, (norm_1, norm_2) in enumerate(norms):
            attention, project, feed = self._attention[number], self._project[number], self._feed[number]
            query, key, value = (memory.run(conv, x) for conv in project[:3])
            key = self._joined(key, [state.keys[number] for state in states], past)
            value = self._joined(value, [state.values[number] for state in states], past)
            for into, joined in zip(kept, (key, value), strict=True):
                into.append(F.pad(joined[:, : past + fresh], (0, 0, self._left, 0))[:, -self._left :])
            mixed = memory.run(project[3], attention.attend_rows(query, key, value, past, mask))
            x = norm_1((x + mixed).mT).mT
            wide = F.relu(memory.run(feed[0], x))
            x = norm_2((x + memory.run(feed[1], wide)).mT).mT
        return x, *kept

    def _joined(self, rows: Tensor, held: Sequence[Tensor], past: int) -> Tensor:
        """The last ``past`` of those held, then the new ones: ``[streams, past + n, channels]``."""
        return torch.cat([torch.stack([each[self._left - past :] for each in held]), rows], 1)


class _CouplingStream:
    """A coupling, undone over rows."""

    def __init__(self, coupling: Coupling) -> None:
        wave_net = coupling.enc
        reach = [conv.kernel_size[0] // 2 for conv in wave_net.in_layers if isinstance(conv, nn.Conv1d)]
        self._pre, self._post = _RowConv(coupling.pre, 0, 0), _RowConv(coupling.post, 0, 0)
        self.taps = [
            _RowConv(conv, each, each)
            for conv, each in zip(wave_net.in_layers, reach, strict=True)
            if isinstance(conv, nn.Conv1d)
        ]
        self._mix = [_RowConv(conv, 0, 0) for conv in wave_net.res_skip_layers if isinstance(conv, nn.Conv1d)]
        self._channels, self._condition = wave_net.channels, wave_net.cond_layer

    def undo(self, x: Tensor, speakers: Tensor, memory: _Memory) -> Tensor:
        """Rows ``[streams, n, latent]`` -> the same."""
        first, second = x.chunk(2, 2)
        hidden = memory.run(self._pre, first)
        conditions = self._condition(speakers).mT.split(2 * self._channels, 2)
        skip = torch.zeros_like(hidden)
        for conv, mix, condition in zip(self.taps, self._mix, conditions, strict=True):
            signal, gate = (memory.run(conv, hidden) + condition).chunk(2, 2)
            out = memory.run(mix, torch.tanh(signal) * torch.sigmoid(gate))
            if out.shape[2] > self._channels:
                residual, out = out.chunk(2, 2)
                hidden = hidden + residual
            skip = skip + out
        return torch.cat([first, second - memory.run(self._post, skip)], 2)


def _feed_convs(feed: FeedForward) -> tuple[_RowConv, _RowConv]:
    before, after = feed.padding
    return _RowConv(feed.conv_1, before, after), _RowConv(feed.conv_2, before, after)
