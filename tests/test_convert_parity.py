"""The whole pipeline, free running, against the living peer (see goldens/README.md)."""

from __future__ import annotations

from functools import cache
from typing import Any

import golden_data
import numpy as np
import pytest

from rocktop_ray.audio.highpass import highpass
from rocktop_ray.chunks import Section
from rocktop_ray.conversion import Conversion
from rocktop_ray.convert import Converted, Converter, joined
from rocktop_ray.dynamics import mix_loudness
from rocktop_ray.features.content.registry import build_content_encoder
from rocktop_ray.features.pitch.registry import build_pitch_extractor
from rocktop_ray.noise import GivenNoise
from rocktop_ray.progress import Clock
from rocktop_ray.settings import ConvertSettings
from rocktop_ray.voices.open import open_voice

CASES: dict[str, dict[str, Any]] = {
    "v2_48k_f0": {"unvoiced": "interpolate"},
    "v2_48k_f0_classic": {"unvoiced": "zero", "key": 3},
    "v2_48k_f0_noindex_rms1": {"unvoiced": "interpolate", "index_rate": 0, "protect": 0.5},
    "v2_48k_nof0": {"index_rate": 0},
}
KEEP = {"v2_48k_f0": 0.25, "v2_48k_f0_classic": 0.25, "v2_48k_f0_noindex_rms1": 1, "v2_48k_nof0": 0.25}


@cache
def converter(voice_name: str) -> Converter:
    voice = open_voice(golden_data.voice_file(voice_name), index=golden_data.index_file())
    encoder = build_content_encoder("hubert-v2", path=golden_data.hubert_folder())
    rmvpe = build_pitch_extractor("rmvpe", path=golden_data.rmvpe_file())
    return Converter(encoder, rmvpe if voice.model.spec.uses_f0 else None, voice.model, voice.index)


@cache
def run(case: str) -> tuple[Converted, dict[str, np.ndarray]]:
    """From the golden's own 16 kHz input to our 48 kHz output, all draws zero."""
    golden = golden_data.case(case)
    parts = converter("v2_48k_nof0" if case == "v2_48k_nof0" else "v2_48k_f0")
    silent = GivenNoise({"prior": np.zeros((1000, 192), np.float32), "source": np.zeros((480_000, 1), np.float32)})
    audio = golden["input_16k"]
    section = Section(audio, 0, 0, 0, 3 * len(audio), True)
    conversion = Conversion(parts, ConvertSettings(rms_mix=1, **CASES[case]), None, silent, Clock())
    return joined(conversion.section(section)), golden


def snr(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Signal-to-noise ratio in dB, ``theirs`` being the signal."""
    return float(
        10 * np.log10(np.sum(theirs.astype(np.float64) ** 2) / np.sum((ours - theirs).astype(np.float64) ** 2))
    )


@pytest.mark.parametrize("case", CASES)
def test_free_running_output(case: str) -> None:
    """70 dB over what the peer gives, which is 20 ms shorter; the RMS mix is then drawn over the peer's length."""
    made, golden = run(case)
    source, theirs = golden["input_16k"], golden["output"]
    assert len(made.audio) == 3 * len(source)
    mixed = mix_loudness(highpass(source), 16_000, made.audio[: len(theirs)], 48_000, KEEP[case])
    assert snr(mixed, theirs) >= 70


def test_free_running_melody_is_the_peers() -> None:
    made, golden = run("v2_48k_f0_classic")
    theirs = golden["f0_hz"][100:400]
    assert np.abs(made.f0 - theirs).max() <= 1e-3
