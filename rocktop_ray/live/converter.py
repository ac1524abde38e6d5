"""A voice, live: hops of a stream through all stages, as ``(state, hop) -> (state', hop')``.

Everything is cut on a fixed grid of hops, so what comes out does not depend on how the caller's blocks were cut. The
delay is constant and added up from the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import signal

from rocktop_ray.audio.highpass import CUTOFF
from rocktop_ray.chunks import FRAME, PAD
from rocktop_ray.conversion import blend_protected
from rocktop_ray.convert import Converter
from rocktop_ray.errors import SettingsError
from rocktop_ray.features import formant
from rocktop_ray.live.acoustic import AcousticState, Draws, acoustic_stream
from rocktop_ray.live.content import ContentState, ContentWindow
from rocktop_ray.live.loudness import LoudnessState, begin_loudness, mix_loudness
from rocktop_ray.live.melody import DEFAULT_HZ, Melody, MelodyState, MelodyWindow
from rocktop_ray.live.resample import StreamResampler
from rocktop_ray.live.vocoder import VocoderState, vocoder_stream
from rocktop_ray.noise import KeptNoise
from rocktop_ray.protocols import ENCODER_RATE, TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings

TAKE_FRAME = TAKE_RATE // 100
_OFFSET = PAD // FRAME
"""Row of the noise tables that belongs to the stream's first frame: that of an offline conversion's."""
_FADE = TAKE_RATE // 50
"""Samples over which the stream goes over to the take and back: 20 ms."""
_CUT = TAKE_RATE // 200
"""Samples over which it goes over where there is no time to convert any more: 5 ms."""


@dataclass(frozen=True)
class LiveLayout:
    """How a stream is cut, in frames of 10 ms; all even, as units come at 50/s.

    Raises SettingsError for values out of range.

    Attributes:
        hop: frames that are converted at a time, 2..100.
        ahead: frames that encoder, extractor and acoustic model hear after the newest converted one, 0..100.
        left: frames before that the encoder hears, 20..1000.
        pitch_left: frames before that the extractor hears, 4..1000.
        acoustic_left: frames before that an acoustic model without a streaming form gets, 20..1000.
    """

    hop: int = 10
    ahead: int = 10
    left: int = 150
    pitch_left: int = 30
    acoustic_left: int = 60

    def __post_init__(self) -> None:
        ranges = {"hop": (2, 100), "ahead": (0, _OFFSET), "left": (20, 1000), "acoustic_left": (20, 1000)}
        ranges["pitch_left"] = (4, 1000)
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high or value % 2:
                raise SettingsError(f"{name} must be an even number of frames from {low} to {high}, not {value!r}")


@dataclass(frozen=True)
class LiveState:
    """A stream under way. The sizes of its parts never change."""

    frames: int
    """Frames taken in so far."""
    entering: Array
    filtered: np.ndarray
    """State of the high-pass."""
    audio: Array
    """The last of the take at 16 kHz, as much as is heard again."""
    take: Array
    """The last of the take at 48 kHz, as much as the stream is late."""
    content: ContentState
    melody: MelodyState
    acoustic: AcousticState
    vocoder: VocoderState
    leaving: Array
    loudness: LoudnessState
    wet: float
    """Share of the converted in what came out last: 0 while bypassed."""
    cold: int
    """Frames that must still go through the networks before the converted may sound again."""
    ended: Array
    """The last 5 ms that came out."""


class LiveConverter:
    """One voice with its encoder, extractor and index, for any number of streams.

    Raises SettingsError if the voice has no streaming form.
    """

    def __init__(self, parts: Converter, layout: LiveLayout | None = None, *, name: str = "") -> None:
        """``name`` stands in the states of streams, so that they find their voice again."""
        self.parts, self.layout, self.name = parts, layout or LiveLayout(), name
        spec = parts.voice.spec
        self._into = StreamResampler(TAKE_RATE, ENCODER_RATE)
        self._out_of = StreamResampler(spec.sample_rate, TAKE_RATE)
        self._highpass = signal.butter(5, CUTOFF, btype="high", fs=ENCODER_RATE, output="sos")
        self._content = ContentWindow(parts.encoder, self.layout.left // 2)
        self._melody = None if parts.extractor is None or not spec.uses_f0 else MelodyWindow(parts.extractor)
        self._before = max(self._content.needs, self.layout.pitch_left * FRAME)
        self._acoustic = acoustic_stream(parts.voice, self.layout.acoustic_left)
        self._vocoder = vocoder_stream(parts.voice)
        late = (self._vocoder.delay + self._out_of.delay) * TAKE_RATE / spec.sample_rate
        self.delay = round(self._into.delay + self.layout.ahead * TAKE_FRAME + late)
        """Samples at 48 kHz by which what comes out of ``step`` is later than what goes in."""
        self.hop = self.layout.hop * TAKE_FRAME
        """Samples at 48 kHz of a hop."""
        self.warming = -(-self._vocoder.delay // spec.hop) + self.layout.hop
        """Frames that a voice which joins under way converts before it is heard."""

    def begin(self) -> LiveState:
        """The state before the first sample: silence so far."""
        layout = self.layout
        return LiveState(
            0,
            self._into.begin(),
            np.zeros((len(self._highpass), 2)),
            np.zeros(self._before + layout.ahead * FRAME, np.float32),
            np.zeros(self.delay, np.float32),
            self._content.begin(),
            MelodyState(np.zeros(0, np.float32), 0.0) if self._melody is None else self._melody.begin(),
            self._acoustic.begin(),
            self._vocoder.begin(),
            self._out_of.begin(),
            begin_loudness(),
            1.0,
            0,
            np.zeros(_CUT, np.float32),
        )

    def begin_beside(self, other: LiveConverter, state: LiveState, frames: int) -> LiveState:
        """The state of this voice beside another one that has taken the stream to ``state``, at frame ``frames`` of
        this one's grid. What both remember of the take is taken over.
        """
        fresh = self.begin()
        take, audio = (
            np.concatenate([np.zeros(len(own), np.float32), theirs])[len(theirs) :]
            for own, theirs in ((fresh.take, state.take), (fresh.audio, state.audio))
        )
        return replace(fresh, frames=frames, entering=state.entering, filtered=state.filtered, audio=audio, take=take)

    def check(self, settings: ConvertSettings) -> None:
        """Raise SettingsError for settings that a stream of this voice cannot follow."""
        if settings.speaker >= self.parts.voice.spec.speakers:
            raise SettingsError(
                f"the voice has speakers 0 to {self.parts.voice.spec.speakers - 1}, not {settings.speaker}"
            )
        if settings.auto_key:
            raise SettingsError("a stream cannot choose its key from a melody to come: give a key")

    def step(
        self, state: LiveState, hop: Array, settings: ConvertSettings, *, bypass: bool = False, skip: bool = False
    ) -> tuple[LiveState, Array]:
        """One hop ``[hop]`` at 48 kHz -> as much of the stream, ``delay`` samples earlier.

        Settings may differ from those of the hop before. With ``bypass`` the take itself goes through, equally late;
        the networks rest, and are given time to hear themselves in before the converted is faded in again. With
        ``skip`` they rest at once, which costs a fade of 5 ms over what came before in place of 20 ms of both.
        """
        entering, low = self._into.step(state.entering, hop)
        filtered, carried = signal.sosfilt(self._highpass, low, zi=state.filtered)
        audio = np.concatenate([state.audio, filtered.astype(np.float32)])
        take = np.concatenate([state.take, hop])
        late, kept = take[: self.hop].copy(), take[self.hop :].copy()
        state = replace(state, entering=entering, filtered=carried, audio=audio[self.layout.hop * FRAME :], take=kept)
        after = replace(state, frames=state.frames + self.layout.hop)
        if skip or (bypass and state.wet == 0):
            if state.wet > 0:
                late[:_CUT] += (state.ended[::-1] - late[:_CUT]) * np.linspace(1, 0, _CUT, dtype=np.float32)
            resting = replace(
                after,
                acoustic=self._acoustic.begin(),
                vocoder=self._vocoder.begin(),
                leaving=self._out_of.begin(),
                loudness=begin_loudness(),
                wet=0.0,
                cold=self.warming,
                ended=late[-_CUT:].copy(),
            )
            return resting, late
        after, wave = self._converted(after, state, audio, late, settings)
        wet = 0.0 if bypass or state.cold > 0 else 1.0
        shares = np.clip(state.wet + np.sign(wet - state.wet) * np.arange(1, self.hop + 1) / _FADE, 0, 1)
        mixed = (wave if wet == state.wet == 1 else late + (wave - late) * shares).astype(np.float32)
        cold = max(0, state.cold - self.layout.hop)
        return replace(after, wet=float(shares[-1]), cold=cold, ended=mixed[-_CUT:].copy()), mixed

    def step_many(
        self,
        states: Sequence[LiveState],
        hops: Sequence[Array],
        settings: Sequence[ConvertSettings],
        bypass: Sequence[bool],
        skip: Sequence[bool],
    ) -> tuple[list[LiveState], list[Array]]:
        """``step`` for several streams at once, within 1e-5 of one by one."""
        made = [
            self.step(state, hop, wanted, bypass=dry, skip=rest)
            for state, hop, wanted, dry, rest in zip(states, hops, settings, bypass, skip, strict=True)
        ]
        return [state for state, _ in made], [wave for _, wave in made]

    def _converted(
        self, after: LiveState, state: LiveState, audio: Array, take: Array, settings: ConvertSettings
    ) -> tuple[LiveState, Array]:
        """The networks over the newest hop. ``take`` is what sounds at the same time as the result."""
        parts, layout = self.parts, self.layout
        fresh, wanted = layout.hop, layout.hop + layout.ahead
        if settings.formant:
            audio = formant.shift(audio, ENCODER_RATE, settings.formant)
        if self._melody is None:
            silent = np.zeros(wanted, np.float32)
            melody_state, melody = state.melody, Melody(silent, silent + np.float32(DEFAULT_HZ))
        else:
            heard = audio[self._before - layout.pitch_left * FRAME :]
            melody_state, melody = self._melody.step(state.melody, heard, fresh, layout.ahead, settings)
        heard = audio[self._before - self._content.needs :]
        content_state, own = self._content.step(state.content, heard, fresh // 2, layout.ahead // 2)
        blended = own
        if parts.index is not None and settings.index_rate > 0:
            blended = parts.index.search_blend(own, settings.index_rate)
        doubled = np.repeat(blended, 2, axis=0)
        if blended is not own and self._melody is not None and settings.protect < 0.5:
            doubled = blend_protected(doubled, np.repeat(own, 2, axis=0), melody.f0, settings.protect)
        noise = KeptNoise(settings.seed)
        row = _OFFSET + state.frames - layout.ahead
        draws = Draws(noise, row - state.acoustic.frames, settings.temperature)
        acoustic, latent = self._acoustic.step(state.acoustic, doubled, melody, fresh, settings.speaker, draws)
        vocoder, wave = self._vocoder.step(
            state.vocoder, latent, melody, settings.speaker, noise, row - state.vocoder.frames
        )
        leaving, wave = self._out_of.step(state.leaving, wave)
        loudness, wave = mix_loudness(state.loudness, take, wave, settings.rms_mix)
        changed = replace(
            after,
            content=content_state,
            melody=melody_state,
            acoustic=acoustic,
            vocoder=vocoder,
            leaving=leaving,
            loudness=loudness,
        )
        return changed, wave
