"""A voice, live: hops of streams through all stages, as ``(state, hop) -> (state', hop')``.

Everything is cut on a fixed grid of hops, so what comes out does not depend on how the caller's blocks were cut. The
delay is constant and added up from the parts. Streams that are converted together do not touch each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rocktop_ray.conversion import blend_protected
from rocktop_ray.convert import Converter
from rocktop_ray.errors import SettingsError
from rocktop_ray.live.acoustic import AcousticState, Draws, acoustic_stream
from rocktop_ray.live.ears import Ears, EarsState
from rocktop_ray.live.entrance import Entrance, EntranceState
from rocktop_ray.live.layout import FIRST_ROW, TAKE_FRAME, LiveLayout
from rocktop_ray.live.loudness import LoudnessState, begin_loudness, mix_loudness
from rocktop_ray.live.melody import Melody
from rocktop_ray.live.parts import LiveParts
from rocktop_ray.live.resample import StreamResampler
from rocktop_ray.live.threads import limit_blas
from rocktop_ray.live.vocoder import VocoderState, vocoder_stream
from rocktop_ray.noise import KeptNoise
from rocktop_ray.protocols import TAKE_RATE, Array
from rocktop_ray.settings import ConvertSettings

__all__ = ["LiveConverter", "LiveLayout", "LiveState"]

_FADE = TAKE_RATE // 50
"""Samples over which the stream goes over to the take and back: 20 ms."""
_CUT = TAKE_RATE // 200
"""Samples over which it goes over where there is no time to convert any more: 5 ms."""


@dataclass(frozen=True)
class LiveState:
    """A stream under way. The sizes of its parts never change."""

    frames: int
    """Frames taken in so far."""
    entrance: EntranceState
    take: Array
    """The last of the take at 48 kHz, as much as the stream is late."""
    ears: EarsState
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


@dataclass
class _Turn:
    """One hop of one stream."""

    state: LiveState
    after: LiveState
    audio: Array
    """What the ears are given."""
    late: Array
    """The take, as late as what comes out."""
    settings: ConvertSettings
    wave: Array | None = None


class LiveConverter:
    """One voice with all that a stream of it needs, for any number of streams.

    Raises SettingsError if the voice has no streaming form.
    """

    def __init__(self, parts: LiveParts | Converter, layout: LiveLayout | None = None, *, name: str = "") -> None:
        """``name`` stands in the states of streams, so that they find their voice again.

        From here on, numpy's products have one thread in this process: see ``threads``.
        """
        limit_blas()
        self.parts = parts = LiveParts.of(parts)
        self.layout, self.name = layout or LiveLayout(), name
        spec = parts.voice.spec
        self._out_of = StreamResampler(spec.sample_rate, TAKE_RATE)
        self._ears: Ears = parts.ears(self.layout)
        self._entrance = Entrance(self._ears.needs)
        self._acoustic = acoustic_stream(parts.voice, self.layout.acoustic_left, parts.live_net)
        self._vocoder = vocoder_stream(parts.voice)
        late = (self._vocoder.delay + self._out_of.delay) * TAKE_RATE / spec.sample_rate
        lag = self._ears.lag + self._acoustic.lag
        self.delay = round(self._entrance.delay + lag * TAKE_FRAME + late)
        """Samples at 48 kHz by which what comes out of ``step`` is later than what goes in."""
        self.hop = self.layout.hop * TAKE_FRAME
        """Samples at 48 kHz of a hop."""
        self.parts_exact = {
            **self._ears.parts_exact,
            "acoustic": parts.live_net is not None,
            "vocoder": True,
        }
        """Which stages compute every frame once, as it would be in a whole; the others run over windows."""
        self._rewarming = self._acoustic.warming + -(-self._vocoder.delay // spec.hop) + self.layout.hop

    @property
    def exact(self) -> bool:
        """Whether no stage runs over windows."""
        return all(self.parts_exact.values())

    def facts(self) -> dict[str, object]:
        """What a stream is like, as plain data."""
        return {
            "hop_ms": self.layout.hop * 10,
            "delay_ms": self.delay * 1000 / TAKE_RATE,
            "exact": self.exact,
            "parts_exact": dict(self.parts_exact),
            "ears_lag_ms": self._ears.lag * 10,
            "acoustic_lag_ms": self._acoustic.lag * 10,
            "vocoder_delay_ms": self._vocoder.delay * 1000 / self.parts.voice.spec.sample_rate,
        }

    def begin(self) -> LiveState:
        """The state before the first sample: silence so far."""
        return LiveState(
            0,
            self._entrance.begin(),
            np.zeros(self.delay, np.float32),
            self._ears.begin(),
            self._acoustic.begin(),
            self._vocoder.begin(),
            self._out_of.begin(),
            begin_loudness(),
            1.0,
            0,
            np.zeros(_CUT, np.float32),
        )

    def begin_beside(self, other: LiveConverter, state: LiveState, frames: int) -> tuple[LiveState, int]:
        """The state of this voice beside another one that has taken the stream to ``state``, at frame ``frames`` of
        this one's grid, and how many frames it must convert before it is worth hearing.

        What both remember of the take is taken over.
        """
        fresh, ears = self.begin(), self._ears
        take = np.concatenate([np.zeros(self.delay, np.float32), state.take])[len(state.take) :]
        heard = ears.same == other._ears.same
        begun = replace(
            fresh,
            frames=frames,
            entrance=self._entrance.beside(state.entrance),
            take=take,
            ears=state.ears if heard else fresh.ears,
        )
        return begun, self._rewarming + (0 if heard else 50)

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
        states, waves = self.step_many([state], [hop], [settings], [bypass], [skip])
        return states[0], waves[0]

    def step_many(
        self,
        states: Sequence[LiveState],
        hops: Sequence[Array],
        settings: Sequence[ConvertSettings],
        bypass: Sequence[bool],
        skip: Sequence[bool] | None = None,
    ) -> tuple[list[LiveState], list[Array]]:
        """``step`` for several streams, whose hops go through the networks together; within 1e-5 of one by one."""
        turns = self._entered(states, hops, settings)
        skips = skip or [False] * len(turns)
        rests = [cut or (dry and turn.state.wet == 0) for turn, dry, cut in zip(turns, bypass, skips, strict=True)]
        working = [turn for turn, rest in zip(turns, rests, strict=True) if not rest]
        if working:
            self._convert(working)
        made = [self._left(turn, dry) for turn, dry in zip(turns, bypass, strict=True)]
        return [state for state, _ in made], [wave for _, wave in made]

    def _entered(
        self, states: Sequence[LiveState], hops: Sequence[Array], settings: Sequence[ConvertSettings]
    ) -> list[_Turn]:
        """What the ears are given, and the take as late as what will come out."""
        entrances, heard = self._entrance.step([state.entrance for state in states], hops, settings)
        turns = []
        for state, hop, wanted, entrance, audio in zip(states, hops, settings, entrances, heard, strict=True):
            take = np.concatenate([state.take, hop])
            frames, kept = state.frames + self.layout.hop, take[self.hop :].copy()
            after = replace(state, frames=frames, entrance=entrance, take=kept)
            turns.append(_Turn(state, after, audio, take[: self.hop].copy(), wanted))
        return turns

    def _convert(self, turns: Sequence[_Turn]) -> None:
        """The networks, over one hop of each stream."""
        fresh, settings = self.layout.hop, [turn.settings for turn in turns]
        ears, units, melodies = self._ears.step(
            [turn.state.ears for turn in turns], np.stack([turn.audio for turn in turns]), settings
        )
        blended = [self._retrieved(*each) for each in zip(units, melodies, settings, strict=True)]
        speakers = [each.speaker for each in settings]
        noise = [KeptNoise(each.seed) for each in settings]
        rows = [FIRST_ROW + turn.state.frames - self._ears.lag for turn in turns]
        draws = [Draws(*each) for each in zip(noise, rows, [each.temperature for each in settings], strict=True)]
        acoustic, sounds = self._acoustic.step(
            [turn.state.acoustic for turn in turns], blended, melodies, fresh, speakers, draws
        )
        late = [row - self._acoustic.lag for row in rows]
        vocoder, waves = self._vocoder.step([turn.state.vocoder for turn in turns], sounds, speakers, noise, late)
        leaving, levels = self._out_of.step(np.stack([turn.state.leaving for turn in turns]), np.stack(waves))
        for place, turn in enumerate(turns):
            loudness, wave = mix_loudness(turn.state.loudness, turn.late, levels[place], turn.settings.rms_mix)
            turn.wave = wave
            turn.after = replace(
                turn.after,
                ears=ears[place],
                acoustic=acoustic[place],
                vocoder=vocoder[place],
                leaving=leaving[place],
                loudness=loudness,
            )

    def _retrieved(self, units: Array, melody: Melody, settings: ConvertSettings) -> Array:
        """Units ``[frames, dim]`` at 100/s, moved towards those of the index."""
        index = self.parts.index
        if index is None or settings.index_rate == 0:
            return units
        if len(units) % 2 == 0 and np.array_equal(units[::2], units[1::2]):  # units of 20 ms, each twice
            blended = np.repeat(index.search_blend(units[::2], settings.index_rate), 2, axis=0)
        else:
            blended = index.search_blend(units, settings.index_rate)
        if self.parts.voice.spec.uses_f0 and settings.protect < 0.5:
            blended = blend_protected(blended, units, melody.f0, settings.protect)
        return blended

    def _left(self, turn: _Turn, bypass: bool) -> tuple[LiveState, Array]:
        """The state after the hop, and what comes out of it."""
        state, late = turn.state, turn.late
        if turn.wave is None:
            if state.wet > 0:
                late[:_CUT] += (state.ended[::-1] - late[:_CUT]) * np.linspace(1, 0, _CUT, dtype=np.float32)
            resting = replace(
                turn.after,
                acoustic=self._acoustic.begin(),
                vocoder=self._vocoder.begin(),
                leaving=self._out_of.begin(),
                loudness=begin_loudness(),
                wet=0.0,
                cold=self._rewarming + self._ears.warming,
                ended=late[-_CUT:].copy(),
            )
            return resting, late
        wet = 0.0 if bypass or state.cold > 0 else 1.0
        wave, share = turn.wave, 1.0
        if not wet == state.wet == 1:
            shares = np.clip(state.wet + np.sign(wet - state.wet) * np.arange(1, self.hop + 1) / _FADE, 0, 1)
            wave, share = (late + (wave - late) * shares).astype(np.float32), float(shares[-1])
        cold = max(0, state.cold - self.layout.hop)
        return replace(turn.after, wet=share, cold=cold, ended=wave[-_CUT:].copy()), wave
