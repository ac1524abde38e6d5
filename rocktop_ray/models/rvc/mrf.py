"""How Applio names the weights of its MRF HiFi-GAN, which is ``hifigan.HifiganDecoder`` under other names."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"dec\.mrfs\.(\d+)\.(\d+)\.layers\.(\d+)\.conv([12])\.(.+)")
_OUR_BLOCK = re.compile(r"dec\.resblocks\.(\d+)\.convs([12])\.(\d+)\.(.+)")


def from_applio(name: str, blocks_per_stage: int) -> str:
    """``dec.mrfs.{stage}.{block}.layers.{k}.conv1.*`` -> ``dec.resblocks.{n}.convs1.{k}.*``; others stay."""
    match = _BLOCK.fullmatch(name)
    if match and int(match[2]) < blocks_per_stage:
        return f"dec.resblocks.{int(match[1]) * blocks_per_stage + int(match[2])}.convs{match[4]}.{match[3]}.{match[5]}"
    return name.replace("dec.upsamples.", "dec.ups.", 1)


def to_applio(name: str, blocks_per_stage: int) -> str:
    """The inverse of ``from_applio``."""
    match = _OUR_BLOCK.fullmatch(name)
    if match:
        stage, block = divmod(int(match[1]), blocks_per_stage)
        return f"dec.mrfs.{stage}.{block}.layers.{match[3]}.conv{match[2]}.{match[4]}"
    return name.replace("dec.ups.", "dec.upsamples.", 1)
