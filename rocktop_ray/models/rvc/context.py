"""How far a decoder sees: frames around a part that must be given so that the part renders as in the whole."""

from __future__ import annotations

from rocktop_ray.models.rvc import refinegan
from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.hifigan import EDGE_KERNEL, source_kernel, source_stride, upsampling_padding

_EDGE = EDGE_KERNEL // 2


def context_frames(config: SynthesizerConfig) -> int:
    """Frames before and after a part, of latent and source, that its wave depends on."""
    return _refinegan(config) if config.decoder == "refinegan" else _hifigan(config)


def _hifigan(config: SynthesizerConfig) -> int:
    """Walks from the wave back to the frames; before and after count samples of the current rate outside the part."""
    before = after = _EDGE
    source = 0
    pairs = config.resblock == "1" or config.decoder == "mrf-hifigan"
    block = max(
        _block_reach(kernel, dilations, pairs)
        for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
    )
    for index in reversed(range(len(config.upsample_rates))):
        before, after = before + block, after + block
        if config.uses_f0:
            stride = source_stride(config, index)
            kernel, padding = source_kernel(stride)
            source = max(source, before * stride + padding, (after - 1) * stride + kernel - padding)
        rate, kernel = config.upsample_rates[index], config.upsample_kernel_sizes[index]
        padding, _ = upsampling_padding(rate, kernel)
        before, after = (before + kernel - 1 - padding) // rate, (after - 1 + padding) // rate + 1
    return max(before + _EDGE, after + _EDGE, -(-source // config.hop))


def _refinegan(config: SynthesizerConfig) -> int:
    """The way up from wave to frames, then the source's way down at each rate."""
    reach, copies = _way_up(config)
    source = reach
    for rate, copy in zip(config.upsample_rates, reversed(copies), strict=True):
        source = max(copy, (source + _EDGE) * rate + (refinegan.decimation_reach(rate) if rate > 1 else 0))
    return max(reach + _EDGE, -(-(source + _EDGE) // config.hop))


def way_up_frames(config: SynthesizerConfig) -> int:
    """RefineGAN only: frames before and after a part that its way up depends on; only the source needs more."""
    return _way_up(config)[0] + _EDGE


def _way_up(config: SynthesizerConfig) -> tuple[int, list[int]]:
    """What the way up sees to each side: frames, and samples of the source at each rate, the last first."""
    block = max(_block_reach(kernel, refinegan.BLOCK_DILATIONS, True) for kernel in refinegan.BLOCK_KERNELS)
    reach, copies = _EDGE, []
    for rate in reversed(config.upsample_rates):
        reach += block + _EDGE
        copies.append(reach)
        reach = -(-reach // rate) + 1  # linear interpolation sees one sample more
    return reach, copies


def _block_reach(kernel: int, dilations: tuple[int, ...], pairs: bool) -> int:
    return sum((kernel - 1) // 2 * (dilation + pairs) for dilation in dilations)
