"""Makes the voice file of a checkpoint: ``python -m train_loops.bundle.export --run RUN --data DATA --out FOLDER``.

Writes ``bundle.safetensors`` and, with ``--vectors``, ``bundle.index`` (k-means centres of the target's own units).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch
from sklearn.cluster import MiniBatchKMeans

from rocktop_ray.features.index import RetrievalIndex
from rocktop_ray.models.singer.about import SingerAbout
from rocktop_ray.models.singer.filters import REFERENCE_RATE, mel_spaced
from rocktop_ray.models.singer.network import SingerConfig, SingerNet
from rocktop_ray.voices.singer_format import write_singer
from train_loops.bundle.sources import SPEAKERS

FULL_RATE = 48_000
HEARD_HZ = 16_000.0
"""Above this the recordings for the high band hold nothing; the levels go on falling as they did."""
SIBILANT_HZ = 3_500.0
FALL = 0.06
"""Fall of the log amplitude per mel-spaced band above ``HEARD_HZ``."""

CREDITS = (
    "Target voice: hibari-tts 'heart' (Apache-2.0; distilled from Kokoro-82M, Apache-2.0). Other speakers in training: "
    "flite CMU Arctic voices slt, rms, awb (CMU, free); gcin-voice '5' (CC BY 3.0) and '3' (LGPL-3/GPL-3). "
    "Content units: Whisper base encoder (OpenAI, MIT). F0: FCPE (torchfcpe, MIT)."
)


def band_levels(audio: npt.NDArray[np.float32], places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Log amplitudes ``[frames, places]`` around each frequency, in the latent's unit, from audio at 48 kHz."""
    size = 1024
    window = np.hanning(size)
    frames = np.lib.stride_tricks.sliding_window_view(audio, size)[::480] * window
    power = np.abs(np.fft.rfft(frames)) ** 2 / (window**2).sum() * REFERENCE_RATE / FULL_RATE
    edges = np.concatenate([[places[0] * 0.97], np.sqrt(places[1:] * places[:-1]), [places[-1] * 1.02]])
    bins = np.fft.rfftfreq(size, 1 / FULL_RATE)
    inside = (bins[None] >= edges[:-1, None]) & (bins[None] < edges[1:, None])
    return 0.5 * np.log(power @ (inside / inside.sum(1, keepdims=True)).T + 1e-9)


def fit_high_band(net: SingerNet, gcin: Path) -> None:
    """Set ``net.high`` to a ridge regression from sibilant bands to bands above ``core_hz`` of full-band speech."""
    config = net.config
    low = mel_spaced(0, config.core_hz, config.noise_bands)
    high = mel_spaced(config.core_hz, FULL_RATE / 2, config.high_bands + 1)[1:]
    used = np.flatnonzero(low >= SIBILANT_HZ)[:-1]
    heard = np.flatnonzero(high <= HEARD_HZ)
    low_rows, high_rows = [], []
    for path in sorted(gcin.glob("*/5.ogg"))[::2]:
        audio, rate = soundfile.read(path, dtype="float32")
        audio = np.asarray(soxr.resample(audio if audio.ndim == 1 else audio.mean(1), rate, FULL_RATE), np.float32)
        if len(audio) > 2048:
            audio = audio / np.abs(audio).max() * 0.5
            low_rows.append(band_levels(audio, low[used]))
            high_rows.append(band_levels(audio, high[heard]))
    x, y = np.concatenate(low_rows), np.concatenate(high_rows)
    keep = x.max(1) > -7
    x, y = x[keep], y[keep]
    centre, level = x.mean(0), y.mean(0)
    weights = np.linalg.solve(
        (x - centre).T @ (x - centre) + 0.02 * len(x) * np.eye(len(used)), (x - centre).T @ (y - level)
    )
    rows = np.zeros((config.high_bands, config.core_dim))
    bias = np.zeros(config.high_bands)
    for band in range(config.high_bands):
        source = min(band, len(heard) - 1)
        rows[band, config.harmonic_bands + used] = weights[:, source]
        bias[band] = level[source] - centre @ weights[:, source] - FALL * 4 * max(0, band - len(heard) + 1)
    with torch.no_grad():
        net.high.weight.copy_(torch.tensor(rows))
        net.high.bias.copy_(torch.tensor(bias))


