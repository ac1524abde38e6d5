"""Parts of a computation on several threads: all of them, in order, whatever waits for whatever."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from threading import Barrier, current_thread

import pytest
import torch

from rocktop_ray.crew import led, shared, threads_here


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    usual = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(usual)


def test_results_are_in_order(threads: int) -> None:
    assert led(lambda: shared([partial(pow, 2, power) for power in range(9)])) == [2**power for power in range(9)]
    assert torch.get_num_threads() == threads
    assert led(threads_here) == threads and threads_here() == 1


def test_parts_run_at_the_same_time(threads: int) -> None:
    together = Barrier(threads, timeout=20)

    def part() -> str:
        together.wait()
        assert torch.get_num_threads() == 1
        return current_thread().name

    assert len(set(led(lambda: shared([part] * threads)))) == threads


def test_parts_of_parts_and_several_leaders_wait_for_nobody_who_waits(threads: int) -> None:
    def many(depth: int) -> int:
        return sum(shared([partial(many, depth - 1)] * 3)) if depth else 1

    assert led(lambda: shared([lambda: led(lambda: many(3))] * 6)) == [27] * 6


def test_an_error_is_told_and_nothing_runs_on(threads: int) -> None:
    done = list[int]()

    def part(number: int) -> None:
        if number == 2:
            raise ValueError("two")
        done.append(number)

    with pytest.raises(ValueError, match="two"):
        led(lambda: shared([partial(part, number) for number in range(6)]))
    before = list(done)
    assert led(lambda: 7) == 7
    assert done == before


def test_gradients_are_as_in_the_caller(threads: int) -> None:
    def made() -> bool:
        return torch.ones(1).is_inference()

    with torch.inference_mode():
        assert led(lambda: shared([made] * 3)) == [True] * 3
    assert led(lambda: shared([made] * 3)) == [False] * 3
