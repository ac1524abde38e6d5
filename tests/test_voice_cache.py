"""The bounded cache of loaded voices: what it holds, who waits for whom, and that nothing in use is freed."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.voice_cache import VoiceCache
from rocktop_ray.errors import UrlForbiddenError, VoiceFormatError


@dataclass(frozen=True)
class Ref:
    id: str
    link: str = ""


class Loaded:
    """Stands where a voice would: the cache does not look inside."""

    def __init__(self, name: str) -> None:
        self.name = name


def cache_of(open_: Callable[[Ref], Any], most: int) -> VoiceCache[Ref]:
    return VoiceCache(open_, most)


def plain(most: int) -> tuple[VoiceCache[Ref], list[str]]:
    opened: list[str] = []

    def open_(ref: Ref) -> Loaded:
        opened.append(ref.id)
        return Loaded(ref.id)

    return cache_of(open_, most), opened


def use(cache: VoiceCache[Ref], name: str) -> float:
    with cache.lease(Ref(name)) as leased:
        assert leased.voice.name == name
        return leased.loaded_seconds


def test_longest_unused_goes_first() -> None:
    cache, opened = plain(2)
    for name in "abacab":
        use(cache, name)
    assert opened == ["a", "b", "c", "b"] and cache.loaded() == ["a", "b"]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.evictions, stats.failures) == (2, 4, 2, 0)
    assert (stats.loaded, stats.in_use, stats.loading) == (2, 0, 0)
    with pytest.raises(ValueError, match="at least 1"):
        plain(0)


def test_loading_time_is_told_once() -> None:
    cache = cache_of(lambda ref: time.sleep(0.05) or Loaded(ref.id), 1)
    assert use(cache, "a") >= 0.05
    assert use(cache, "a") == 0.0


def test_voices_in_use_stay_and_go_when_let_go() -> None:
    cache, opened = plain(1)
    with ExitStack() as held:
        voices = [held.enter_context(cache.lease(Ref(name))).voice for name in "abc"]
        assert cache.loaded() == ["a", "b", "c"] and cache.stats().in_use == 3
        alive = [weakref.ref(voice) for voice in voices]
        del voices
    gc.collect()
    assert opened == ["a", "b", "c"] and len(cache.loaded()) == 1
    assert sum(one() is not None for one in alive) == 1


def test_one_load_for_all_who_wait() -> None:
    go, opened = threading.Event(), []

    def open_(ref: Ref) -> Loaded:
        opened.append(ref.id)
        assert go.wait(60)
        return Loaded(ref.id)

    cache = cache_of(open_, 1)
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(use, cache, "a") for _ in range(8)]
        wait_until(lambda: cache.stats().hits == 7)
        assert cache.loaded() == [] and cache.stats().loading == 1
        time.sleep(0.05)
        go.set()
        assert all(one.result() >= 0.05 for one in waiting)
    assert opened == ["a"]


def test_a_slow_load_blocks_nobody_else() -> None:
    go = threading.Event()
    cache = cache_of(lambda ref: (ref.id != "slow" or go.wait(60)) and Loaded(ref.id), 2)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(use, cache, "slow")
        wait_until(lambda: cache.stats().loading == 1)
        for name in "abcabc":
            use(cache, name)
        assert not slow.done()
        assert cache.loaded() == ["b", "c"]
        go.set()
        slow.result()
    assert cache.loaded() == ["c", "slow"]


def test_a_failed_load_is_told_to_all_and_forgotten() -> None:
    go, tries = threading.Event(), []

    def open_(ref: Ref) -> Loaded:
        tries.append(ref.id)
        assert go.wait(60)
        if len(tries) == 1:
            raise VoiceFormatError("no voice")
        return Loaded(ref.id)

    cache = cache_of(open_, 1)
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(use, cache, "a") for _ in range(3)]
        wait_until(lambda: cache.stats().hits == 2)
        go.set()
        assert all(isinstance(one.exception(), VoiceFormatError) for one in waiting)
    assert cache.loaded() == [] and cache.stats().failures == 1
    use(cache, "a")
    assert tries == ["a", "a"] and cache.loaded() == ["a"]


def test_a_failed_load_costs_nobody_a_voice() -> None:
    def open_(ref: Ref) -> Loaded:
        if ref.id == "bad":
            raise VoiceFormatError("no voice")
        return Loaded(ref.id)

    cache = cache_of(open_, 2)
    for name in "ab":
        use(cache, name)
    with pytest.raises(VoiceFormatError):
        use(cache, "bad")
    assert cache.loaded() == ["a", "b"] and cache.stats().evictions == 0


def test_another_link_to_the_same_voice_is_tried() -> None:
    go = threading.Event()

    def open_(ref: Ref) -> Loaded:
        if ref.link == "old":
            assert go.wait(60)
            raise UrlForbiddenError("the link has run out")
        return Loaded(ref.id)

    cache = cache_of(open_, 1)

    def lease(link: str) -> str:
        with cache.lease(Ref("a", link)) as leased:
            return leased.voice.name

    with ThreadPoolExecutor(2) as threads:
        old = threads.submit(lease, "old")
        wait_until(lambda: cache.stats().loading == 1)
        new = threads.submit(lease, "new")
        wait_until(lambda: cache.stats().hits == 1)
        go.set()
        assert isinstance(old.exception(), UrlForbiddenError) and new.result() == "a"


def test_an_error_in_the_block_lets_go() -> None:
    cache, _ = plain(1)
    with pytest.raises(KeyError), cache.lease(Ref("a")):
        raise KeyError
    assert cache.stats().in_use == 0 and cache.loaded() == ["a"]


@settings(max_examples=60)
@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.integers(0, 9)), max_size=40))
def test_against_a_plain_model(most: int, steps: list[tuple[str, bool, int]]) -> None:
    """Leases opened and closed in any order: what is in use is there, and no more than ``most`` when others are."""
    cache, opened = plain(most)
    held: list[tuple[str, ExitStack]] = []
    for name, enter, which in steps:
        if enter:
            before, known = len(opened), name in cache.loaded()
            lease = ExitStack()
            assert lease.enter_context(cache.lease(Ref(name))).voice.name == name
            held.append((name, lease))
            assert (len(opened) == before) == known
        elif held:
            held.pop(which % len(held))[1].close()
        used, loaded = {name for name, _ in held}, cache.loaded()
        assert used <= set(loaded) and len(loaded) == len(set(loaded))
        assert len(loaded) <= max(most, len(used))
        assert cache.stats().in_use == len(used)
    for _, lease in held:
        lease.close()
    assert len(cache.loaded()) == min(most, len(set(opened)))
    stats = cache.stats()
    assert stats.misses == len(opened) and stats.misses - stats.evictions == stats.loaded and stats.in_use == 0


def test_many_threads_many_voices() -> None:
    """Every voice in use is held; the bound holds at the end; nothing hangs."""
    alive: dict[str, int] = {}
    guard = threading.Lock()

    class Counted(Loaded):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            with guard:
                alive[name] = alive.get(name, 0) + 1

        def __del__(self) -> None:
            with guard:
                alive[self.name] -= 1

    def open_(ref: Ref) -> Loaded:
        time.sleep(0.001)
        if ref.id == "v6":
            raise VoiceFormatError("no voice")
        return Counted(ref.id)

    cache = cache_of(open_, 3)

    def work(seed: int) -> int:
        chance, failed = random.Random(seed), 0
        for _ in range(60):
            name = f"v{chance.randrange(7)}"
            try:
                with cache.lease(Ref(name)) as leased:
                    assert leased.voice.name == name and alive[name] >= 1
                    time.sleep(chance.random() * 0.001)
                    assert alive[name] >= 1 and name in cache.loaded()
            except VoiceFormatError:
                failed += 1
                assert name == "v6"
        return failed

    with ThreadPoolExecutor(12) as threads:
        failed = sum(threads.map(work, range(12)))
    stats = cache.stats()
    assert failed > 0 and stats.hits + stats.misses == 12 * 60
    assert len(cache.loaded()) == 3 and stats.misses - stats.failures - stats.evictions == 3
    gc.collect()
    assert sum(alive.values()) == 3


def wait_until(good: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not good():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
