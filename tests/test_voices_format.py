import errno
import io
import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from golden_data import layouts, voice_file
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_voices import tiny_config, tiny_file, tiny_state

from rocktop_ray.errors import RocktopError, StorageError, VoiceFormatError
from rocktop_ray.models.rvc.voice import RvcVoice
from rocktop_ray.voices.extract import extract
from rocktop_ray.voices.merge import merge
from rocktop_ray.voices.rvc_format import RvcFile, from_dict, pth_bytes, read_rvc, safetensors_form, write_rvc
from rocktop_ray.voices.safetensors_file import safetensors_bytes


def saved(tmp_path, data, name="x.pth"):
    path = tmp_path / name
    torch.save(data, path)
    return path


def same_weights(a, b) -> bool:
    return list(a) == list(b) and all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


def test_stock_voices():
    """Configuration and weights of the golden voices, as their layouts state them."""
    for name, f0, count in (("v2_48k_f0", True, 457), ("v2_48k_nof0", False, 446)):
        voice = read_rvc(voice_file(name))
        assert (voice.config.sample_rate, voice.config.hop, voice.config.speakers) == (48_000, 480, 109)
        assert (voice.version, voice.content_name, voice.config.uses_f0) == ("v2", "hubert-v2", f0)
        assert voice.config.to_list() == layouts()[name]["config"] and len(voice.state) == count
        assert (voice.info, voice.sr, voice.config.decoder) == ("1epoch", "48k", "hifigan")


def test_what_is_written_is_what_rvc_writes(tmp_path):
    path = voice_file("v2_48k_nof0")
    write_rvc(read_rvc(path), tmp_path / "out.pth")
    theirs, ours = torch.load(path, weights_only=True), torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(ours) == ["weight", "config", "info", "sr", "f0", "version"]
    assert {key: (type(value), value) for key, value in ours.items() if key != "weight"} == {
        key: (type(theirs[key]), theirs[key]) for key in ours if key != "weight"
    }
    assert isinstance(ours["weight"], OrderedDict) and same_weights(theirs["weight"], ours["weight"])


APPLIO = {
    "sr": 8000,
    "f0": True,
    "epoch": 3,
    "step": 40,
    "creation_date": "2026-01-01T00:00:00",
    "model_name": "x",
    "author": "someone",
    "embedder_model": "contentvec",
    "speakers_id": 3,
    "vocoder": "HiFi-GAN",
    "dataset_length": "00:10:00",
}


@pytest.mark.parametrize(
    ("changes", "extra"),
    [
        ({}, {}),
        ({"uses_f0": False}, {}),
        ({"content_dim": 768}, {}),
        ({"decoder": "mrf-hifigan"}, APPLIO),
        ({}, APPLIO),
    ],
)
def test_round_trips_are_bit_equal(tmp_path, changes, extra):
    data = tiny_file(tiny_config(**changes), **extra)
    voice = from_dict(data, "x.pth")
    write_rvc(voice, tmp_path / "a.safetensors")
    write_rvc(read_rvc(tmp_path / "a.safetensors"), tmp_path / "b.pth")
    again = read_rvc(tmp_path / "b.pth")
    assert same_weights(data["weight"], again.state)
    assert (tmp_path / "b.pth").read_bytes() == pth_bytes(voice) and safetensors_form(again) == safetensors_form(voice)
    assert again.config == voice.config and again.info == "7epoch"
    assert {key: value for key, value in extra.items() if key not in ("sr", "f0")} == again.extra
    assert type(again.sr) is type(data["sr"]) and again.sr == data["sr"]
    RvcVoice(again.config, again.state, content_name=again.content_name)


def test_own_metadata_describes_the_voice(tmp_path):
    from dataclasses import replace

    voice = replace(from_dict(tiny_file(), "x"), licence="CC BY 4.0", training_data="abc")
    write_rvc(voice, tmp_path / "a.safetensors")
    from rocktop_ray.voices.safe_load import load_metadata

    metadata = load_metadata(tmp_path / "a.safetensors")
    wanted = {
        "format": "rocktop-rvc",
        "format_version": "1",
        "sample_rate": "8000",
        "hop": "80",
        "f0": "1",
        "speakers": "3",
    }
    wanted |= {"encoder": "hubert-v1", "encoder_dim": "256", "decoder": "hifigan", "licence": "CC BY 4.0"}
    assert {key: metadata[key] for key in wanted} == wanted
    for ending in (".safetensors", ".pth"):
        write_rvc(voice, tmp_path / f"b{ending}")
        again = read_rvc(tmp_path / f"b{ending}")
        assert (again.licence, again.training_data, again.extra) == ("CC BY 4.0", "abc", {})
    with pytest.raises(VoiceFormatError, match="format version '2'"):
        (tmp_path / "c").write_bytes(safetensors_bytes(voice.state, {**metadata, "format_version": "2"}))
        read_rvc(tmp_path / "c")


