"""The Whisper encoder over a stream: units once computed stay, as keys and values that later units attend to.

A unit is final when ``ahead`` more have been heard; those are computed again with the next block. So a block costs its
own units and those ahead, whatever the context. The network counts positions from 0 to 1499: at the end the context is
computed again from position 0, once in half a minute.
"""

from __future__ import annotations

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

    @torch.inference_mode()
    def step(self, state: WhisperState, audio: Tensor, fresh: int, ahead: int) -> tuple[WhisperState, Tensor]:
        """Audio ``[needs + (fresh + ahead) * 320]`` at 16 kHz -> features ``[fresh + ahead, width]``.

        The first ``fresh`` are final; the others come again with the next block.
        """
        count = fresh + ahead
        if state.position + count > MAX_FRAMES:
            mel, loudest = self._log_mel(audio, state.loudest)
            none = state.keys[:, :0]
            x, keys, values = self._layers(self._front(mel, self._left + count), 0, none, none)
            position, known = self._left + fresh, self._left
        else:
            mel, loudest = self._log_mel(audio[self._left * UNIT :], state.loudest)
            past = slice(self._left - state.known, None)
            x, keys, values = self._layers(
                self._front(mel, count), state.position, state.keys[:, past], state.values[:, past]
            )
            position, known = state.position + fresh, min(self._left, state.known + fresh)
        settled = keys.shape[1] - ahead
        after = WhisperState(position, known, loudest, *(self._kept(rows[:, :settled]) for rows in (keys, values)))
        return after, self._net.norm(x[-count:])

    def _kept(self, rows: Tensor) -> Tensor:
        """The last ``left`` rows, 0 before them."""
        return F.pad(rows[:, -self._left :], (0, 0, max(0, self._left - rows.shape[1]), 0)).clone()

    def _log_mel(self, audio: Tensor, loudest: float) -> tuple[Tensor, float]:
        """Log-mel frames of all audio, with the floor of the loudest so far."""
        power = torch.stft(audio, MEL_WINDOW, MEL_HOP, window=self._mel.window, return_complex=True)[:, :-1]
        log = torch.log10((self._mel.bands @ (power.real.square() + power.imag.square())).clamp_min(1e-10))
        loudest = max(loudest, float(log.max()))
        return (log.clamp_min(loudest - _RANGE) + 4.0) / 4.0, loudest

    def _front(self, mel: Tensor, units: int) -> Tensor:
        """The last ``units`` of the two convolutions: ``[units, width]``."""
        net = self._net
        x: Tensor = F.gelu(net.conv2(F.gelu(net.conv1(mel[None]))))[0].T
        return x[-units:]

    def _layers(self, x: Tensor, position: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Units ``[n, width]`` through all layers -> theirs, and the keys and values of context and units."""
        net = self._net
        x = x + net.positions[position : position + len(x)]
        all_keys, all_values = [], []
        for layer, block in enumerate(net.blocks):
            assert isinstance(block, Block)
            query, key, value = block.qkv(block.attention_norm(x)).chunk(3, 1)
            key, value = torch.cat([keys[layer], key]), torch.cat([values[layer], value])
            heads = [rows.unflatten(1, (block.heads, -1)).transpose(0, 1)[None] for rows in (query, key, value)]
            mixed = F.scaled_dot_product_attention(*heads)[0].transpose(0, 1).flatten(1)
            x = x + block.out(mixed)
            x = x + block.ffn_out(F.gelu(block.ffn_in(block.ffn_norm(x))))
            all_keys.append(key)
            all_values.append(value)
        return x, torch.stack(all_keys), torch.stack(all_values)
