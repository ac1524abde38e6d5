"""The networks of the pitch extractors against their peers (see ``goldens/README.md``), and in parts."""

from __future__ import annotations

from pathlib import Path

import golden_data
import librosa
import numpy as np
import pytest
import torch

from rocktop_ray.audio.mel import mel_filters
from rocktop_ray.errors import ModelMissingError, RocktopError, UnsafeFileError, VoiceFormatError
from rocktop_ray.features.pitch import crepe, mel, rmvpe, salience
from rocktop_ray.features.pitch.crepe import CrepeExtractor
from rocktop_ray.features.pitch.fcpe import FcpeExtractor
from rocktop_ray.features.pitch.rmvpe import RmvpeExtractor
from rocktop_ray.models import rmvpe as rmvpe_model
from rocktop_ray.models.crepe import CREPE
from rocktop_ray.models.fcpe import FCPE
from rocktop_ray.models.rmvpe import RMVPE


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return golden_data.case("v2_48k_f0")


@pytest.fixture(scope="module")
def peers() -> dict[str, np.ndarray]:
    return dict(np.load(golden_data.HERE / "pitch_peers.npz"))


@pytest.fixture(scope="module")
def extractor() -> RmvpeExtractor:
    return RmvpeExtractor(golden_data.rmvpe_file())


def installed(make, *args, **options):
    try:
        return make(*args, **options)
    except ModelMissingError as missing:
        pytest.skip(missing.message)


def largest_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the peak."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_rmvpe_mel(extractor, golden):
    assert largest_error(extractor.mel(golden["audio_pad"].astype(np.float32)), golden["rmvpe_mel"][0]) < 1e-3


def test_rmvpe_hidden(extractor, golden):
    assert largest_error(extractor.salience(golden["rmvpe_mel"][0]), golden["rmvpe_hidden"][0]) < 1e-4


def test_rmvpe_decode(extractor, golden):
    f0 = extractor.decode(golden["rmvpe_hidden"][0])
    assert ((f0 > 0) == (golden["f0_raw"] > 0)).all()
    assert f0 == pytest.approx(golden["f0_raw"], rel=1e-4)


def test_rmvpe_from_audio_to_f0(extractor, golden):
    f0 = extractor.f0(golden["audio_pad"].astype(np.float32))
    assert f0.shape == golden["f0_raw"].shape and f0 == pytest.approx(golden["f0_raw"], rel=1e-4)


def test_rmvpe_in_windows_is_nearly_the_whole(extractor, golden, monkeypatch):
    audio = golden["audio_pad"].astype(np.float32)
    whole = extractor.f0(audio)
    monkeypatch.setattr(rmvpe, "WINDOW", 256)
    monkeypatch.setattr(rmvpe, "OVERLAP", 224)
    parts = extractor.f0(audio)
    assert parts.shape == whole.shape
    assert np.isclose(parts, whole, rtol=1e-3).mean() > 0.9


def test_rmvpe_tiles_are_exact(monkeypatch):
    torch.manual_seed(0)
    network = RMVPE(channels=4, levels=3, inner=1, bands=16, hidden=8, bins=20).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(torch.randn_like(parameter) * (1.5 / max(1, parameter[0].numel())) ** 0.5)
    log_mel = torch.randn(16, 437)
    whole = network(log_mel)
    monkeypatch.setattr(rmvpe_model, "_TILE_FLOATS", 1)
    assert len(network.encoder[0].tiles(448, 16)) > 10
    tiled = network(log_mel)
    assert whole.std() > 0.01 and (tiled - whole).abs().max() < 1e-5


def test_fcpe_chunks_are_exact():
    torch.manual_seed(0)
    network = FCPE(mels=8, dim=16, layers=6, bins=12).eval().requires_grad_(False)
    log_mel = torch.randn(8, 700) + torch.linspace(-2, 2, 700)
    whole = network(log_mel)
    chunked = torch.cat(list(network.chunks(log_mel, size=97)))
    assert whole.std() > 0.01 and (chunked - whole).abs().max() < 1e-5


def test_fcpe_as_torchfcpe(golden, peers):
    f0 = installed(FcpeExtractor).f0(golden["input_16k"])
    assert ((f0 > 0) == (peers["fcpe_f0"] > 0)).all()
    assert f0 == pytest.approx(peers["fcpe_f0"], rel=1e-4)