def test_missing_keys_take_defaults():
    data = tiny_file()
    for key in ("info", "sr", "f0", "version"):
        del data[key]
    voice = from_dict(data, "x")
    assert (voice.version, voice.config.uses_f0, voice.info) == ("v1", True, "")
    silent = tiny_file(tiny_config(uses_f0=False, content_dim=768))
    del silent["f0"], silent["version"]
    voice = from_dict(silent, "x")
    assert (voice.version, voice.config.uses_f0) == ("v2", False)
    assert torch.load(io.BytesIO(pth_bytes(voice)))["sr"] == "8k"


def test_speakers_come_from_the_weights():
    data = tiny_file()
    data["config"][15] = 109
    assert from_dict(data, "x").config.speakers == 3


def test_nineteen_value_config():
    data = tiny_file(embedder_name="hubert-base", embedder_output_layer=9)
    data["config"].insert(17, 256)
    voice = from_dict(data, "x")
    assert (voice.config.content_dim, voice.config.sample_rate, voice.content_name) == (256, 8000, "hubert-v1")
    wide = tiny_file(tiny_config(content_dim=768), embedder_name="contentvec768", embedder_output_layer=12)
    wide["config"].insert(17, 768)
    assert from_dict(wide, "x").content_name == "hubert-v2"
    wide["embedder_output_layer"] = 9
    del wide["version"]
    assert from_dict(wide, "x").content_name == "hubert-layer9-768"


def test_units_of_unusual_width_survive(tmp_path):
    data = tiny_file(tiny_config(content_dim=512), version="v1", embedder_model="whisper-base")
    data["config"].insert(17, 512)
    for ending in (".safetensors", ".pth"):
        write_rvc(from_dict(data, "x"), tmp_path / f"x{ending}")
        again = read_rvc(tmp_path / f"x{ending}")
        assert (again.config.content_dim, again.content_name, again.version) == (512, "whisper-base", "v1")


def test_other_embedders_are_named():
    assert from_dict(tiny_file(embedder_model="spin-v2"), "x").content_name == "spin-v2"
    assert from_dict(tiny_file(embedder_model="Chinese-HuBERT-base"), "x").content_name == "chinese-hubert-base"
    assert from_dict(tiny_file(embedder_model="contentvec"), "x").content_name == "hubert-v1"


def test_deiteris_safetensors(tmp_path):
    """Tensors as they are; string metadata, the config as JSON."""
    data = tiny_file()
    metadata = {"config": json.dumps(data["config"]), "f0": "1", "version": "v1", "sr": "8k", "info": "1"}
    path = tmp_path / "voice.pth"  # what it is shows in the content
    path.write_bytes(safetensors_bytes(data["weight"], metadata))
    voice = read_rvc(path)
    assert (voice.version, voice.info, voice.sr, voice.config.uses_f0) == ("v1", "1", "8k", True)
    assert same_weights(data["weight"], voice.state)


def test_parametrized_names_and_posterior_are_normalised():
    data = tiny_file()
    data["weight"] = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for name, tensor in tiny_state(tiny_config(), training=True).items()
    }
    voice = from_dict(data, "x")
    assert set(voice.state) == set(tiny_file()["weight"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(version="v2"), r"units of 768.*emb_phone\.weight is \[4, 256\], expected \[4, 768\]"),
        (lambda d: d.update(f0=0), r"no F0.*not expected \(.*dec\.noise_convs: 4"),
        (lambda d: d.update(version="v3"), "version 'v3'"),
        (lambda d: d.update(f0="maybe"), "f0 is 'maybe'"),
        (lambda d: d.update(config=[1, 2, 3]), "3 values, expected 18"),
        (lambda d: d["config"].__setitem__(12, [10, 10]), "upsample_rates"),
        (lambda d: d["config"].__setitem__(6, 2), r"18 of \d+ weights are missing \(enc_p\.encoder: 18\)"),
        (lambda d: d["config"].__setitem__(2, 1 << 40), "inter_channels"),
        (lambda d: d["weight"].pop("emb_g.weight"), "emb_g"),
        (lambda d: d["weight"].update({"dec.conv_pre.weight": torch.ones(2)}), r"dec\.conv_pre\.weight is \[2\]"),
        (lambda d: d["weight"]["dec.cond.bias"].fill_(float("nan")), r"not finite numbers \(dec\.cond: 1\)"),
        (lambda d: d["weight"].update({"dec.cond.bias": torch.ones(8, dtype=torch.int32)}), "not finite"),
        (lambda d: d["weight"].update({"dec.cond.bias": "text"}), "not all tensors"),
        (lambda d: d.pop("config"), "expected the keys weight, config"),
        (lambda d: d.update(weight=None), "expected the keys"),
    ],
)
def test_what_does_not_fit_is_reported(tmp_path, change, words):
    data = tiny_file()
    change(data)
    with pytest.raises(VoiceFormatError, match=words) as caught:
        read_rvc(saved(tmp_path, data))
    assert (
        caught.value.message.startswith("x.pth")
        and "\n" not in caught.value.message
        and len(caught.value.message) < 700
    )


def test_training_checkpoint_is_pointed_to_extract(tmp_path):
    path = saved(tmp_path, {"model": tiny_state(tiny_config()), "iteration": 3})
    with pytest.raises(VoiceFormatError, match="rocktop voices extract"):
        read_rvc(path)


