"""Pairs and sets: what is left out and why, time warping, pairing by name, resuming, and the page."""

import json
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from rocktop_ray.audio.encode import write_take
from rocktop_ray.cli import app
from rocktop_ray.errors import AudioError, SettingsError
from rocktop_ray.evaluate import instruments as instruments_module
from rocktop_ray.evaluate import sets, warp
from rocktop_ray.evaluate.choices import CHEAP, IN_TIME, METRICS, Choices, choose
from rocktop_ray.evaluate.instruments import Instruments, build_instruments
from rocktop_ray.evaluate.measures import MEASURES, values_of
from rocktop_ray.evaluate.page import render_page
from rocktop_ray.evaluate.pair import evaluate_pair
from rocktop_ray.evaluate.pairing import find_pairs
from rocktop_ray.evaluate.sets import evaluate_set, folder_name
from rocktop_ray.evaluate.summary import Summary
from rocktop_ray.features.pitch.registry import build_pitch_extractor

RATE = 16_000
TOOLS = Instruments(pitch=build_pitch_extractor("pm"))


def sung(seconds=1.0, hertz=220.0, seed=0, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * hertz * h * time) / h for h in range(1, 12))
    return (0.2 * tone + 0.002 * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


def tune(lengths):
    return np.concatenate([sung(seconds, hertz) for seconds, hertz in zip(lengths, (220, 330, 262), strict=True)])


# --- one pair ----------------------------------------------------------------------------------------------------


def test_a_cheap_subset():
    report = evaluate_pair(sung(), sung(seed=1), RATE, metrics=("mcd", "f0"), instruments=TOOLS)
    values = values_of(report)
    assert values["f0_rmse_cents"] < 5 and values["mcd_db"] > 0
    assert not {"lsd_db", "si_sdr_db", "stoi"} & set(values) and report.left_out == {}
    assert values["length_drift"] == 0 and values["clipped"] == 0


def test_identity_is_the_best_of_every_cheap_measure():
    values = values_of(
        evaluate_pair(tune((0.5, 0.5, 0.5)), tune((0.5, 0.5, 0.5)), RATE, metrics=CHEAP, instruments=TOOLS)
    )
    best = {"f0_rmse_cents": 0, "mcd_db": 0, "lsd_db": 0, "mr_stft": 0, "si_sdr_db": 100, "loudness_change_lu": 0}
    for name, value in best.items():
        assert values[name] == pytest.approx(value, abs=1e-6), name
    assert values["f0_correlation"] == pytest.approx(1)


def test_time_warping_undoes_another_tempo():
    source, result = tune((0.6, 0.6, 0.6)), tune((0.9, 0.4, 0.7))
    plain = evaluate_pair(source, result, RATE, metrics=("f0", "lsd"), instruments=TOOLS)
    warped = evaluate_pair(source, result, RATE, metrics=("f0", "mcd", "lsd", "si_sdr"), align="dtw", instruments=TOOLS)
    assert plain.f0.rmse_cents > 200 and warped.f0.rmse_cents < 30 and warped.f0.voicing_f1 > 0.97
    assert warped.spectra.mel_cepstral_distortion_db < 3
    assert warped.align == "dtw" and set(warped.left_out) == {"lsd", "si_sdr"} <= set(IN_TIME)
    assert warped.length_drift == len(result) - len(source)
    with pytest.raises(AudioError, match="silent"):
        evaluate_pair(source, np.zeros(RATE, np.float32), RATE, metrics=("mcd",), align="dtw", instruments=TOOLS)


def test_warping_at_a_rate_without_whole_frames():
    source, result = sung(rate=22_050), sung(1.3, rate=22_050)
    report = evaluate_pair(source, result, 22_050, metrics=("f0", "mcd"), align="dtw", instruments=TOOLS)
    assert report.f0.rmse_cents < 10 and report.spectra.mel_cepstral_distortion_db < 3


@settings(max_examples=5)
@given(st.integers(0, 1000), st.floats(0.7, 1.4))
def test_the_coarse_way_finds_the_same_path(seed, tempo):
    generator = np.random.default_rng(seed)
    a = np.cumsum(generator.standard_normal((400, 3)), axis=0)
    rows = np.minimum((np.arange(round(400 / tempo)) * tempo).astype(int), 399)
    b = a[rows] + 0.01 * generator.standard_normal((len(rows), 3))
    exact = warp.warping_path(a, b)
    patch = pytest.MonkeyPatch()
    with patch.context() as changed:
        changed.setattr(warp, "_EXACT", 10_000)
        coarse = warp.warping_path(a, b)
    cost = [np.linalg.norm(a[i] - b[j], axis=1).sum() for i, j in (exact, coarse)]
    assert cost[1] == pytest.approx(cost[0], rel=1e-9)
    assert (coarse[0][0], coarse[1][0], coarse[0][-1], coarse[1][-1]) == (0, 0, len(a) - 1, len(b) - 1)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((100, 2), np.float32), "mono"),
        (np.zeros(0, np.float32), "empty"),
        (np.array([0, np.nan, 1] * 5000, np.float32), "not numbers"),
    ],
)
def test_what_is_no_take(audio, message):
    for pair in ((audio, sung()), (sung(), audio)):
        with pytest.raises(AudioError, match=message):
            evaluate_pair(*pair, RATE, metrics=CHEAP, instruments=TOOLS)
    with pytest.raises(AudioError, match="8000"):
        evaluate_pair(sung(), sung(), 4_000, metrics=CHEAP, instruments=TOOLS)


