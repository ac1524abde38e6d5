"""What builds the sets of docs/learning.md and draws its curves; that training learns is tested elsewhere."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import soundfile
from toy_training import toy_step

from rocktop_ray.config.training import StartConfig
from rocktop_ray.errors import AudioError
from rocktop_ray.voices.open import bundle_folder
from rocktop_ray.voices.rvc_format import read_rvc
from train_loops.proof.curves import Run, draw
from train_loops.proof.learn import Snapshots
from train_loops.proof.sources import SECONDS, prompts, syllables
from train_loops.proof.takes import write
from train_loops.rvc.callbacks import Standing, ValidationResult
from train_loops.rvc.checkpoints import Progress, read_progress
from train_loops.rvc.networks import fresh
from train_loops.rvc.pretrained_pair import read_info
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.starting import BUNDLED_PAIR, begin
from train_loops.rvc.step import AdversarialStep

RATE = 16_000


def tone(hertz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write_g722(path, audio: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray((audio * 32767).astype(np.int16)[None], "s16", "mono")
        frame.rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def loudest(audio: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(audio)).argmax() * rate / len(audio))


def test_syllables_are_joined_whole_and_in_the_same_order_each_time(tmp_path):
    for number in range(30):
        folder = tmp_path / f"s{number:02d}"
        folder.mkdir()
        soundfile.write(folder / "5.ogg", tone(200, 0.5, 44_100), 44_100)
        soundfile.write(folder / "3.ogg", tone(900, 0.5, 44_100), 44_100)
    passages = list(syllables(tmp_path, "5", 1))
    assert [rate for _, rate in passages] == [44_100] * 2
    first, last = (audio for audio, _ in passages)
    assert SECONDS <= len(first) / 44_100 < SECONDS + 0.6
    voiced = sum(int((np.abs(audio) > 0.01).sum()) for audio in (first, last))
    assert voiced == pytest.approx(30 * 0.5 * 44_100, rel=0.05)
    assert loudest(first, 44_100) == pytest.approx(200, abs=3)
    again = list(syllables(tmp_path, "5", 1))
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(passages, again, strict=True))
    assert not np.array_equal(first[: len(last)], next(syllables(tmp_path, "5", 2))[0][: len(last)])


def test_prompts_leave_out_tones_silence_and_empty_files(tmp_path):
    write_g722(tmp_path / "hello.g722", tone(440, 3))
    write_g722(tmp_path / "digits" / "1.g722", tone(440, 3))
    write_g722(tmp_path / "beep.g722", tone(3000, 20))
    write_g722(tmp_path / "silence" / "9.g722", np.zeros(9 * RATE, np.float32))
    (tmp_path / "broken.g722").touch()
    ((audio, rate),) = prompts(tmp_path, 1)
    assert rate == RATE
    assert 6.0 < len(audio) / rate < 6.6
    assert loudest(audio, rate) == pytest.approx(440, abs=2)


def test_a_missing_package_is_named(tmp_path):
    with pytest.raises(AudioError, match="install the package"):
        next(prompts(tmp_path, 1))


def test_takes_are_numbered_and_counted(tmp_path):
    seconds = write(tmp_path / "anna", iter([(tone(440, 1.5), RATE), (tone(440, 0.5), RATE)]))
    assert seconds == 2.0
    assert sorted(path.name for path in (tmp_path / "anna").iterdir()) == ["000.flac", "001.flac"]


def test_a_voice_is_kept_at_each_mark_and_the_run_can_go_on(tmp_path):
    step, keeper = toy_step(), Snapshots(tmp_path, [0, 1, 2], "whisper-base")
    for at, seconds in enumerate((0.0, 30.0, 61.0, 150.0)):
        keeper.save(step, Progress(at, notes={"seconds": seconds}), {})
    keeper.tell("on_log", Standing(4, 0, 9, 150.0), {"loss/mel": 1.0})
    keeper.tell("on_validation_end", Standing(4, 0, 9, 150.0), ValidationResult(2.5, {"validation/score": 2.5}))
    assert [read_rvc(tmp_path / f"minute-{m}.safetensors").content_name for m in (0, 1, 2)] == ["whisper-base"] * 3
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [(line["mark"], line["step"]) for line in lines if "mark" in line] == [(0, 0), (1, 2), (2, 3)]
    assert lines[-1]["validation/score"] == 2.5
    assert read_progress(tmp_path / "last.safetensors").step == 3
    assert not Snapshots(tmp_path, [0, 1, 2], "")._minutes


def test_curves_are_drawn_from_what_runs_left(tmp_path):
    history = [{"seconds": 60 * m, "validation/score": 20 - m, "validation/mel": 2.0} for m in (0, 1, 5)]
    (tmp_path / "history.jsonl").write_text("\n".join(map(json.dumps, history)))
    measured = {"takes themselves": {"held-out/speaker_to_target": 0.9, "foreign/speaker_to_target": 0.5}}
    for minute in (0, 10, 5):
        values = {f"{kind}/speaker_to_target": 0.5 + minute / 100 for kind in ("held-out", "foreign")}
        measured[f"minute-{minute}"] = values | {"held-out/mcd_db": 10.0 - minute}
    (tmp_path / "measured.json").write_text(json.dumps(measured))
    run = Run.read(tmp_path)
    assert run.curve("validation/score") == [(0, 20), (1, 19), (5, 15)]
    assert run.voices("held-out/mcd_db") == [(0, 10), (5, 5), (10, 0)]
    draw(tmp_path / "curves.png", {"fresh": run, "again": run})
    assert 5_000 < (tmp_path / "curves.png").stat().st_size < 200_000


def test_the_pair_that_ships_starts_a_small_voice():
    path = bundle_folder() / BUNDLED_PAIR
    info = read_info(path)
    assert path.stat().st_size < 8_000_000
    assert (info.stock, info.content_name, info.licence) == ("small", "whisper-base", "GPL-3.0-or-later")
    assert "CC BY 3.0" in info.info
    recipe = Recipe.from_mapping({"stock": "small", "synthesizer": {"content_dim": 512}})
    step = AdversarialStep(*fresh(recipe), recipe)
    before = {name: weight.detach().clone() for name, weight in step.weights["generator"].items()}
    assert begin(step, StartConfig("bundle"), content_name="whisper-base") == ["5 speakers are dropped"]
    assert sum(bool((weight != before[name]).any()) for name, weight in step.weights["generator"].items()) > 200
