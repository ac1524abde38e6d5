"""An RVC voice ready to sing: ``protocols.VoiceModel`` over numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rocktop_ray.errors import SettingsError
from rocktop_ray.models.rvc.config import SynthesizerConfig
from rocktop_ray.models.rvc.context import context_frames, way_up_frames
from rocktop_ray.models.rvc.hifigan import HifiganDecoder
from rocktop_ray.models.rvc.latent_stream import LatentStream
from rocktop_ray.models.rvc.pitch_bins import coarse_pitch
from rocktop_ray.models.rvc.refinegan import Jitter, RefineganDecoder
from rocktop_ray.models.rvc.source import sine_source
from rocktop_ray.models.rvc.stream import DecoderStream
from rocktop_ray.models.rvc.synthesizer import build
from rocktop_ray.models.rvc.tiled import TILE, TiledDecoder, grid
from rocktop_ray.models.rvc.weights import fold
from rocktop_ray.protocols import Array, ContentSpec, Noise, VoiceSpec

_PIECE = 20 * TILE
"""Frames rendered at a time, so that memory does not grow with the take."""
_PLAIN_PIECE = 200
"""The same for a decoder that goes through the processor's memory layer by layer."""


class RvcVoice:
    """The synthesizer of an RVC or Applio voice, on one device.

    Args:
        config: sizes of the network.
        state: the file's weights, names and shapes as in the file, any float type.
        content_name: name of the content encoder that the voice was trained on.
        device: torch device.
        dtype: float type of the arithmetic; the sine source is always computed in float32 on the host.

    Raises VoiceFormatError if the weights do not fit the config.
    """

    def __init__(
        self,
        config: SynthesizerConfig,
        state: Mapping[str, Tensor],
        *,
        content_name: str,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.dtype = dtype
        self.model = build(config)
        weights = {name: tensor.to(self.device, dtype) for name, tensor in fold(state, self.model).items()}
        self.model.load_state_dict(weights, assign=True)
        self.model.requires_grad_(False).eval()
        decoder = self.model.dec
        on_cpu = self.device.type == "cpu"
        self._tiles = None
        self._piece = _PLAIN_PIECE if on_cpu else _PIECE
        if on_cpu and dtype == torch.float32 and isinstance(decoder, HifiganDecoder):
            self._tiles = TiledDecoder(decoder)
            self._piece = _PIECE
            decoder.ups.to("meta")  # The tiles hold these weights in their own form.
            decoder.resblocks.to("meta")
        self._way_up = way_up_frames(config) if config.decoder == "refinegan" else 0
        self.context = context_frames(config)
        """Frames around a part that ``wave`` renders with it."""
        self._spec = VoiceSpec(
            sample_rate=config.sample_rate,
            hop=config.hop,
            content=ContentSpec(content_name, config.content_dim),
            uses_f0=config.uses_f0,
            speakers=config.speakers,
            latent_dim=config.inter_channels,
        )

    @property
    def spec(self) -> VoiceSpec:
        """The facts of the voice that the pipeline needs."""
        return self._spec

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
        """Units ``[frames, dim]`` at 100/s, F0 ``[>= frames]`` in Hz -> latent ``[latent_dim, frames]``.

        Raises SettingsError if shapes, F0, speaker or temperature do not go with the voice.
        """
        if units.ndim != 2 or units.shape[1] != self.config.content_dim or not len(units):
            raise SettingsError(
                f"this voice sings units of width {self.config.content_dim} ({self._spec.content.name}): "
                f"found shape {units.shape}",
                stage="acoustic",
            )
        if not 0 <= temperature <= 10:
            raise SettingsError(f"the temperature must be between 0 and 10, not {temperature}", stage="acoustic")
        melody = self._melody(f0, len(units), "acoustic")
        pitch = None if melody is None else torch.from_numpy(coarse_pitch(melody))[None].to(self.device)
        draw = None
        if noise is not None and temperature:
            table = noise.normal("prior", frame_offset, len(units), self.config.inter_channels)
            draw = self._tensor(table.T * np.float32(temperature))
        latent = self.model.latent(self._tensor(units), pitch, self._speaker(speaker), draw)
        return latent[0].float().cpu().numpy()

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
        """Latent ``[latent_dim, frames]``, F0 ``[>= frames]`` in Hz -> wave ``[(stop - start) * hop]``.

        Only frames ``start .. stop`` and the context that they need are rendered. The source's phase counts from the
        arrays' first frame. Raises SettingsError if shapes, F0, speaker or the part do not fit.
        """
        if latent.ndim != 2 or latent.shape[0] != self.config.inter_channels:
            raise SettingsError(
                f"this voice needs latent frames of shape [{self.config.inter_channels}, frames], not {latent.shape}",
                stage="vocoder",
            )
        frames = latent.shape[1]
        stop = frames if stop is None else stop
        if not 0 <= start <= stop <= frames:
            raise SettingsError(f"frames {start} to {stop} are not inside the {frames} given", stage="vocoder")
        if start == stop:
            return np.zeros(0, np.float32)
        melody = self._melody(f0, frames, "vocoder")
        embedded = self._speaker(speaker)
        pieces = []
        for begin, end in grid(start, stop, frame_offset, self._piece):
            low, high = max(0, begin - self.context), min(frames, end + self.context)
            sines = self._sines(melody, low, high, noise, frame_offset)
            seen = self._tensor(latent[:, low:high])
            piece = self._decode(seen, embedded, sines, low, begin, end, noise, frame_offset)
            pieces.append(piece.float().cpu().numpy())
        return np.concatenate(pieces)

    def _decode(
        self,
        latent: Tensor,
        speaker: Tensor,
        sines: Tensor | None,
        low: int,
        start: int,
        stop: int,
        noise: Noise | None,
        frame_offset: int,
    ) -> Tensor:
        """Latent ``[1, latent, frames]`` and source from frame ``low`` on -> wave of frames ``start .. stop``, flat."""
        decoder, hop = self.model.dec, self.config.hop
        if isinstance(decoder, RefineganDecoder):
            assert sines is not None
            first, last = max(low, start - self._way_up), stop + self._way_up
            seen = latent[..., first - low : last - low]
            jitter = None if noise is None else self._jitter(noise, frame_offset + first, seen.shape[2])
            wave = decoder(seen, speaker, sines, jitter, first=first, skip=first - low)
            return wave[0, 0, (start - first) * hop : (stop - first) * hop]
        if self._tiles is not None:
            source = None if sines is None else decoder.m_source(sines)[0, 0]
            offset = frame_offset + low
            return self._tiles.wave(latent[0], speaker[0], source, start=start - low, stop=stop - low, offset=offset)
        return decoder(latent, speaker, sines)[0, 0, (start - low) * hop : (stop - low) * hop]

    def _jitter(self, noise: Noise, row: int, frames: int) -> Jitter:
        """RefineGAN's own noise from the tables ``refine.*``, from frame ``row`` on, for ``frames`` frames."""

        def draw(name: str, channels: int, samples: int) -> Tensor:
            return self._tensor(noise.normal(name, row * (samples // frames), samples, channels).T)

        return draw

    def _sines(self, f0: Array | None, low: int, high: int, noise: Noise | None, frame_offset: int) -> Tensor | None:
        """The source of frames ``low .. high``: ``[1, samples, 1 + overtones]``."""
        if f0 is None:
            return None
        decoder, hop = self.model.dec, self.config.hop
        draw = None
        if noise is not None:
            rows = noise.normal("source", (frame_offset + low) * hop, (high - low) * hop, 1 + decoder.overtones)
            draw = torch.from_numpy(rows)[None]
        sines = sine_source(
            torch.from_numpy(f0)[None],
            hop=hop,
            sample_rate=self.config.sample_rate,
            overtones=decoder.overtones,
            phase_sum=decoder.phase_sum,
            start=low,
            stop=high,
            noise=draw,
        )
        return sines.to(self.device, self.dtype)

    def _melody(self, f0: Array | None, frames: int, stage: str) -> Array | None:
        """F0 of the given frames, checked; None if the voice does not use it."""
        if not self.config.uses_f0:
            return None
        if f0 is None or f0.ndim != 1 or len(f0) < frames:
            found = "none was given" if f0 is None else f"found shape {f0.shape}"
            raise SettingsError(f"this voice needs F0 for {frames} frames: {found}", stage=stage)
        melody = np.ascontiguousarray(f0[:frames])
        if not np.isfinite(melody).all() or (melody < 0).any():
            raise SettingsError("F0 must be 0 (unvoiced) or a positive number of Hz in every frame", stage=stage)
        return melody

    def latent_stream(self, left: int) -> LatentStream:
        """The streaming form of ``latent``, with ``left`` frames of context.

        Raises SettingsError off the processor or in another float type.
        """
        if self.device.type != "cpu" or self.dtype != torch.float32:
            raise SettingsError("only a voice in float32 on the processor has a streaming form", stage="acoustic")
        return LatentStream(self.model, left)

    def decoder_stream(self) -> DecoderStream:
        """The decoder's streaming form, which shares its weights.

        Raises SettingsError where there is none: off the processor, in another float type, or for a RefineGAN.
        """
        decoder = self.model.dec
        if self._tiles is None or not isinstance(decoder, HifiganDecoder):
            raise SettingsError(
                "only a HiFi-GAN decoder in float32 on the processor has a streaming form", stage="vocoder"
            )
        mix = decoder.m_source if self.config.uses_f0 else None
        return DecoderStream(self._tiles, mix, sample_rate=self.config.sample_rate, phase_sum=decoder.phase_sum)

    def speaker_embedding(self, number: int) -> Tensor:
        """The embedding ``[gin, 1]`` of a speaker. Raises SettingsError if there is none of that number."""
        return self._speaker(number)[0]

    def _speaker(self, number: int) -> Tensor:
        if not 0 <= number < self.config.speakers:
            raise SettingsError(f"this voice has speakers 0 to {self.config.speakers - 1}, not {number}", stage="voice")
        return self.model.speaker(torch.tensor([number], device=self.device))

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array))[None].to(self.device, self.dtype)