def test_too_large_for_half_precision():
    data = tiny_file()
    data["weight"]["dec.cond.bias"] = torch.full((8,), 1e6)
    voice = from_dict(data, "x")
    with pytest.raises(VoiceFormatError, match=r"float16.*safetensors"):
        pth_bytes(voice)
    assert safetensors_form(voice)


def test_write_needs_a_known_ending(tmp_path):
    with pytest.raises(VoiceFormatError, match=r"\.safetensors"):
        write_rvc(from_dict(tiny_file(), "x"), tmp_path / "x.onnx")


def test_full_disk_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    write_rvc(from_dict(tiny_file(), "x"), path)
    before = path.read_bytes()

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="no space left"):
        write_rvc(from_dict(tiny_file(seed=1), "x"), path)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


# --- merge -----------------------------------------------------------------------------------------------------------


def tiny(seed=0, **changes) -> RvcFile:
    return from_dict(tiny_file(tiny_config(**changes), seed), "x")


def test_merge_mixes_and_truncates():
    a, b = tiny(1), tiny(2, speakers=2)
    mixed = merge(a, b, 0.25, info="mix")
    assert mixed.config.speakers == 2 and mixed.state["emb_g.weight"].shape[0] == 2 and mixed.info == "mix"
    for name, tensor in mixed.state.items():
        first, second = a.state[name][: len(tensor)].float(), b.state[name].float()
        assert torch.equal(tensor, (0.25 * first + 0.75 * second).half())
    assert same_weights(merge(a, tiny(3), 1.0).state, a.state)


def test_merge_refuses_other_shapes():
    with pytest.raises(VoiceFormatError, match="no F0"):
        merge(tiny(), tiny(uses_f0=False), 0.5)
    with pytest.raises(VoiceFormatError, match="units"):
        merge(tiny(), from_dict(tiny_file(embedder_model="spin"), "x"), 0.5)
    with pytest.raises(RocktopError, match="alpha"):
        merge(tiny(), tiny(), 1.5)


# --- extract ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A v2 48k training checkpoint as RVC writes it, with an optimizer that must not be read."""
    path = tmp_path_factory.mktemp("extract") / "G_100.pth"
    layout = layouts()["v2_48k_nof0"]
    random = torch.Generator().manual_seed(0)
    model = {name: torch.randn(shape, generator=random).mul_(0.05) for name, shape in layout["weight"].items()}
    model["enc_q.pre.weight"] = torch.ones(192, 1025, 1)
    torch.save(
        {"model": model, "iteration": 12, "optimizer": {"state": {0: torch.zeros(4)}}, "learning_rate": 1e-4}, path
    )
    return path


def test_extract_finds_the_configuration(checkpoint):
    voice = extract(checkpoint)
    assert voice.config.to_list() == layouts()["v2_48k_nof0"]["config"]
    assert (voice.info, voice.sr, voice.version, voice.config.uses_f0) == ("12epoch", "48k", "v2", False)
    assert not any("enc_q" in name for name in voice.state)
    assert {tensor.dtype for tensor in voice.state.values()} == {torch.float16}
    with pytest.raises(VoiceFormatError, match="sample rate"):
        extract(checkpoint, sample_rate=40_000)


def test_extract_refuses_what_is_no_generator(tmp_path):
    with pytest.raises(VoiceFormatError, match="already"):
        extract(saved(tmp_path, tiny_file()))
    with pytest.raises(VoiceFormatError, match="generator"):
        extract(saved(tmp_path, {"model": {"discriminators.0.weight": torch.ones(1)}}))
    with pytest.raises(VoiceFormatError, match="no stock configuration"):
        extract(saved(tmp_path, {"model": tiny_state(tiny_config(), training=True)}))


# --- property --------------------------------------------------------------------------------------------------------

_DATA = tiny_file()
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-9, 9)),
)


@settings(max_examples=150, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from(["config", "f0", "version", "sr", "info", "embedder_model"]), _VALUES, min_size=1
    )
)
def test_odd_fields_are_told_not_raised(changes):
    try:
        voice = from_dict({**_DATA, **changes}, "x")
    except RocktopError as error:
        assert "\n" not in error.message
    else:
        assert safetensors_form(voice) and pth_bytes(voice)


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 17), value=_VALUES)
def test_odd_config_values_are_told_not_raised(place, value):
    config = [*_DATA["config"]]
    config[place] = value
    try:
        from_dict({**_DATA, "config": config}, "x")
    except RocktopError as error:
        assert "\n" not in error.message


_OWN = safetensors_form(from_dict(_DATA, "x"))


@settings(max_examples=150, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(8, 900), st.integers(32, 126)), min_size=1, max_size=4))
def test_damaged_own_files_are_told_not_raised(tmp_path_factory, edits):
    data = bytearray(_OWN)
    for place, value in edits:
        data[place] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(data)
    try:
        read_rvc(path)
    except RocktopError as error:
        assert "\n" not in error.message
