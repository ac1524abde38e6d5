"""Mix two voices of the same shape into one."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from rocktop_ray.errors import SettingsError, VoiceFormatError
from rocktop_ray.voices.rvc_check import describe
from rocktop_ray.voices.rvc_format import RvcFile


def merge(a: RvcFile, b: RvcFile, alpha: float, *, info: str = "") -> RvcFile:
    """``alpha * a + (1 - alpha) * b``, tensor by tensor, in float32; the result has the types of ``a``.

    If the voices differ in speakers, the first rows that both have are kept. Raises SettingsError if ``alpha`` is not
    between 0 and 1, VoiceFormatError if the two are not of the same shape.
    """
    if not 0 <= alpha <= 1:
        raise SettingsError(f"alpha must be between 0 and 1, not {alpha}")
    speakers = min(a.config.speakers, b.config.speakers)
    config = replace(a.config, speakers=speakers)
    same = replace(b.config, speakers=speakers, segment_size=a.config.segment_size, p_dropout=a.config.p_dropout)
    if config != same or a.state.keys() != b.state.keys():
        raise VoiceFormatError(
            f"only voices of the same shape can be merged: {describe(a.config)} and {describe(b.config)}"
        )
    if a.content_name != b.content_name:
        raise VoiceFormatError(f"these voices sing different units: {a.content_name} and {b.content_name}")
    state = {name: _mix(tensor, b.state[name], alpha, speakers, name) for name, tensor in a.state.items()}
    licence = a.licence if a.licence == b.licence else "; ".join(filter(None, (a.licence, b.licence)))
    return replace(a, config=config, state=state, info=info, licence=licence, training_data="")


def _mix(a: Tensor, b: Tensor, alpha: float, speakers: int, name: str) -> Tensor:
    if name == "emb_g.weight":
        a, b = a[:speakers], b[:speakers]
    return (alpha * a.float() + (1 - alpha) * b.float()).to(a.dtype)
