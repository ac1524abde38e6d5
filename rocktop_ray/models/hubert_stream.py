"""HuBERT over a stream: every unit of the front end is computed once, those of the layers once they are sure.

Units once computed stay, as keys and values that later units attend to. A unit is final when ``ahead`` more have been
heard; those are computed again with the next block, from the front end's cached rows. So a block costs its own units
and those ahead, whatever the context. Two things differ from a whole take: the norm over time of the first convolution
goes by the mean and variance of the stream so far (a minute back), and what positions and layers would hear beyond the
units ahead counts as not there, as at the end of a take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rocktop_ray.models.hubert import Hubert, HubertConfig, Layer
from rocktop_ray.models.packed_linear import PackedLinear

UNIT = 320
"""Samples at 16 kHz of a unit."""
_FORGETS = 60 * 50
"""Units that the statistics of a stream go back."""


@dataclass(frozen=True)
class HubertState:
    """The encoder under way."""

    known: int
    """Units of the context that have been heard."""
    heard: int
    """Units of audio in the statistics."""
    centre: Tensor
    """Mean of the first convolution's windows, ``[taps]`` in float64."""
    spread: Tensor
    """Their covariance, ``[taps, taps]``."""
    rows: Tensor
    """The last rows before the positions, ``[reach + ahead - 1, width]``."""
    keys: Tensor
    """``[layers, left, width]``"""
    values: Tensor


class _PackedLayer:
    """A layer, ready for few rows."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.qkv, self.out = _packed(layer.qkv), _packed(layer.out)
        self.ffn_in, self.ffn_out = _packed(layer.ffn_in), _packed(layer.ffn_out)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of rows ``[streams, n, width]``, the last ``n`` of ``[streams, past + n, width]`` keys and values,
        which are set.
        """
        query, *new = self.qkv(x).chunk(3, 2)
        for seen, each in zip((keys, values), new, strict=True):
            seen[:, -x.shape[1] :] = each
        q, k, v = [each.unflatten(2, (self.layer.heads, -1)).transpose(1, 2) for each in (query, keys, values)]
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))

    def feed(self, x: Tensor) -> Tensor:
        """The perceptron."""
        return self.ffn_out(F.gelu(self.ffn_in(x)))


def _packed(layer: nn.Linear) -> PackedLinear:
    return PackedLinear(layer.weight, layer.bias)


class HubertWeights:
    """A network up to a layer, with its weights as streams want them; shared by streams of any layout."""

    def __init__(self, net: Hubert, layer: int, final: nn.Linear | None) -> None:
        self.net, self.layer = net, layer
        self.layers = [_PackedLayer(block) for block in net.layers[:layer] if isinstance(block, Layer)]
        self.final = None if final is None else _packed(final)
        conv = net.positions.conv
        self.taps = conv.kernel_size[0]
        # [groups, taps * inputs, outputs]
        split = conv.weight.detach().float().unflatten(0, (conv.groups, -1))
        self.positions = split.permute(0, 3, 2, 1).flatten(1, 2).contiguous()


def streamable(config: HubertConfig) -> bool:
    """Whether units are 20 ms apart, and hear little more than that."""
    return prod(config.conv_stride) == UNIT and UNIT <= config.receptive_field <= 2 * UNIT


