"""Who gets how much, and who works with whom: functions of facts, without processes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rocktop_ray.errors import SettingsError, TrainingError
from train_loops.exchange.groups import Worker, arrange, describe
from train_loops.exchange.shares import SpeedMeter, sizes, slots

SPEEDS = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=12)


@given(st.integers(0, 300), SPEEDS)
def test_sizes_fill_the_batch_and_follow_the_speeds(count, speeds):
    found = sizes(count, speeds)
    assert sum(found) == count
    assert min(found) >= (1 if count >= len(speeds) else 0)
    assert all(
        one >= other
        for one, a in zip(found, speeds, strict=True)
        for other, b in zip(found, speeds, strict=True)
        if a > b
    )
    exact = [speed / sum(speeds) * count for speed in speeds]
    if min(exact) >= 1 or count < len(speeds):
        assert all(abs(size - wanted) < 1 + 1e-6 for size, wanted in zip(found, exact, strict=True))
    assert found == sizes(count, [speed * 7 for speed in speeds]) or len(set(speeds)) > 1


@given(st.lists(st.integers(1, 20), min_size=1, max_size=10), st.floats(1e-3, 1e3))
def test_exact_proportions_are_kept_exactly(wanted, unit):
    assert sizes(sum(wanted), [unit * size for size in wanted]) == wanted


@given(st.integers(0, 100), SPEEDS)
def test_slots_are_each_slot_once_in_order(count, speeds):
    assert [slot for places in slots(count, speeds) for slot in places] == list(range(count))


def test_known_divisions():
    assert sizes(32, [3, 3, 1, 1]) == [12, 12, 4, 4]
    assert sizes(8, [100, 1, 1]) == [6, 1, 1]
    assert sizes(5, [1, 1, 1]) == [2, 2, 1]
    assert sizes(2, [1, 4, 2]) == [0, 1, 1]
    assert sizes(3, [1e9, 1, 1]) == [1, 1, 1]
    assert sizes(0, [1, 2]) == [0, 0]


@pytest.mark.parametrize("speeds", [[], [0, 1], [-1, 2], [float("nan")], [float("inf"), 1]])
def test_what_is_no_speed_is_refused(speeds):
    with pytest.raises(SettingsError, match="positive numbers"):
        sizes(4, speeds)


def test_a_meter_leaves_out_the_warm_up_and_forgives_a_slow_step():
    meter = SpeedMeter(warm_up=2, measured=3)
    assert (meter.speed, meter.done) == (0.0, False)
    for work, seconds in [(4, 9.0), (4, 5.0), (0, 1.0), (4, 1.0), (4, 100.0), (6, 1.5), (4, 0.001)]:
        meter.add(work, seconds)
    assert (meter.speed, meter.done) == (4.0, True)


@given(st.lists(st.sampled_from(["nvidia", "amd", "cpu"]), min_size=1, max_size=9), st.randoms())
def test_groups_do_not_depend_on_the_order_of_the_facts(vendors, random):
    workers = [Worker(rank, vendor, "host", "cpu") for rank, vendor in enumerate(vendors)]
    layout = arrange(workers)
    assert sorted(rank for ranks in layout.vendors.values() for rank in ranks) == list(range(len(vendors)))
    assert layout.leaders == tuple(vendors.index(vendor) for vendor in dict.fromkeys(vendors))
    assert all(layout.workers[layout.leader_of(rank)].vendor == vendor for rank, vendor in enumerate(vendors))
    random.shuffle(workers)
    assert arrange(workers) == layout
    assert list(arrange(workers).vendors) == list(layout.vendors)


def test_groups_that_cannot_work_are_refused():
    gpu = Worker(0, "nvidia", "a", "cuda:0", "nccl", "GPU-1")
    with pytest.raises(TrainingError, match=r"ranks of the workers must be 0 to n - 1, not \[0, 2\]"):
        arrange([gpu, replace(gpu, rank=2)])
    with pytest.raises(TrainingError, match=r"worker 0 \(nvidia cuda:0 on a\) and worker 1 .* the same GPU"):
        arrange([gpu, replace(gpu, rank=1)])
    with pytest.raises(TrainingError, match=r"worker 1 .* without NCCL"):
        arrange([gpu, replace(gpu, rank=1, host="b", backend="gloo")])
    assert arrange([gpu, replace(gpu, rank=1, host="b")]).leaders == (0,)


@pytest.mark.parametrize(("hip", "vendor"), [("6.2", "amd"), (None, "nvidia")])
def test_the_vendor_of_a_gpu_is_that_of_its_torch(monkeypatch, hip, vendor):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="GPU-1"))
    found = describe(3, "cuda:0")
    assert (found.rank, found.vendor, found.backend, found.uuid) == (3, vendor, "nccl", "GPU-1")
    assert (describe(0, "cpu").vendor, describe(0, "cpu").backend) == ("cpu", "gloo")
    assert describe(0, "cpu", vendor="amd").vendor == "amd"