def test_crepe_as_torchcrepe(golden, peers):
    extractor = installed(CrepeExtractor, size="tiny")
    found = extractor.salience(golden["input_16k"])
    path = extractor.path(found)
    assert np.array_equal(path, peers["crepe_tiny_path"])
    periodicity = crepe.median_of_three(found[np.arange(len(path)), path])
    assert periodicity == pytest.approx(peers["crepe_tiny_periodicity"], abs=1e-4)
    f0 = extractor.decode(found)
    voiced = peers["crepe_tiny_periodicity"] >= 0.1
    assert ((f0 > 0) == voiced).all()
    coarse = crepe.mean_of_three(salience.cents_to_hz(salience.bin_cents()[path]))
    assert np.abs(1200 * np.log2(f0[voiced] / coarse[voiced])).max() < 40  # two classes


def test_crepe_by_fourier_transforms_is_the_same():
    torch.manual_seed(0)
    network = CREPE(2).eval().requires_grad_(False)
    frames = torch.randn(5, 1024)
    direct = network(frames)
    assert direct.std() > 1e-3 and (network.prepare()(frames) - direct).abs().max() < 1e-5


def test_mean_of_three_as_torchcrepe(peers):
    assert crepe.mean_of_three(peers["mean_in"]) == pytest.approx(peers["mean_out"], rel=1e-6)


def test_short_curves_through_the_filters_of_three():
    assert crepe.median_of_three(np.array([3.0])) == pytest.approx([3.0])
    assert crepe.mean_of_three(np.array([3.0])) == pytest.approx([3.0])
    assert crepe.median_of_three(np.array([3.0, 1.0])) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(("low", "htk"), [(30, True), (0, False)])
def test_mel_filters_are_librosas(low, htk):
    expected = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=128, fmin=low, fmax=8000, htk=htk)
    assert mel_filters(16000, 1024, 128, low, 8000, htk=htk) == pytest.approx(expected, abs=1e-8)


def test_mel_in_blocks_is_exact(monkeypatch):
    audio = torch.randn(16000)
    front = mel.LogMel(low=30, htk=True)
    whole = front(audio)
    monkeypatch.setattr(mel, "_BATCH", 7)
    assert whole.shape == (128, (16000 - 1024) // 160 + 1)
    assert (front(audio) - whole).abs().max() < 1e-5


def test_rmvpe_classes():
    cents = salience.bin_cents()
    assert cents[0] == 1997.3794084376191 and len(cents) == 360
    assert salience.cents_to_hz(cents[[0, 359]]) == pytest.approx([31.7, 2005.5], rel=1e-3)


def test_local_average_at_the_edges():
    cents = np.linspace(0, 1200, 360)
    peak = np.zeros((3, 360), np.float32)
    peak[0, 0], peak[0, 1], peak[1, 359], peak[2, 5] = 0.5, 0.25, 1.0, 0.03
    dropped = salience.local_average(peak, cents, 0.03, repeat_edge=False)
    repeated = salience.local_average(peak, cents, 0.03, repeat_edge=True)
    assert dropped == pytest.approx([10 * 2 ** (cents[1] / 3 / 1200), 20, 0])
    assert repeated == pytest.approx([10 * 2 ** (cents[1] / 11 / 1200), 20, 0])


@pytest.mark.parametrize("make", [RmvpeExtractor, FcpeExtractor, CrepeExtractor])
def test_weights_that_do_not_fit_are_reported(make, tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"layer.weight": torch.zeros(3)}, path)
    with pytest.raises(VoiceFormatError, match=r"this is not .*missing") as caught:
        make(path)
    assert caught.value.stage == "pitch"


def test_a_wrong_shape_is_reported(tmp_path):
    path = tmp_path / "fcpe.pt"
    network = {f"input_stack.{n}.{kind}": torch.zeros(2) for n in (0, 1, 3) for kind in ("weight", "bias")}
    others = ("norm.weight", "norm.bias", "output_proj.weight_g", "output_proj.bias")
    torch.save(
        {"model": network | {name: torch.zeros(2) for name in others} | {"output_proj.weight_v": torch.ones(2, 2)}},
        path,
    )
    with pytest.raises(VoiceFormatError, match=r"blocks\.0\.contract\.bias: missing.*and \d+ more"):
        FcpeExtractor(path)


class _Runs:
    def __reduce__(self):
        return (Path.touch, (Path("must-not-exist"),))


def test_weights_that_would_run_code_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": _Runs()}, tmp_path / "evil.pt")
    with pytest.raises((UnsafeFileError, VoiceFormatError)):
        RmvpeExtractor(tmp_path / "evil.pt")
    assert not Path("must-not-exist").exists()


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("ROCKTOP_HOME", str(tmp_path))
    with pytest.raises(ModelMissingError, match="rocktop models fetch rmvpe"):
        RmvpeExtractor()
    with pytest.raises(RocktopError):
        RmvpeExtractor(tmp_path / "absent.pt")
