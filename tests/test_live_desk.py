"""The desk of live sessions: who is let in, who sits, and what is parked, with its bounds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from live_voices import RATE

from rocktop_ray.errors import (
    BusyError,
    SessionGoneError,
    SessionTakenError,
    StorageError,
)
from serve_apps.config import LiveConfig
from serve_apps.live.admission import Machine, busy, fits, longest_turn, promised
from serve_apps.live.desk import LocalDesk
from serve_apps.live.engine import LEASE_SECONDS, HopCost
from serve_apps.orders import VoiceRef

ANNA, BERTA = VoiceRef("anna", "anna"), VoiceRef("berta", "berta")


def test_admission_adds_up_what_hops_cost() -> None:
    anna, berta = HopCost("a", 0.004, 0.006, 0.04), HopCost("b", 0.02, 0.02, 0.1)
    assert promised([anna], 1) == pytest.approx(0.25) and promised([anna] * 4, 1) == pytest.approx(0.7)
    assert promised([anna, anna], 2) == pytest.approx(0.25) and promised([anna, berta], 1) == pytest.approx(0.65)
    assert longest_turn([anna] * 3, 2) == pytest.approx(0.4) and promised([], 1) == longest_turn([], 1) == 0
    moved = replace(anna, formant=0.002)
    assert promised([anna, moved, moved], 1) == pytest.approx(0.65), "stream by stream, and only of those that want it"
    assert longest_turn([anna, moved, anna], 2) == pytest.approx(0.45), "at worst it meets another one"
    one, two = Machine(1), Machine(2)
    assert fits([anna] * 4, one, 0.71) and not fits([anna] * 5, one, 0.71) and fits([anna] * 8, two, 0.71)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


COST = HopCost("anna", 0.004, 0.006, 0.04)


def sit(desk: LocalDesk, session: str, live: bool = True, cost: HopCost = COST) -> Any:
    return desk.admit(session, ANNA, RATE, live, sitting=session, cost=cost)


def test_the_desk_lets_in_as_many_as_can_be_served() -> None:
    async def run() -> None:
        desk = LocalDesk(LiveConfig(replicas=4, load=0.71, free_sessions=1, sessions=6), Clock(), at_once=1)
        for n in range(4):
            await sit(desk, f"s{n}")
        with pytest.raises(BusyError) as error:
            await sit(desk, "s4")
        assert error.value.retry_after > 0
        await sit(desk, "free", live=False)
        with pytest.raises(BusyError):
            await sit(desk, "free2", live=False)
        house = await desk.renew("s0", "s0")
        assert house.sessions == 5 and house.load == pytest.approx(0.7) and not house.wanted
        await desk.leave("s0", "s0")
        await sit(desk, "s4")
        with pytest.raises(BusyError):  # a dearer voice in place of the old one: the old one stays
            await sit(desk, "s1", cost=replace(COST, voice="berta", each=0.03))
        assert (await desk.renew("s1", "s1")).sessions == 5
        with pytest.raises(BusyError, match="choose another voice"):
            await sit(LocalDesk(LiveConfig(), Clock()), "s", cost=replace(COST, each=0.1))

    asyncio.run(run())


def test_cores_are_shared_by_computing_and_by_the_blocks_way() -> None:
    anna = HopCost("a", 0.004, 0.006, 0.04, blocks=25.0)  # 0.25 of a core for one; with 2 ms the way 0.15 each
    machine = Machine(replicas=2, cores=2, way=0.002)
    assert busy([anna], machine) == pytest.approx((0.25 + 0.15) / 2)
    assert busy([anna] * 4, machine) == pytest.approx((0.8 + 0.6) / 2)
    assert busy([anna] * 4, Machine(2, cores=8, way=0.002)) == pytest.approx(0.4), "of the replicas' time"
    assert busy([anna], Machine(1, threads=2, cores=2)) == pytest.approx(0.25), "two threads, two cores"
    assert busy([replace(anna, blocks=100.0)], machine) == pytest.approx((0.25 + 0.3) / 2), "more blocks, more way"


def test_a_desk_of_two_cores_counts_proxy_and_gateway() -> None:
    async def run() -> None:
        cost = replace(COST, each=0.0026, blocks=25.0)
        for cores, most in ((2, 5), (16, 18)):
            desk = LocalDesk(LiveConfig(replicas=2, load=0.7), Clock(), at_once=2, cores=cores)
            for n in range(most):
                await sit(desk, f"s{n}", cost=cost)
            with pytest.raises(BusyError):
                await sit(desk, "more", cost=cost)
            assert 0.5 < (await desk.renew("s0", "s0")).load <= 0.7

    asyncio.run(run())


def test_nobody_is_let_in_where_those_who_sing_are_late() -> None:
    async def run() -> None:
        clock = Clock()
        desk = LocalDesk(LiveConfig(replicas=4), clock)
        for session in ("a", "b", "c"):
            await sit(desk, session)
        await desk.renew("a", "a", late=0.5)
        await sit(desk, "d")  # one of three: its own affair
        await desk.renew("b", "b", late=0.2)
        await desk.renew("c", "c", late=0.04)
        with pytest.raises(BusyError, match="late"):
            await sit(desk, "e")
        await sit(desk, "c", cost=replace(COST, voice="berta"))  # who sits may change
        clock.now += 5.5
        await desk.renew("a", "a")
        await sit(desk, "e")

    asyncio.run(run())


def test_leases_end_and_parked_sessions_too() -> None:
    async def run() -> None:
        clock = Clock()
        desk = LocalDesk(LiveConfig(resume_seconds=30), clock)
        await sit(desk, "s")
        await desk.park("s", "secret", b"one", sitting="s")
        clock.now += LEASE_SECONDS + 1
        with pytest.raises(SessionGoneError):
            await desk.renew("s", "s")
        for session, secret in (("s", "wrong"), ("t", "secret"), ("t", "")):
            with pytest.raises(SessionGoneError):
                await desk.take(session, secret, sitting="new")
        assert await desk.take("s", "secret", sitting="new") == b"one"
        with pytest.raises(SessionTakenError):
            await desk.renew("s", "s")
        with pytest.raises(SessionTakenError):
            await desk.park("s", "secret", b"two", sitting="s")
        await desk.admit("s", ANNA, RATE, True, sitting="new", cost=COST)
        await desk.park("s", "secret", b"three", sitting="new")
        await desk.leave("s", "new", keep=60.0)  # but for 30 at most
        clock.now += 29
        assert await desk.take("s", "secret", sitting="later") == b"three"
        await desk.leave("s", "later", keep=15.0)
        clock.now += 16
        with pytest.raises(SessionGoneError):
            await desk.take("s", "secret", sitting="last")

    asyncio.run(run())


async def wanted_by_another() -> tuple[LocalDesk, asyncio.Task[bytes]]:
    """A desk with somebody in session ``s``, and another connection that waits for that."""
    desk = LocalDesk(LiveConfig())
    await sit(desk, "s")
    await desk.park("s", "secret", b"old", sitting="s")
    taking = asyncio.create_task(desk.take("s", "secret", sitting="new"))
    while not (await desk.renew("s", "s")).wanted:
        await asyncio.sleep(0.01)
    return desk, taking


def test_a_second_connection_asks_the_first_to_park() -> None:
    async def run() -> None:
        desk, taking = await wanted_by_another()
        await desk.park("s", "secret", b"new", sitting="s")
        await desk.leave("s", "s", keep=60.0)
        assert await taking == b"new"
        with pytest.raises(SessionTakenError):
            await sit(desk, "s")

    asyncio.run(run())


def test_nobody_is_sent_away_for_a_connection_that_gave_up() -> None:
    async def run() -> None:
        desk, taking = await wanted_by_another()
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        assert not (await desk.renew("s", "s")).wanted

    asyncio.run(run())


def test_all_that_sit_can_be_parked() -> None:
    assert LiveConfig(sessions=100).most_parked >= 100 and LiveConfig(sessions=5, parked=5).most_parked == 5
    with pytest.raises(ValueError, match=r"live\.parked \(99\) must be at least live\.sessions \(100\)"):
        LiveConfig(sessions=100, parked=99)


def test_what_is_parked_is_bounded() -> None:
    async def run() -> None:
        desk = LocalDesk(LiveConfig(sessions=3, parked=3, parked_bytes=1 << 20, state_bytes=1 << 19), Clock())
        with pytest.raises(StorageError):
            await desk.park("big", "x", bytes((1 << 19) + 1), sitting="big")
        await sit(desk, "sits")
        for n, session in enumerate(("sits", "a", "b", "c")):
            await desk.park(session, "x", bytes([n]), sitting=session)
        with pytest.raises(SessionGoneError):
            await desk.take("a", "x", sitting="new")
        assert await desk.take("b", "x", sitting="new") == b"\2"
        await desk.leave("b", "new", keep=60.0)
        for session in ("d", "e"):
            await desk.park(session, "x", bytes(1 << 19), sitting=session)
        assert await desk.take("e", "x", sitting="new") == bytes(1 << 19)
        with pytest.raises(SessionGoneError):
            await desk.take("c", "x", sitting="new")
        with pytest.raises(SessionTakenError):
            await desk.park("e", "other", b"", sitting="new")

    asyncio.run(run())
