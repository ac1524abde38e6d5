"""The history of a run: rows without gaps or doubles, a bounded file, samples, curves, page, lines."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from finish_parts import facts, outcome, settings, small_dataset, standing
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from matplotlib import image

from rocktop_ray.config.training import StopConfig
from rocktop_ray.store.storage import Storage, open_storage
from train_loops.dataset.reader import Dataset
from train_loops.rvc import history
from train_loops.rvc.callbacks import Facts, Sample, ValidationResult
from train_loops.rvc.curves import smoothed
from train_loops.rvc.history import History, read_history, remaining, spare, thinned
from train_loops.rvc.run_page import clock, sample_picture

RATE = 16_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("history"))


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take a second; one test draws them."""
    if "curves" not in request.node.name:
        monkeypatch.setattr(history, "draw_curves", lambda *_, **__: b"png")


def values(step: int) -> dict[str, float]:
    return {
        "loss/mel": 3 / (1 + step),
        "loss/kl": 1.0,
        "norm/generator": 10.0 + step,
        "learning_rate": 1e-4,
        "speed/steps_per_second": 2.0,
        "speed/loader_wait": 0.01,
    }


def sample(name: str, step: int) -> Sample:
    time = np.arange(RATE) / RATE
    wave = (0.5 * np.sin(2 * np.pi * (200 + step) * time)).astype(np.float32)
    return Sample(name, RATE, wave, -wave, None)


def result(step: int, score: float) -> ValidationResult:
    metrics = {"validation/score": score, "validation/mel": 1.0, "validation/mcd_db": 5.0, "validation/stoi": 0.5}
    return ValidationResult(score, metrics, (sample("01-anna-0", step), sample("02-ä-1", step)))


class Run:
    """What a loop tells, and its checkpoints' notes."""

    def __init__(self, dataset: Dataset, storage: Storage, **bounds: Any) -> None:
        self.storage, self.dataset, self.config = storage, dataset, settings(dataset, stop=bounds)
        self.saved: dict[int, str] = {0: "{}"}
        self.best = float("inf")

    def start(self, step: int = 0) -> None:
        notes = json.loads(self.saved[step])
        self.facts: Facts = facts(self.config, self.dataset, step, **notes)
        self.history = History(self.storage, self.config.stop)
        self.history.on_train_start(self.facts, standing(step))

    def log(self, *steps: int) -> None:
        for step in steps:
            self.history.on_log(standing(step), values(step))

    def validate(self, step: int, score: float) -> None:
        improved, self.best = score < self.best, min(score, self.best)
        step_now: Any = SimpleNamespace()
        self.history.on_validation_end(standing(step), result(step, score), step_now, improved=improved)

    def save(self, step: int, *, told: bool = True) -> None:
        self.saved[step] = json.dumps(self.facts.notes)
        if told:
            self.history.on_checkpoint(standing(step))

    def rows(self) -> list[tuple[str, int]]:
        return [(row["kind"], row["step"]) for row in read_history(self.storage)]


