"""When a turn of the computing thread waits for more streams."""

from __future__ import annotations

import pytest

from serve_apps.live.compute.gather import Gathering

HOP = 0.04
VOICE, OTHER = 1, 2


def after_a_second(turn: float, sessions: dict[str, float], voices: dict[str, int] | None = None) -> Gathering:
    """25 hops of ``turn`` seconds each; ``sessions``: when in a hop each one comes."""
    gathering = Gathering()
    for hop in range(25):
        for session, phase in sorted(sessions.items(), key=lambda item: item[1]):
            gathering.came(session, (voices or {}).get(session, VOICE), hop * HOP + phase)
        gathering.turned(hop * HOP + 0.03 - turn, hop * HOP + 0.03)
    return gathering


def test_a_thread_with_time_to_spare_waits_for_nobody() -> None:
    gathering = after_a_second(0.2 * HOP, {"a": 0.0, "b": 0.004})
    gathering.came("a", VOICE, 1.0)
    assert gathering.until(1.0, VOICE, {"a"}, HOP, 1.0) == 1.0


def test_a_busy_thread_waits_a_quarter_of_a_hop_at_most_for_who_is_about_to_come() -> None:
    gathering = after_a_second(0.8 * HOP, {"a": 0.0, "b": 0.004})
    gathering.came("a", VOICE, 1.0)
    assert gathering.until(1.0, VOICE, {"a"}, HOP, 1.0) == pytest.approx(1.0 + HOP / 4)
    assert gathering.until(1.0, VOICE, {"a"}, HOP, 1.0 + HOP / 4) == 1.0 + HOP / 4, "no longer"
    gathering.came("b", VOICE, 1.004)
    assert gathering.until(1.0, VOICE, {"a", "b"}, HOP, 1.004) == 1.004, "all are there"


def test_the_wait_grows_with_how_busy_the_thread_is() -> None:
    waits = []
    for busy in (0.3, 0.4, 0.5, 0.6, 0.8):
        gathering = after_a_second(busy * HOP, {"a": 0.0, "b": 0.0001})
        gathering.came("a", VOICE, 1.0)
        waits.append(gathering.until(1.0, VOICE, {"a"}, HOP, 1.0) - 1.0)
    assert waits[0] < 0.02 * HOP and waits[-1] == pytest.approx(HOP / 4)
    assert waits == sorted(waits) and len({round(wait, 5) for wait in waits}) >= 4


@pytest.mark.parametrize(("phase", "voice"), [(0.02, VOICE), (0.004, OTHER)], ids=["comes too late", "another voice"])
def test_who_could_not_take_part_is_not_waited_for(phase: float, voice: int) -> None:
    gathering = after_a_second(0.8 * HOP, {"a": 0.0, "b": phase}, {"b": voice})
    gathering.came("a", VOICE, 1.0)
    assert gathering.until(1.0, VOICE, {"a"}, HOP, 1.0) == 1.0


def test_who_has_gone_is_soon_not_waited_for() -> None:
    gathering = after_a_second(0.8 * HOP, {"a": 0.0, "b": 0.004})  # b came last at 0.964
    for at in (1.0, 1.04):
        gathering.came("a", VOICE, at)
        gathering.turned(at, at + 0.8 * HOP)
    assert gathering.until(1.04, VOICE, {"a"}, HOP, 1.04) == 1.04


def test_a_single_session_that_fell_behind_does_not_wait_for_itself() -> None:
    gathering = after_a_second(0.9 * HOP, {"a": 0.0})
    gathering.came("a", VOICE, 1.0)
    gathering.came("a", VOICE, 1.001)
    assert gathering.until(1.0, VOICE, {"a"}, HOP, 1.001) == 1.001
