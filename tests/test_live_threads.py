"""One thread of a process computes with several of torch's, and numpy's products leave it alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from rocktop_ray.live.threads import compute_here, limit_blas, without_team


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    usual = torch.get_num_threads()
    yield
    torch.set_num_threads(usual)


def asked(executor: ThreadPoolExecutor) -> int:
    return executor.submit(lambda: (torch.ones(9).sum(), torch.get_num_threads())[1]).result(60)


@pytest.mark.parametrize("threads", [1, 3])
def test_only_who_computes_has_a_team(threads: int) -> None:
    torch.set_num_threads(2)
    with (
        ThreadPoolExecutor(1) as before,
        ThreadPoolExecutor(1, initializer=compute_here, initargs=(threads,)) as computing,
    ):
        assert asked(before) == 2
        assert asked(computing) == threads
        with ThreadPoolExecutor(1) as after:
            assert asked(after) == 1
        assert asked(before) == torch.get_num_threads() == 2


def test_loading_leaves_the_number_as_it_was() -> None:
    torch.set_num_threads(2)

    @without_team()
    def load(fails: bool) -> int:
        if fails:
            raise ValueError("broken")
        return torch.get_num_threads()

    with pytest.raises(ValueError, match="broken"):
        load(True)
    assert load(False) == 1 and torch.get_num_threads() == 2


def test_products_of_numpy_have_one_thread() -> None:
    np.ones((4, 4)) @ np.ones((4, 4))
    with threadpool_limits(2, user_api="blas"):
        limit_blas()
        own = [found for found in threadpool_info() if found.get("threading_layer") == "pthreads"]
        assert all(found["num_threads"] == 1 for found in own)
