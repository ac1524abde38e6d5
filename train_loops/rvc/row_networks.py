"""The networks of a step over rows (``rows``): what their modules compute, faster where a processor trains in float32.

The modules keep the weights; their own ``forward`` is what runs elsewhere, and what tests compare with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rocktop_ray.models.rvc import hifigan
from rocktop_ray.models.rvc.discriminator import (
    SLOPE,
    MultiPeriodDiscriminator,
    PeriodDiscriminator,
    ScaleDiscriminator,
)
from rocktop_ray.models.rvc.flow import Coupling, Flow, PosteriorEncoder, WaveNet
from rocktop_ray.models.rvc.hifigan import HifiganDecoder, ResBlock1, ResBlock2
from train_loops.rvc.losses import Features
from train_loops.rvc.rows import run_conv, short_conv, spectra_of, window_conv, window_matrix

Ready = dict[nn.Module, Tensor]
"""Weights of convolutions as they are multiplied with."""
_SHORT_FROM = 16
"""Channels below which transforms would cost more than the products that they save."""


def suits(x: Tensor) -> bool:
    """Whether rows are the faster way: float32 on a processor."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def judged(discriminator: MultiPeriodDiscriminator, wave: Tensor, ready: Ready | None = None) -> Features:
    """``discriminator(wave)``, by rows where that is faster.

    ``ready`` keeps what its weights become from one call to the next, for calls between which they do not change, and
    in which they get no gradients.
    """
    if not suits(wave):
        return discriminator(wave)
    return [_judged(judge, wave, ready) for judge in discriminator.discriminators]


def decoded(decoder: HifiganDecoder, latent: Tensor, speaker: Tensor, sines: Tensor | None) -> Tensor:
    """``decoder(latent, speaker, sines)``, by rows where that is faster."""
    if not suits(latent):
        wave: Tensor = decoder(latent, speaker, sines)
        return wave
    source = None if sines is None else decoder.m_source(sines).mT
    x = _conv(decoder.conv_pre, latent.mT) + decoder.cond(speaker).mT
    blocks = decoder.blocks_per_stage
    for index, up in enumerate(decoder.ups):
        assert isinstance(up, nn.ConvTranspose1d)
        x = F.leaky_relu(x, hifigan.SLOPE)
        x = run_conv(x, up.weight, up.bias, rate=up.stride[0], padding=_number(up.padding))
        if source is not None:
            x = x + _conv(decoder.noise_convs[index], source)
        total = _residual(decoder.resblocks[index * blocks], x)
        for block in decoder.resblocks[index * blocks + 1 : (index + 1) * blocks]:
            total = total + _residual(block, x)
        x = total / blocks
    return torch.tanh(_narrow(decoder.conv_post, F.leaky_relu(x, hifigan.LAST_SLOPE))).mT


