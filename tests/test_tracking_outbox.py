"""The outbox of tracking: nobody waits for a store that is slow or down."""

from __future__ import annotations

import threading
import time

import pytest

from rocktop_ray.errors import TrackingError
from rocktop_ray.tracking.outbox import Outbox, Parcel


class Store:
    """Takes what it is given, or is down, or refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.down = False
        self.got: list[str] = []
        self.refuses: set[str] = set()
        self.chokes: set[str] = set()
        self.tries = 0

    def ask(self) -> None:
        if self.down:
            raise TrackingError("cannot reach store", retryable=True)

    def parcel(self, name: str, size: int = 0, **more: bool) -> Parcel:
        def work() -> None:
            self.tries += 1
            self.ask()
            if name in self.refuses:
                raise TrackingError(f"no {name}", retryable=False)
            if name in self.chokes:
                raise TrackingError(f"fault at {name}", retryable=True)
            self.got.append(name)

        return Parcel(work, "values", size, **more)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def outbox(store):
    made = Outbox(store.ask, most_bytes=1000, first_pause=0.01, longest_pause=0.05)
    yield made
    made.close(0)


def test_order_is_kept_over_an_outage(store, outbox, caplog):
    outbox.put(store.parcel("a"))
    assert outbox.flush(60)
    store.down = True
    for name in "bcd":
        outbox.put(store.parcel(name))
    assert not outbox.flush(0.3)
    assert store.got == ["a"]
    store.down = False
    assert outbox.flush(60)
    outbox.put(store.parcel("e"))
    assert outbox.close(60) == 0 and store.got == list("abcde")
    told = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in told] == ["cannot", "tracking"], told  # once down, once back


@pytest.mark.parametrize("asked", [1, 4])
def test_a_store_that_comes_back_while_it_is_asked(store, outbox, monkeypatch, asked):
    store.down, calls = True, []

    def alive() -> None:
        calls.append(1)
        store.down = len(calls) < asked
        store.ask()

    monkeypatch.setattr(outbox, "_alive", alive)
    outbox.put(store.parcel("a"))
    assert outbox.close(60) == 0 and store.got == ["a"]


def test_what_is_refused_costs_itself_only(store, outbox, caplog):
    store.refuses, store.chokes = {"b", "c"}, {"d"}
    for name in "abcde":
        outbox.put(store.parcel(name))
    assert outbox.close(60) == 3 and store.got == ["a", "e"]
    assert len(caplog.records) == 1  # told once for values


def test_a_beginning_that_is_refused_ends_tracking(store, outbox, caplog):
    store.refuses = {"a"}
    outbox.put(store.parcel("a", vital=True))
    for name in "bc":
        outbox.put(store.parcel(name))
    assert outbox.flush(60) and outbox.close(60) >= 1 and store.got == []
    assert "not tracked: no a" in caplog.text


def test_memory_is_bounded_and_files_go_first(store, caplog):
    outbox = Outbox(store.ask, most_bytes=100_000, first_pause=0.01, longest_pause=0.05)
    store.down = True
    outbox.put(store.parcel("start", vital=True))
    for number in range(6):
        outbox.put(store.parcel(f"file {number}", 40_000))
        outbox.put(store.parcel(f"value {number}", 100))
    store.down = False
    assert outbox.flush(60)
    assert [name for name in store.got if "value" in name] == [f"value {number}" for number in range(6)]
    assert [name for name in store.got if "file" in name] == ["file 4", "file 5"] and store.got[0] == "start"
    assert outbox.close(1) == 4


def test_the_end_waits_no_longer_than_told(store, caplog):
    outbox = Outbox(store.ask, first_pause=0.05, longest_pause=3600)
    store.down = True
    for name in "abc":
        outbox.put(store.parcel(name))
    began = time.monotonic()
    assert outbox.close(0.5) == 3 and time.monotonic() - began < 60
    assert "3 entries are lost" in caplog.text
    outbox.put(store.parcel("d"))
    assert store.got == []


def test_a_pause_is_cut_short_at_the_end(store):
    outbox = Outbox(store.ask, first_pause=0.05, longest_pause=3600)
    store.down = True
    outbox.put(store.parcel("a"))
    time.sleep(1.0)  # pauses are long by now
    threading.Timer(0.2, lambda: setattr(store, "down", False)).start()
    assert outbox.close(60) == 0 and store.got == ["a"]


def test_a_fault_in_the_client_does_not_end_the_thread(store, outbox, caplog):
    outbox.put(Parcel([].pop, "values"))
    outbox.put(store.parcel("a"))
    assert outbox.close(60) == 1 and store.got == ["a"] and "IndexError" in caplog.text