class HubertStream:
    """An encoder with ``left`` units of context and ``ahead`` units that are heard beyond the final ones.

    ``kept`` is the float type of keys and values between blocks: half precision halves the state.
    """

    def __init__(self, weights: HubertWeights, left: int, ahead: int, *, kept: torch.dtype = torch.float16) -> None:
        self._weights, self._net, self._left, self._kept_type = weights, weights.net, left, kept
        self._ahead = ahead
        self._held = max(1, ahead)  # a unit hears 80 samples of the next one's
        self._reach = weights.taps // 2
        self.needs = UNIT
        """Samples before a block that ``step_many`` must be given."""

    @torch.inference_mode()
    def begin(self) -> HubertState:
        """Nothing heard yet: silence so far."""
        config = self._net.config
        taps = config.conv_kernel[0]
        nothing = torch.zeros(taps, dtype=torch.float64), torch.zeros(taps, taps, dtype=torch.float64)
        silent = self._rows(torch.zeros(config.receptive_field), *nothing)
        rows = torch.cat([torch.zeros(self._reach, silent.shape[1]), silent.expand(self._held - 1, -1)])
        empty = torch.zeros(self._weights.layer, self._left, config.hidden_size, dtype=self._kept_type)
        return HubertState(0, 0, *nothing, rows.clone(), empty, empty)

    @torch.inference_mode()
    def step_many(
        self, states: Sequence[HubertState], audio: Tensor, fresh: int, ahead: int
    ) -> tuple[list[HubertState], Tensor]:
        """Audio ``[streams, needs + (fresh + ahead) * 320]`` at 16 kHz -> units ``[streams, fresh + ahead, dim]``.

        The first ``fresh`` are final; the others come again with the next block. The last one stands twice: it would
        hear what is still to come.
        """
        if ahead != self._ahead:
            raise ValueError(f"this stream hears {self._ahead} units ahead, not {ahead}")
        norms = [self._norm(state, each[-fresh * UNIT :], each) for state, each in zip(states, audio, strict=True)]
        rows = torch.stack(
            [
                torch.cat([state.rows, self._rows(each[-(fresh + 1) * UNIT :], *norm[1:])])
                for state, each, norm in zip(states, audio, norms, strict=True)
            ]
        )
        past = max(state.known for state in states)
        mask = None
        if any(state.known < past for state in states):
            starts = torch.tensor([past - state.known for state in states])
            mask = (torch.arange(past + rows.shape[1] - self._reach)[None] >= starts[:, None])[:, None, None]
        x = self._placed(rows)
        keys, values = [
            self._seen(kept, past, x.shape[1])
            for kept in ([state.keys for state in states], [state.values for state in states])
        ]
        x = self._layers(x, keys, values, mask)
        units = x if self._weights.final is None else self._weights.final(x)
        new = slice(past, past + fresh)
        after = [
            HubertState(
                min(self._left, state.known + fresh),
                *norm,
                own[fresh:].clone(),
                self._kept(state.keys, key[:, new]),
                self._kept(state.values, value[:, new]),
            )
            for state, norm, own, key, value in zip(states, norms, rows, keys, values, strict=True)
        ]
        given = units[:, max(0, units.shape[1] - (fresh + ahead - 1)) :]
        return after, torch.cat([given, given[:, -1:]], 1)

    def _norm(self, state: HubertState, fresh: Tensor, audio: Tensor) -> tuple[int, Tensor, Tensor]:
        """Count, mean and covariance with the windows that end in the new audio."""
        first = self._net.front_end.stack[0]
        if not isinstance(first.norm, nn.GroupNorm):
            return state.heard, state.centre, state.spread
        reach = max(0, len(first.weight) - first.stride)
        units = len(fresh) // UNIT
        centre, spread = first.moments(audio[-(len(fresh) + reach) :])
        before = min(state.heard, _FORGETS)
        total, apart = before + units, centre - state.centre
        joint = state.centre + apart * (units / total)
        both = (before * state.spread + units * spread) / total
        return total, joint, both + torch.outer(apart, apart) * (before * units / total**2)

    def _rows(self, audio: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
        """Audio -> the rows that positions are added to."""
        net = self._net
        stack = net.front_end.stack
        weights = [each.weights(audio) for each in stack[1:]]
        first = stack[0]
        norm = first.folded(centre, spread) if isinstance(first.norm, nn.GroupNorm) else first.weights(audio)
        x = net.front_end.frames(audio, [norm, *weights])
        x = x if net.feature_norm is None else net.feature_norm(x)
        projected: Tensor = net.projection(x)
        return projected

    def _placed(self, rows: Tensor) -> Tensor:
        """Rows ``[streams, reach + n, width]`` -> the last ``n`` with their positions; nothing follows them."""
        weights, net = self._weights, self._net
        streams = len(rows)
        groups, after = len(weights.positions), weights.taps - 1 - self._reach
        heard = F.pad(rows, (0, 0, 0, after)).unflatten(2, (groups, -1)).permute(2, 0, 1, 3).contiguous()
        windows = heard.unfold(2, weights.taps, 1).transpose(3, 4).flatten(3).flatten(1, 2)
        added = (windows @ weights.positions).unflatten(1, (streams, -1)).permute(1, 2, 0, 3).flatten(2)
        assert net.positions.conv.bias is not None
        x = rows[:, self._reach :] + F.gelu(added + net.positions.conv.bias)
        placed: Tensor = x if net.config.do_stable_layer_norm else net.norm(x)
        return placed

    def _seen(self, kept: list[Tensor], past: int, count: int) -> Tensor:
        """``[streams, layers, past + n, width]``: the last ``past`` rows kept, and room for ``count``."""
        layers, left, width = kept[0].shape
        seen = torch.empty(len(kept), layers, past + count, width)
        for own, each in zip(seen, kept, strict=True):
            own[:, :past] = each[:, left - past :]
        return seen

    def _layers(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Units ``[streams, n, width]`` through all layers, beside keys and values that they add theirs to."""
        for number, packed in enumerate(self._weights.layers):
            layer = packed.layer
            heard = layer.attention_norm(x) if layer.stable else x
            x = x + packed.attend(heard, keys[:, number], values[:, number], mask)
            if layer.stable:
                x = x + packed.feed(layer.ffn_norm(x))
            else:
                x = layer.attention_norm(x)
                x = layer.ffn_norm(x + packed.feed(x))
        net = self._net
        if net.config.do_stable_layer_norm and self._weights.layer == len(net.layers):
            x = net.norm(x)
        return x

    def _kept(self, kept: Tensor, new: Tensor) -> Tensor:
        """The last ``left`` of the rows kept ``[layers, left, width]`` and new ones, as many in all."""
        return torch.cat([kept, new.to(self._kept_type)], 1)[:, -self._left :].clone()