def test_rows(dataset, tmp_path):
    run = Run(dataset, open_storage(tmp_path))
    run.start()
    run.log(10, 20)
    run.validate(20, 5.0)
    run.log(30)
    run.save(30)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [(row["kind"], row["step"]) for row in lines] == [
        ("log", 10),
        ("log", 20),
        ("validation", 20),
        ("log", 30),
    ]
    assert lines[0] == {"kind": "log", "step": 10, "epoch": 1, "seconds": 5.0, **values(10)}
    assert lines[2]["improved"] is True and lines[2]["validation/score"] == 5.0
    run.history.on_log(standing(40), {"loss/mel": float("nan"), "norm/generator": float("inf"), "loss/kl": 1.0})
    run.history.on_train_end(outcome(40, 20, 5.0))
    last = json.loads((tmp_path / "history.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail)
    assert (last["loss/mel"], last["norm/generator"], last["loss/kl"]) == (None, None, 1.0)


def test_a_run_that_goes_on_has_every_row_once(dataset, tmp_path):
    run = Run(dataset, open_storage(tmp_path))
    run.start()
    run.log(10, 20)
    run.validate(20, 5.0)
    run.log(30)
    run.save(30, told=False)  # killed between the checkpoint and the history
    run.start(30)
    assert run.rows() == [("log", 10), ("log", 20), ("validation", 20), ("log", 30)]
    assert run.facts.notes["history"] == []
    run.log(40)
    run.validate(40, 4.0)  # written, but of steps that come again
    run.log(50)
    run.start(30)
    assert run.rows() == [("log", 10), ("log", 20), ("validation", 20), ("log", 30)]
    run.log(40)
    run.validate(40, 4.5)
    run.save(40)
    assert run.rows()[-2:] == [("log", 40), ("validation", 40)] and len(run.rows()) == 6
    assert read_history(run.storage)[-1]["validation/score"] == 4.5
    run.start(40)
    run.history.on_train_end(outcome(40, 40, 4.5))
    assert len(run.rows()) == 6
    run.start()  # a new run of the same name
    run.log(10)
    run.save(10)
    assert run.rows() == [("log", 10)]


def test_damaged_lines_are_left_out(dataset, tmp_path):
    run = Run(dataset, open_storage(tmp_path))
    assert read_history(run.storage) == []
    run.start()
    run.log(10, 20)
    run.save(20)
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(b'{"kind": "log", "st\n[]\n\xff\n{"kind": "x", "step": 1, "epoch": 1, "seconds": 1}\n')
    assert run.rows() == [("log", 10), ("log", 20)]
    run.start(20)
    assert run.rows() == [("log", 10), ("log", 20)]


def test_the_file_stays_small(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "MOST_ROWS", 80)
    run = Run(dataset, open_storage(tmp_path))
    run.start()
    run.log(*range(10, 20_010, 10))
    run.save(20_000)
    rows = read_history(run.storage)
    assert len(rows) <= 80
    steps = np.array([row["step"] for row in rows])
    assert (np.diff(steps) > 0).all() and steps[-1] == 20_000
    assert list(steps[-5:]) == [19_960, 19_970, 19_980, 19_990, 20_000]
    assert np.diff(steps).max() <= 20_000 / 15  # old ones are spread evenly
    mean = np.average([row["norm/generator"] for row in rows], weights=np.diff(steps, prepend=0))
    assert mean == pytest.approx(10 + np.arange(10, 20_010, 10).mean(), rel=1e-9)


@examples(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.none() | st.floats(-1e3, 1e3)), min_size=1, max_size=300),
    st.integers(8, 100),
)
def test_thinning(points, most):
    step, rows = 0, []
    for width, value in points:
        step += width
        rows.append({"kind": "log", "step": step, "epoch": 0, "seconds": float(step), "loss/mel": value})
    found = thinned(rows, most)
    assert len(found) <= most
    assert found[-1] == rows[-1]
    assert [row["step"] for row in found] == sorted({row["step"] for row in found})
    assert {row["step"] for row in found} <= {row["step"] for row in rows}
    if len(rows) <= most:
        assert found == rows
    elif None not in [value for _, value in points]:
        widths = [width for width, _ in points]
        sums = [
            np.average([row["loss/mel"] for row in part], weights=np.diff([row["step"] for row in part], prepend=0))
            for part in (rows, found)
        ]
        assert sums[0] == pytest.approx(sums[1], abs=1e-6) and sum(widths) == found[-1]["step"]


def test_samples(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "MOST_SAMPLES", 4)
    run = Run(dataset, open_storage(tmp_path))
    run.start()
    scores = {20: 9.0, 40: 8.0, 60: 3.0, 80: 7.0, 100: 6.0, 120: 5.0, 140: 5.5}
    for step, score in scores.items():
        run.validate(step, score)
    run.save(140)
    folders = sorted(path.name for path in (tmp_path / "samples").iterdir() if any(path.iterdir()))
    kept = {name for name in folders if name != "target"}
    assert len(kept) == 4 and {"20", "60", "140"} <= kept  # first, best, last
    names = {f"{name}.{ending}" for name in ("01-anna-0", "02-ä-1") for ending in ("wav", "png")}
    for folder in (*kept, "target"):
        assert {path.name for path in (tmp_path / "samples" / folder).iterdir()} == names
    made, rate = soundfile.read(tmp_path / "samples/60/01-anna-0.wav")
    assert rate == RATE and np.abs(made - sample("", 60).wave).max() < 1e-4
    target, _ = soundfile.read(tmp_path / "samples/target/01-anna-0.wav")
    assert np.abs(target - sample("", 20).target).max() < 1e-4
    # Steps that come again lose their samples, a new run all of them.
    run.validate(160, 5.0)
    run.start(140)
    left = {path.parent.name for path in (tmp_path / "samples").rglob("*.wav")}
    assert left == (kept | {"target"}) - {"140"}  # which gave its place to 160
    run.validate(150, 5.0)
    assert (tmp_path / "samples/150/01-anna-0.wav").is_file()
    run.start()
    assert not list((tmp_path / "samples").rglob("*.*"))


@examples(max_examples=100, deadline=None)
@given(st.sets(st.integers(1, 1000), min_size=4, max_size=40), st.data())
def test_which_sample_goes(steps, data):
    ordered = sorted(steps)
    best = data.draw(st.sampled_from(ordered))
    gone = spare(ordered, best)
    assert gone in ordered[1:-1] and gone != best


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, None),
        ({"steps": 100}, (30.0, "steps")),
        ({"epochs": 9}, (25.0, "epochs")),
        ({"minutes": 0.5}, (10.0, "minutes")),
        ({"steps": 100, "epochs": 9, "minutes": 1}, (25.0, "epochs")),
        ({"steps": 30}, (0.0, "steps")),
    ],
)
def test_the_time_that_remains(bounds, expected):
    """40 steps done; from step 20 on it took 10 s."""
    stop = StopConfig(**bounds)
    assert remaining(stop, standing(40, seconds=20.0), standing(20, seconds=10.0)) == expected
    if "minutes" not in bounds:
        assert remaining(stop, standing(20), standing(20)) is None  # no pace yet


