"""Ears in another process: it computes what is heard and keeps nothing; what is remembered travels with each call.

So any process that has ears of the same plan can answer any call, and gives what ears in this process would have
given, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rocktop_ray.live.ears import Ears, EarsState
from rocktop_ray.live.layout import LiveLayout
from rocktop_ray.live.melody import Melody
from rocktop_ray.live.state import pack, unpack
from rocktop_ray.protocols import Array
from rocktop_ray.settings import ConvertSettings


@dataclass(frozen=True)
class EarsPlan:
    """Which ears; those of equal plans hear the same."""

    encoder: str | None = None
    """Name of the content encoder; None: the listener of the package hears all."""
    f0: bool = True
    """Whether F0 is asked for."""
    extractor: str | None = None
    """Where F0 comes from, if there is an encoder: see ``live_pitch``."""
    layout: LiveLayout | None = None
    """How the stream is cut, where there is an encoder."""


@dataclass(frozen=True)
class EarsFacts:
    """What ears are like: see ``Ears``."""

    lag: int
    needs: int
    warming: int
    parts_exact: dict[str, bool]
    fresh: EarsState
    """Nothing heard yet."""

    @classmethod
    def of(cls, ears: Ears) -> EarsFacts:
        """Those of ears that are here."""
        return cls(ears.lag, ears.needs, ears.warming, ears.parts_exact, ears.begin())


@dataclass(frozen=True)
class Hear:
    """A hop of several streams: what ``Ears.step`` is given."""

    plan: EarsPlan
    states: tuple[bytes, ...]
    """See ``state.pack``."""
    audio: Array
    settings: tuple[ConvertSettings, ...]


@dataclass(frozen=True)
class Heard:
    """What ``Ears.step`` returns."""

    states: tuple[bytes, ...]
    units: tuple[Array, ...]
    melodies: tuple[Melody, ...]


def hear(ears: Ears, fresh: EarsState, call: Hear) -> Heard:
    """Answer a call where the ears are. fresh: a state of theirs. Raises StreamStateError, AudioError."""
    states = [unpack(state, fresh) for state in call.states]
    after, units, melodies = ears.step(states, call.audio, call.settings)
    return Heard(tuple(map(pack, after)), tuple(units), tuple(melodies))


class FarEars:
    """Implements ``ears.Ears`` by calls."""

    def __init__(self, plan: EarsPlan, facts: EarsFacts, ask: Callable[[Hear], Heard]) -> None:
        """ask: brings a call to where the ears are and comes back with the answer; may raise RocktopError."""
        self._plan, self._fresh, self._ask = plan, facts.fresh, ask
        self.lag, self.needs, self.warming = facts.lag, facts.needs, facts.warming
        self.parts_exact = facts.parts_exact
        self.same: tuple[object, ...] = (plan,)

    def begin(self) -> EarsState:
        """Nothing heard yet."""
        return self._fresh

    def step(
        self, states: Sequence[EarsState], audio: Array, settings: Sequence[ConvertSettings]
    ) -> tuple[list[EarsState], list[Array], list[Melody]]:
        """See ``Ears``. Raises what ``ask`` does; nothing is lost then."""
        heard = self._ask(Hear(self._plan, tuple(map(pack, states)), audio, tuple(settings)))
        after = [unpack(state, self._fresh) for state in heard.states]
        return after, list(heard.units), list(heard.melodies)