def test_choices_that_are_refused():
    for given_ in ({"metrics": ("mdc",)}, {"align": "maybe"}, {"key": 99}, {"seconds": 0}):
        with pytest.raises(SettingsError):
            Choices(**given_)
    assert choose(None) == METRICS and choose("cheap") == CHEAP and choose("SI-SDR, f0") == ("f0", "si_sdr")
    for text in ("", "mcd,nonsense"):
        with pytest.raises(SettingsError, match="mcd"):
            choose(text)


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path))
    monkeypatch.setattr(instruments_module.importlib.util, "find_spec", lambda name: None)
    tools = build_instruments(pitch="pm")
    assert set(tools.missing) == {"speaker", "stoi", "pesq", "visqol", "dnsmos", "words"}
    assert "pip install 'rocktop-ray[evaluate]'" in tools.missing["stoi"]
    assert "models fetch resemblyzer" in tools.missing["speaker"]
    report = evaluate_pair(sung(), sung(), RATE, instruments=tools)
    assert report.left_out == tools.missing and report.pesq is None
    assert build_instruments(CHEAP, pitch="pm").missing == {}


def test_a_take_that_is_too_short_costs_only_what_needs_more():
    report = evaluate_pair(sung(0.1), sung(0.1), RATE, metrics=(*CHEAP, "stoi"), instruments=Instruments(stoi=True))
    assert report.si_sdr_db == 100 and "half a second" in report.left_out["stoi"]


# --- summaries ---------------------------------------------------------------------------------------------------


def test_a_summary_by_hand():
    summary = Summary.of(
        {
            "a": {"mcd_db": 4.0, "stoi": 0.9, "length_drift": -7.0, "lufs": -20.0},
            "b": {"mcd_db": 6.0, "stoi": 0.5, "length_drift": 3.0, "lufs": -10.0, "unknown": 1.0},
            "c": {"mcd_db": 5.0, "stoi": float("nan")},
        }
    )
    mcd = summary.measures["mcd_db"]
    assert (mcd.count, mcd.mean, mcd.median, mcd.worst, mcd.worst_take) == (3, 5, 5, 6, "b")
    assert mcd.deviation == pytest.approx(np.sqrt(2 / 3))
    assert (summary.measures["stoi"].worst, summary.measures["stoi"].count) == (0.5, 2)
    assert summary.measures["length_drift"].worst_take == "a"
    assert summary.measures["lufs"].worst is None and summary.mean("lufs") == -15 and summary.mean("pesq") is None
    assert "unknown" not in summary.measures and summary.takes == 3
    assert json.loads(json.dumps(summary.as_dict()))["measures"]["mcd_db"]["mean"] == 5


def test_names_of_measures_differ():
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


# --- pairing -----------------------------------------------------------------------------------------------------


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_pairs_by_name(tmp_path):
    first, second = tmp_path / "in", tmp_path / "out"
    touch(first, "a.wav", "deep/b.mp3", "deep/b.wav", "lonely.flac", "caf\u00e9.wav", "notes.txt")
    touch(second, "a.flac", "deep/b.mp3.wav", "deep/b.wav.wav", "cafe\u0301.wav", "extra.wav")
    found = find_pairs(first, second)
    names = {pair.name: pair.result.relative_to(second).as_posix() for pair in found.pairs}
    assert names == {
        "a": "a.flac",
        "caf\u00e9": "cafe\u0301.wav",
        "deep/b.mp3": "deep/b.mp3.wav",
        "deep/b.wav": "deep/b.wav.wav",
    }
    assert (found.sources_alone, found.results_alone) == (("lonely.flac",), ("extra.wav",))