def test_lines(dataset, tmp_path, caplog):
    caplog.set_level(logging.INFO, "train_loops.rvc.history")
    run = Run(dataset, open_storage(tmp_path), steps=100)
    run.start()
    run.log(20)
    run.validate(20, 5.0)
    run.validate(40, 6.0)
    run.save(40)
    run.start(40)
    run.history.on_train_end(outcome(40, 20, 5.0))
    begins, log, first, second, goes_on, ends = [record.message for record in caplog.records]
    assert begins == "anna begins: v1, 16000 Hz, F0, 10 steps per epoch"
    assert log == "step 20 of 100, epoch 2; mel 0.143, kl 1; 2 steps/s, waiting 1%; 0:40 left (steps)"
    assert first == "step 20, held-out takes: score 5.000 (the best so far)"
    assert second == "step 40, held-out takes: score 6.000 (best 5.000 at step 20)"
    assert goes_on.startswith("anna goes on at step 40:")
    assert ends == "the run is over (steps): 40 steps, 4 epochs, 0:20; best score 5.000 at step 20"


def test_curves_and_page(dataset, tmp_path):
    run = Run(dataset, open_storage(tmp_path), steps=100)
    run.start()
    for step in range(10, 101, 10):
        run.log(step)
        if step % 20 == 0:
            run.validate(step, abs(step - 60) / 10 + 1)
    page = (tmp_path / "report.html").read_text()
    assert "The run goes on" in page
    run.history.on_train_end(outcome(100, 60, 1.0))
    pixels = image.imread(tmp_path / "curves.png")
    assert pixels.shape[1] > 1000 and len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 20
    page = (tmp_path / "report.html").read_text()
    assert "ended after 100 steps" in page and "best weights are those of step 60" in page
    assert "MCD" in page and "5.00" in page and "higher is better" in page
    links = set(re.findall(r'(?:src|href)="([^"#]+)"', page)) - {"data:,"}
    assert "samples/60/02-%C3%A4-1.wav" in links and "samples/target/01-anna-0.png" in links
    for link in links:
        assert (tmp_path / link.replace("%C3%A4", "ä")).is_file(), link
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_name_cannot_break_the_page(dataset, tmp_path):
    run = Run(dataset, open_storage(tmp_path))
    run.config = settings(dataset, name="<script>$x$\"'&")
    run.start()
    run.log(10)
    run.validate(10, 5.0)
    page = (tmp_path / "report.html").read_text()
    assert "<script>$x" not in page and "&lt;script&gt;$x$&quot;&#x27;&amp;" in page


def test_pictures_cost_little_of_the_time(dataset, tmp_path, monkeypatch):
    run, drawn, now = Run(dataset, open_storage(tmp_path)), [], [100.0]

    def draw(*_: object, **__: object) -> bytes:
        drawn.append(now[0])
        now[0] += 2.0
        return b"png"

    monkeypatch.setattr(history, "draw_curves", draw)
    monkeypatch.setattr(history.time, "monotonic", lambda: now[0])
    run.start()
    for step in range(10, 1010, 10):
        now[0] += 5.0
        run.log(step)
        run.save(step)
    before = len(drawn)
    run.history.on_train_end(outcome(1000))
    assert len(drawn) == before + 1  # at the end in any case
    assert np.diff(drawn[:-1]).min() >= 40 and before >= 10


def test_smoothing_and_clock():
    flat = np.full(500, 3.0)
    assert smoothed(flat) == pytest.approx(flat)
    noise = np.random.default_rng(0).standard_normal(2000)
    calm = smoothed(noise)
    assert calm[100:-100].std() < 0.2 and calm[0] == pytest.approx(noise[:26].mean())
    assert smoothed(noise[:5]) == pytest.approx(noise[:5])
    assert [clock(seconds) for seconds in (0, 7, 750, 3600, 11_100)] == ["0:00", "0:07", "12:30", "1:00:00", "3:05:00"]


def test_a_spectrogram_shows_the_tone():
    time = np.arange(2 * RATE) / RATE
    pictures = [image.imread(io.BytesIO(sample_picture(np.sin(2 * np.pi * hz * time), RATE))) for hz in (300, 3000)]
    rows = [int(picture[..., 0].mean(axis=1).argmax()) for picture in pictures]
    assert rows[0] > rows[1] + 50  # low below high
    silent = image.imread(io.BytesIO(sample_picture(np.zeros(500, np.float32), RATE)))
    assert len(np.unique(silent[..., :3].reshape(-1, 3), axis=0)) <= 2


def test_not_given_a_bound(tmp_path: Path) -> None:
    assert History(open_storage(tmp_path))._stop == StopConfig()
