"""The bundle's voice behind the pipeline's protocols."""

from __future__ import annotations

import numpy as np
import torch

from rocktop_ray.errors import SettingsError
from rocktop_ray.models.singer.about import SingerAbout
from rocktop_ray.models.singer.filters import SourceFilter
from rocktop_ray.models.singer.network import REFERENCE_HZ, SingerNet
from rocktop_ray.models.singer.source import filled, pulses
from rocktop_ray.models.singer.stream import NetStream, VocoderStream
from rocktop_ray.protocols import FRAME_RATE, Array, ContentSpec, Noise, VoiceSpec

SEGMENT = 500
"""Frames rendered at once: bounds memory, changes nothing."""
BEFORE = 2
"""Earlier frames that still ring in a frame."""


class SingerVoice:
    """A voice of the project's own kind (``protocols.VoiceModel``): ``SingerNet`` and a source-filter vocoder.

    A latent frame is a list of log amplitudes, see ``filters``. It does not depend on noise; the vocoder draws table
    "source", one row per sample.
    """

    def __init__(self, net: SingerNet, about: SingerAbout, *, device: str = "cpu") -> None:
        self.about = about
        self._device = torch.device(device)
        self._net = net.float().eval().requires_grad_(False).to(self._device)
        self._synth = SourceFilter(net.config, about.sample_rate).to(self._device)
        self._spec = VoiceSpec(
            sample_rate=about.sample_rate,
            hop=about.sample_rate // FRAME_RATE,
            content=ContentSpec(about.encoder, net.config.content_dim),
            uses_f0=True,
            speakers=net.config.speakers,
            latent_dim=net.config.latent_dim,
        )

    @property
    def spec(self) -> VoiceSpec:
        """What the pipeline must know."""
        return self._spec

    def net_stream(self) -> NetStream:
        """The frame network's streaming form, which shares its weights. Raises SettingsError off the processor."""
        self._needs_processor()
        return NetStream(self._net)

    def vocoder_stream(self) -> VocoderStream:
        """The vocoder's streaming form. Raises SettingsError off the processor."""
        self._needs_processor()
        return VocoderStream(self._synth, self.about.sample_rate)

    def _needs_processor(self) -> None:
        if self._device.type != "cpu":
            raise SettingsError("the voice has a streaming form on the processor only: use --device cpu", stage="voice")

    @torch.inference_mode()
    def latent(
        self,
        units: Array,
        f0: Array | None,
        *,
        speaker: int = 0,
        temperature: float = 0.66666,
        noise: Noise | None = None,
        frame_offset: int = 0,
    ) -> Array:
        """Units ``[frames, dim]`` at 100/s, F0 ``[frames]`` in Hz -> log amplitudes ``[latent_dim, frames]``.

        ``temperature``, ``noise`` and ``frame_offset`` have no effect: nothing is drawn here. Raises SettingsError
        for a speaker that the voice does not have, and for shapes that do not fit.
        """
        if not 0 <= speaker < self._spec.speakers:
            raise SettingsError(
                f"this voice has speakers 0 to {self._spec.speakers - 1}, not {speaker}", stage="acoustic"
            )
        if units.ndim != 2 or units.shape[1] != self._spec.content.dim:
            raise SettingsError(
                f"units must be [frames, {self._spec.content.dim}], not {units.shape}", stage="acoustic"
            )
        pitch = _checked_f0(f0, len(units), "acoustic")
        log_f0 = np.log2(filled(pitch) / REFERENCE_HZ)

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(self._device)[None]

        latent = self._net(
            tensor(units), tensor(log_f0), tensor(pitch > 0), torch.tensor([speaker], device=self._device)
        )
        result: Array = latent[0].cpu().numpy()
        return result

    @torch.inference_mode()
    def wave(
        self,
        latent: Array,
        f0: Array | None,
        *,
        speaker: int = 0,
        noise: Noise | None = None,
        frame_offset: int = 0,
        start: int = 0,
        stop: int | None = None,
    ) -> Array:
        """Latent ``[latent_dim, frames]``, F0 ``[frames]`` in Hz -> wave ``[(stop - start) * hop]`` at the spec's rate.

        The pulses' phase is 0 at the latent's first frame. Without ``noise`` only the harmonics sound. ``speaker`` has
        no effect: the latent holds all of it. Raises SettingsError for shapes that do not fit.
        """
        if latent.ndim != 2 or latent.shape[0] != self._spec.latent_dim:
            raise SettingsError(
                f"the latent must be [{self._spec.latent_dim}, frames], not {latent.shape}", stage="vocoder"
            )
        frames = latent.shape[1]
        stop = frames if stop is None else stop
        if not 0 <= start <= stop <= frames:
            raise SettingsError(f"frames {start} to {stop} are not inside 0 to {frames}", stage="vocoder")
        pitch = filled(_checked_f0(f0, frames, "vocoder"))
        parts = [
            self._segment(latent, pitch, noise, frame_offset, part, min(part + SEGMENT, stop))
            for part in range(start, stop, SEGMENT)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _segment(
        self, latent: Array, pitch: np.ndarray, noise: Noise | None, frame_offset: int, start: int, stop: int
    ) -> Array:
        """Frames ``start .. stop`` (not empty). Frame i's window spans the hops i - 1 and i, and it rings two more."""
        hop, frames = self._spec.hop, latent.shape[1]
        first = max(start - BEFORE, 0)
        held = np.minimum(np.arange(first, stop + 1), frames - 1)
        from_hop, to_hop = max(first - 1, 0), min(stop + 1, frames)
        edges = ((from_hop - (first - 1)) * hop, (stop + 1 - to_hop) * hop)
        rows = (to_hop - from_hop) * hop

        def analysed(excitation: Array) -> torch.Tensor:
            padded = torch.from_numpy(np.pad(excitation, edges)).to(self._device)[None]
            return self._synth.analyse(padded)

        harmonic, noisy = self._synth.filters(torch.from_numpy(latent[:, held]).to(self._device)[None])
        spectra = analysed(pulses(pitch, from_hop, to_hop, hop, self._spec.sample_rate)) * harmonic
        if noise is not None:
            drawn = noise.normal("source", (frame_offset + from_hop) * hop, rows, 1)[:, 0]
            spectra = spectra + analysed(drawn) * noisy
        skip = (start - first + 1) * hop
        wave: Array = self._synth.join(spectra)[0, skip : skip + (stop - start) * hop].cpu().numpy()
        return wave


def _checked_f0(f0: Array | None, frames: int, stage: str) -> Array:
    if f0 is None or f0.shape != (frames,):
        found = "none" if f0 is None else str(f0.shape)
        raise SettingsError(f"this voice needs F0 of shape ({frames},), got {found}", stage=stage)
    return f0