def posterior(encoder: PosteriorEncoder, spectrogram: Tensor, speaker: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``encoder(spectrogram, speaker, mask)``, by rows where that is faster."""
    if not suits(spectrogram):
        mean, log_scale = encoder(spectrogram, speaker, mask)
        return mean, log_scale
    counts = mask.mT
    x = _gated(encoder.enc, _one(encoder.pre, spectrogram.mT) * counts, speaker, counts)
    mean, log_scale = (_one(encoder.proj, x) * counts).mT.chunk(2, 1)
    return mean, log_scale


def flowed(flow: Flow, latent: Tensor, speaker: Tensor, mask: Tensor) -> Tensor:
    """``flow(latent, speaker, mask)``, by rows where that is faster."""
    if not suits(latent):
        x: Tensor = flow(latent, speaker, mask)
        return x
    counts, x = mask.mT, latent.mT
    for coupling in flow.flows.values():
        assert isinstance(coupling, Coupling)
        first, second = x.chunk(2, 2)
        shift = _one(coupling.post, _gated(coupling.enc, _one(coupling.pre, first) * counts, speaker, counts))
        x = torch.cat([first, (second + shift) * counts], 2).flip(2)
    return x.mT


def _gated(network: WaveNet, x: Tensor, speaker: Tensor, counts: Tensor) -> Tensor:
    """``WaveNet.forward`` over rows; ``counts`` is ``[batch, rows, 1]``."""
    width = network.channels
    conditions = network.cond_layer(speaker).mT.split(2 * width, 2)
    skip = None
    for layer, res_skip, condition in zip(network.in_layers, network.res_skip_layers, conditions, strict=True):
        assert isinstance(layer, nn.Conv1d)
        signal, gate = (short_conv(x, layer.weight, layer.bias) + condition).chunk(2, 2)
        out = _one(res_skip, torch.tanh(signal) * torch.sigmoid(gate))
        if out.shape[2] > width:
            residual, out = out.chunk(2, 2)
            x = (x + residual) * counts
        skip = out if skip is None else skip + out
    assert skip is not None
    return skip * counts


def _one(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution of one tap: a product per row."""
    assert isinstance(conv, nn.Conv1d)
    return F.linear(x, conv.weight[..., 0], conv.bias)


def _judged(judge: nn.Module, wave: Tensor, ready: Ready | None) -> list[Tensor]:
    if isinstance(judge, ScaleDiscriminator):
        return _scale(judge, wave, ready)
    assert isinstance(judge, PeriodDiscriminator)
    batch, period = len(wave), judge.period
    folded = F.pad(wave, (0, -wave.shape[2] % period), "reflect").unflatten(2, (-1, period))
    x = folded.transpose(1, 3).reshape(batch * period, -1, 1)  # each column is a signal of its own
    features = []
    for conv in judge.convs:
        x = F.leaky_relu(_conv(conv, x, ready), SLOPE, inplace=True)
        features.append(x)
    features.append(_conv(judge.conv_post, x, ready))
    return [x.unflatten(0, (batch, period)).permute(0, 3, 2, 1) for x in features]


def _scale(judge: ScaleDiscriminator, wave: Tensor, ready: Ready | None) -> list[Tensor]:
    """Grouped convolutions as the module does them, and the others by rows."""
    features, x = [], wave
    for conv in judge.convs[:-1]:
        x = F.leaky_relu(conv(x), SLOPE)
        features.append(x)
    x = F.leaky_relu(_conv(judge.convs[-1], x.mT, ready), SLOPE, inplace=True)
    return [*features, x.mT, _conv(judge.conv_post, x, ready).mT]


def _residual(block: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(block, ResBlock1 | ResBlock2)
    if isinstance(block, ResBlock2):
        for conv in block.convs:
            x = _rectified(conv, x, x)
        return x
    for first, second in zip(block.convs1, block.convs2, strict=True):
        x = _rectified(second, _rectified(first, x), x)
    return x


def _rectified(conv: nn.Module, x: Tensor, residual: Tensor | None = None) -> Tensor:
    assert isinstance(conv, nn.Conv1d)
    return short_conv(x, conv.weight, conv.bias, dilation=conv.dilation[0], slope=hifigan.SLOPE, residual=residual)


def _conv(conv: nn.Module, x: Tensor, ready: Ready | None = None) -> Tensor:
    """A convolution, with or without a second axis of size 1, over rows."""
    assert isinstance(conv, nn.Conv1d | nn.Conv2d)
    outputs, inputs, taps = conv.weight.shape[:3]
    short = conv.stride[0] == 1 and taps > 1 and min(outputs, inputs) >= _SHORT_FROM
    made = None
    if ready is not None:
        if conv not in ready:
            with torch.no_grad():
                ready[conv] = (spectra_of if short else window_matrix)(conv.weight.flatten(2))
        made = ready[conv]
    if short:
        return short_conv(x, conv.weight.flatten(2), conv.bias, spectra=made)
    matrix = window_matrix(conv.weight.flatten(2)) if made is None else made
    return window_conv(x, matrix, conv.bias, taps=taps, stride=conv.stride[0], padding=_number(conv.padding))


def _narrow(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution to one channel: taps are added up after the product, so that no windows are written."""
    assert isinstance(conv, nn.Conv1d)
    taps, rows = conv.weight.shape[2], x.shape[1]
    each = F.pad(x @ conv.weight[0], (0, 0, taps // 2, taps // 2))
    wave = sum((each[:, tap : tap + rows, tap : tap + 1] for tap in range(1, taps)), each[:, :rows, :1])
    return wave if conv.bias is None else wave + conv.bias


def _number(padding: str | tuple[int, ...]) -> int:
    assert not isinstance(padding, str)
    return padding[0]