def test_pairs_that_are_not_clear(tmp_path):
    first, second = tmp_path / "in", tmp_path / "out"
    touch(first, "a.wav", "b.wav", "b.mp3")
    touch(second, "a.wav", "a.flac")
    with pytest.raises(SettingsError, match="keep one"):
        find_pairs(first, second)
    (second / "a.flac").rename(second / "b.flac")
    with pytest.raises(SettingsError, match="could come from each"):
        find_pairs(first, second)
    with pytest.raises(SettingsError, match="two files or two folders"):
        find_pairs(first, second / "a.wav")
    with pytest.raises(SettingsError, match="same folder"):
        find_pairs(first, first)
    with pytest.raises(AudioError, match="no file or folder"):
        find_pairs(first, tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    with pytest.raises(AudioError, match="has the name"):
        find_pairs(first, tmp_path / "none")


# --- sets --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    first, second = tmp_path / "takes", tmp_path / "results"
    for at, name in enumerate(("one", "two <b>&", "three")):
        first.mkdir(exist_ok=True)
        second.mkdir(exist_ok=True)
        write_take(first / f"{name}.wav", sung(0.5, seed=at), RATE)
        write_take(second / f"{name}.flac", sung(0.5, 220 * (1 + at / 100), seed=9), 44_100 if at == 2 else RATE)
    (first / "broken.wav").write_bytes(b"nothing")
    (second / "broken.wav").write_bytes(b"nothing")
    write_take(first / "alone.wav", sung(0.2), RATE)
    return first, second


QUICK = Choices(("f0", "mcd", "si_sdr"))


def test_a_set_costs_only_its_bad_pair_and_resumes(folders, tmp_path, monkeypatch):
    picture = pytest.importorskip("rocktop_ray.evaluate.picture")
    monkeypatch.setattr(picture, "draw_conversion", lambda path, *facts: path.write_bytes(b"drawn"))
    pairs = find_pairs(*folders).pairs
    out = tmp_path / "report"
    seen = []
    real = sets.measure_pair

    def interrupted(*args, **given_):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(args)
        return real(*args, **given_)

    monkeypatch.setattr(sets, "measure_pair", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_set(pairs, QUICK, out=out, instruments=TOOLS)
    monkeypatch.setattr(sets, "measure_pair", real)
    steps = []
    report = evaluate_set(pairs, QUICK, out=out, instruments=TOOLS, on_progress=lambda *step: steps.append(step))
    assert (len(report.takes), report.measured) == (3, 1)
    assert [name for name, _ in report.failed] == ["broken"] and len(steps) == steps[-1][0] == steps[-1][1] == 4
    again = evaluate_set(pairs, QUICK, out=out, instruments=TOOLS)
    assert again.measured == 0 and again.as_dict()["takes"] == report.as_dict()["takes"]
    with pytest.raises(AudioError, match="1 of 4 pairs"):
        report.raise_for_failures()
    # Kept by content: other choices, a changed file, or a scores file that is broken or lost its recording.
    assert evaluate_set(pairs, Choices(("f0",)), out=tmp_path / "report", instruments=TOOLS).measured == 3
    evaluate_set(pairs, QUICK, out=out, instruments=TOOLS)
    write_take(folders[1] / "one.flac", sung(0.5, 230), RATE)
    assert evaluate_set(pairs, QUICK, out=out, instruments=TOOLS).measured == 1
    folder = out / sets.TAKES / folder_name("one")
    (folder / sets.SCORES).write_text("{")
    assert evaluate_set(pairs, QUICK, out=out, instruments=TOOLS).measured == 1
    (folder / sets.RESULT).unlink()
    assert evaluate_set(pairs, QUICK, out=out, instruments=TOOLS).measured == 1


def test_a_set_in_memory_only(folders):
    report = evaluate_set(find_pairs(*folders).pairs, QUICK, instruments=TOOLS)
    assert report.measured == 3 and report.takes[0].folder is None
    assert report.summary.measures["mcd_db"].count == 3
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["failed"][0]["name"] == "broken"


def test_folder_names_are_plain_and_differ():
    names = ["a/b", "a-b", "a b", "ä", "..", "x" * 300, "ö"]
    made = [folder_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert all(name.isascii() and "/" not in name and ".." not in name and len(name) < 80 for name in made)


class Page(HTMLParser):
    """Ids, addresses and table rows of a page; complains of tags that are not closed."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.rows = [], [], [], 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("src", "href") if name in found]
        self.rows += tag == "tr"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_command_writes_a_page_that_stands_alone(folders, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "report"
    command = ["evaluate", *map(str, folders), "--out", str(out), "--metrics", "f0,mcd,si_sdr", "--pitch", "pm"]
    done = CliRunner().invoke(app, [*command, "--target", str(folders[0] / "one.wav")])
    assert isinstance(done.exception, AudioError) and "1 of 4 pairs failed" in done.exception.message
    assert "failed: broken" in done.stderr and "without partner: alone.wav" in done.stderr
    data = json.loads((out / "report.json").read_text())
    assert data["summary"]["takes"] == 3 and data["without_partner"]["sources"] == ["alone.wav"]
    text = (out / "index.html").read_text("utf-8")
    page = Page(text)
    assert "://" not in text and "<b>" not in text and "two &lt;b&gt;&amp;" in text
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif not link.startswith("data:"):
            assert (out / unquote(link)).is_file(), link
    pictures = [link for link in page.links if link.endswith("picture.png")]
    assert len(set(pictures)) == 3 and (out / unquote(pictures[0])).read_bytes().startswith(b"\x89PNG")
    assert len([link for link in page.links if link.endswith("source.flac")]) == 3
    assert len(set(page.ids)) == len(page.ids) == 3


def test_a_page_of_an_empty_set():
    report = sets.SetReport(QUICK, missing={"pesq": "not installed"})
    assert "pesq: not installed" in render_page(report, alone=["x.wav"])


def test_the_command_refuses_what_does_not_go_together(folders, tmp_path):
    command = ["evaluate", *map(str, folders)]
    for more in (["--words", "la"], ["--align", "maybe"], ["--metrics", "what"]):
        assert isinstance(CliRunner().invoke(app, [*command, *more]).exception, SettingsError)