def sharpen_formants(net: SingerNet, strength: float) -> None:
    """Make the harmonic envelope's peaks and dips ``strength`` times as deep (1: as they are), in the head's weights.

    The average over training draws is smoother than any one voice; the post-filters of statistical synthesis make up
    for it in the same way.
    """
    bands = net.config.harmonic_bands
    reach = 8
    smooth = np.zeros((bands, bands))
    for band in range(bands):
        for near in range(band - reach, band + reach + 1):
            smooth[band, min(max(near, 0), bands - 1)] += 1 / (2 * reach + 1)
    matrix = torch.tensor(np.eye(bands) + (strength - 1) * (np.eye(bands) - smooth), dtype=torch.float32)
    with torch.no_grad():
        net.head.weight[:bands] = matrix @ net.head.weight[:bands]
        net.head.bias[:bands] = matrix @ net.head.bias[:bands]


def target_units(data: Path) -> npt.NDArray[np.float32]:
    """Clean units of the target speaker's items that are not silent, ``[n, dim]``."""
    rows = []
    for path in sorted(data.glob("s[po]*_*.npz")):
        with np.load(path) as file:
            if json.loads(str(file["entry"]))["speaker"] == SPEAKERS[0]:
                audio, units = file["audio"].astype(np.float32) / 32768, file["units"][0].astype(np.float32)
        level = np.sqrt((audio[: len(units) * 480].reshape(len(units), 480) ** 2).mean(1))
        rows.append(units[level > 0.02 * level.max()])
    return np.concatenate(rows)


def centres(units: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """k-means centres of the units, ``[count, dim]``."""
    kmeans = MiniBatchKMeans(n_clusters=count, batch_size=4096, n_init=1, max_iter=20, random_state=0)
    return np.asarray(kmeans.fit(units).cluster_centers_, np.float32)


def median_f0(data: Path) -> float:
    """Median F0 in Hz of the target's speech."""
    return float(
        np.median(np.concatenate([f0[f0 > 0] for f0 in (np.load(path)["f0"] for path in data.glob("speech_*.npz"))]))
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gcin", type=Path, default=Path("/usr/share/gcin-voice/ogg"))
    parser.add_argument("--vectors", type=int, default=0, help="units in the retrieval index; 0: no index")
    parser.add_argument("--sharpen", type=float, default=1.0, help="depth of the formants; 1: as trained")
    parser.add_argument("--index-rate", type=float, default=0.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    state = torch.load(given.run / "checkpoint.pt", weights_only=True)
    about = state["about"]
    net = SingerNet(SingerConfig(**{**about["config"], "dilations": tuple(about["config"]["dilations"])}))
    prefix = "module."
    net.load_state_dict(
        {name[len(prefix) :]: value for name, value in state["average"].items() if name.startswith(prefix)}
    )
    sharpen_formants(net, given.sharpen)
    fit_high_band(net, given.gcin)
    recipe = {
        name: about[name]
        for name in ("steps", "batch", "frames", "rate", "repulsion", "versions", "speakers", "seed", "items")
    }
    recipe |= {"adversary": about.get("adversary", 0.0), "sharpen": given.sharpen}
    recipe |= {"minutes": round(about["minutes"], 1), "step": state["step"]}
    given.out.mkdir(parents=True, exist_ok=True)
    write_singer(
        given.out / "bundle.safetensors",
        net,
        SingerAbout(
            sample_rate=FULL_RATE,
            encoder="whisper-base",
            speakers=SPEAKERS,
            defaults={"index_rate": given.index_rate, "rms_mix": 0.25, "unvoiced": "zero"},
            default_extractor="fcpe",
            median_f0=round(median_f0(given.data), 1),
            info="The bundle voice of rocktop-ray: a light female voice, English.",
            licence="GPL-3.0-or-later; see MODEL_CARD.md for the sources",
            credits=CREDITS,
            training_data=about["fingerprint"],
            recipe=recipe,
        ),
    )
    if given.vectors:
        index = RetrievalIndex.build(centres(target_units(given.data), given.vectors))
        index.save(given.out / "bundle.index")


if __name__ == "__main__":
    main()
