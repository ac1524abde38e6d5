"""The Whisper encoder over a stream: units once computed stay, as keys and values that later units attend to.

A unit is final when ``ahead`` more have been heard; those are computed again with the next block. So a block costs its
own units and those ahead, whatever the context. The network counts positions from 0 to 1499: at the end the context is
computed again from position 0, once in half a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rocktop_ray.models.whisper import MAX_FRAMES, MEL_HOP, MEL_WINDOW, Block, LogMel, WhisperEncoderNet

UNIT = 2 * MEL_HOP
"""Samples at 16 kHz of a unit."""
_MARGIN = 4 * MEL_HOP
"""Samples before a unit that the convolutions and the first spectrum's window reach."""
_RANGE = 8.0


@dataclass(frozen=True)
class WhisperState:
    """The encoder under way."""

    position: int
    """Of the next unit."""
    known: int
    """Units of the context that have been heard."""
    loudest: float
    """Largest value of the log-mel so far; it sets the floor."""
    keys: Tensor
    """``[layers, left, width]``"""
    values: Tensor


class WhisperStream:
    """An encoder with ``left`` units of context."""

    def __init__(self, net: WhisperEncoderNet, mel: LogMel, left: int) -> None:
        self._net, self._mel, self._left = net, mel, left
        self.needs = left * UNIT + _MARGIN
        """Samples before a block that ``step`` must be given."""

    def begin(self) -> WhisperState:
        """Nothing heard yet."""
        config = self._net.config
        empty = torch.zeros(config.layers, self._left, config.width)
        return WhisperState(0, 0, -10.0, empty, empty)

    def step(self, state: WhisperState, audio: Tensor, fresh: int, ahead: int) -> tuple[WhisperState, Tensor]:
        """Audio ``[needs + (fresh + ahead) * 320]`` at 16 kHz -> features ``[fresh + ahead, width]``.

        The first ``fresh`` are final; the others come again with the next block.
        """
        states, features = self.step_many([state], audio[None], fresh, ahead)
        return states[0], features[0]

    @torch.inference_mode()
    def step_many(
        self, states: Sequence[WhisperState], audio: Tensor, fresh: int, ahead: int
    ) -> tuple[list[WhisperState], Tensor]:
        """The same for several streams: audio ``[streams, samples]`` -> features ``[streams, fresh + ahead, width]``.

        A stream whose positions run out in this block goes through on its own.
        """
        count = fresh + ahead
        over = [state.position + count > MAX_FRAMES for state in states]
        if any(over) and len(states) > 1:
            made = [self.step(state, each, fresh, ahead) for state, each in zip(states, audio, strict=True)]
            return [state for state, _ in made], torch.stack([features for _, features in made])
        if over[0]:
            mel, loudest = self._log_mel(audio, states)
            none = states[0].keys[None, :, :0]
            x, keys, values = self._layers(self._front(mel, self._left + count), [0], none, none, None)
            positions, known = [self._left + fresh], [self._left]
        else:
            mel, loudest = self._log_mel(audio[:, self._left * UNIT :], states)
            past = max(state.known for state in states)
            held = [
                torch.stack([rows[:, self._left - past :] for rows in kept])
                for kept in ([state.keys for state in states], [state.values for state in states])
            ]
            seen = None
            if any(state.known < past for state in states):
                starts = torch.tensor([past - state.known for state in states])
                seen = torch.arange(past + count)[None] >= starts[:, None]
            x = self._front(mel, count)
            x, keys, values = self._layers(x, [state.position for state in states], held[0], held[1], seen)
            positions = [state.position + fresh for state in states]
            known = [min(self._left, state.known + fresh) for state in states]
        settled = keys.shape[2] - ahead
        kept = [[self._kept(rows[:, :settled]) for rows in each] for each in (keys, values)]
        after = [WhisperState(*each) for each in zip(positions, known, loudest, *kept, strict=True)]
        return after, self._net.norm(x[:, -count:])

    def _kept(self, rows: Tensor) -> Tensor:
        """The last ``left`` rows, 0 before them."""
        return F.pad(rows[:, -self._left :], (0, 0, max(0, self._left - rows.shape[1]), 0)).clone()

    def _log_mel(self, audio: Tensor, states: Sequence[WhisperState]) -> tuple[Tensor, list[float]]:
        """Log-mel frames of all audio, with the floor of each stream's loudest so far."""
        power = torch.stft(audio, MEL_WINDOW, MEL_HOP, window=self._mel.window, return_complex=True)[..., :-1]
        log = torch.log10((self._mel.bands @ (power.real.square() + power.imag.square())).clamp_min(1e-10))
        most = log.flatten(1).amax(1).tolist()
        loudest = [max(state.loudest, now) for state, now in zip(states, most, strict=True)]
        floor = torch.tensor(loudest)[:, None, None] - _RANGE
        return (torch.maximum(log, floor) + 4.0) / 4.0, loudest

    def _front(self, mel: Tensor, units: int) -> Tensor:
        """The last ``units`` of the two convolutions: ``[streams, units, width]``."""
        net = self._net
        x: Tensor = F.gelu(net.conv2(F.gelu(net.conv1(mel)))).mT
        return x[:, -units:]

    def _layers(
        self, x: Tensor, positions: Sequence[int], keys: Tensor, values: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Units ``[streams, n, width]`` through all layers -> theirs, and keys and values of context and units.

        ``seen`` marks the keys ``[streams, context + n]`` that count; None is all.
        """
        net = self._net
        x = x + torch.stack([net.positions[position : position + x.shape[1]] for position in positions])
        mask = None if seen is None else seen[:, None, None]
        all_keys, all_values = [], []
        for layer, block in enumerate(net.blocks):
            assert isinstance(block, Block)
            query, key, value = block.qkv(block.attention_norm(x)).chunk(3, 2)
            key, value = torch.cat([keys[:, layer], key], 1), torch.cat([values[:, layer], value], 1)
            query, key_rows, value_rows = [
                rows.unflatten(2, (block.heads, -1)).transpose(1, 2) for rows in (query, key, value)
            ]
            mixed = (
                F.scaled_dot_product_attention(query, key_rows, value_rows, attn_mask=mask).transpose(1, 2).flatten(2)
            )
            x = x + block.out(mixed)
            x = x + block.ffn_out(F.gelu(block.ffn_in(block.ffn_norm(x))))
            all_keys.append(key)
            all_values.append(value)
        return x, torch.stack(all_keys, 1), torch.stack(all_values, 1)
