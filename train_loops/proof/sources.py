"""Recordings and voices that packages carry, as passages of some ten seconds, at the rate of their source."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile

from rocktop_ray.errors import AudioError
from train_loops.bundle import singing, texts
from train_loops.bundle.sources import RATE as HEART_RATE
from train_loops.bundle.sources import Heart

Floats = npt.NDArray[np.float32]
Passage = tuple[Floats, int]
"""Mono audio, full scale 1, and its rate in Hz."""
SECONDS = 10.0
"""Shortest length of a passage that is joined from recordings."""
_PAUSE = (0.05, 0.25)
"""Seconds between prompts."""
_BREATH = (0.0, 0.08)
"""Seconds between syllables."""
_NOT_SPEECH = ("tone", "beep", "silence")


def prompts(folder: Path, seed: int) -> Iterator[Passage]:
    """Asterisk's recorded prompts (``*.g722`` below ``folder``, 16 kHz) in a mixed order, joined to passages.

    Content units are normalised per take: of a single word that would leave little. Tones and silence are left out.
    """
    files = [
        path
        for path in sorted(folder.rglob("*.g722"))
        if path.stat().st_size and not any(word in str(path.relative_to(folder)) for word in _NOT_SPEECH)
    ]
    yield from _joined([_g722(path) for path in _mixed(files, folder, seed)], 16_000, seed, _PAUSE)


def syllables(folder: Path, person: str, seed: int) -> Iterator[Passage]:
    """The gcin-voice syllables of one person (``<folder>/*/<person>.ogg``, 44.1 kHz), joined to passages."""
    parts, rates = [], set()
    for path in _mixed(sorted(folder.glob(f"*/{person}.ogg")), folder, seed):
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        parts.append(audio.mean(1))
        rates.add(rate)
    if len(rates) != 1:
        raise AudioError(f"the recordings in {folder} have {len(rates)} rates, not one")
    yield from _joined(parts, rates.pop(), seed, _BREATH)


def flite(voice: str, seed: int, count: int) -> Iterator[Passage]:
    """Sentences by a voice of the ``flite`` program (16 kHz)."""
    for index in range(count):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            text = texts.passage(seed, index)
            subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True, capture_output=True)
            audio, rate = soundfile.read(path, dtype="float32")
        yield audio, rate


def heart(seed: int, count: int, *, sung: bool) -> Iterator[Passage]:
    """Sentences by hibari-tts's voice (24 kHz); ``sung``: re-sung with WORLD to random melodies."""
    import pyworld

    voice = Heart()
    for index in range(count):
        random = np.random.default_rng([seed, index])
        speed = float(random.uniform(0.75, 1.05))
        audio, f0 = voice.speak(texts.passage(seed, index), speed=speed, seed=index)
        if sung:
            wave = audio.astype(np.float64)
            ticks = np.arange(int(len(wave) / HEART_RATE / singing.PERIOD)) * singing.PERIOD
            melody = pyworld.stonemask(
                wave, f0[np.minimum((ticks / 0.0125).round().astype(int), len(f0) - 1)], ticks, HEART_RATE
            )
            low = float(110 * 2 ** random.uniform(0, 1.7))
            hold = float(random.uniform(1.5, 3))
            wave, _ = singing.resing(wave, HEART_RATE, melody, hold=hold, low=low, high=low * 2.2, random=random)
            audio = wave[: 16 * HEART_RATE].astype(np.float32)
        yield 0.5 * audio / np.abs(audio).max(), HEART_RATE


def _mixed(files: Sequence[Path], folder: Path, seed: int) -> list[Path]:
    if not files:
        raise AudioError(f"no recordings in {folder}: install the package that docs/learning.md names")
    return [files[place] for place in np.random.default_rng(seed).permutation(len(files))]


def _joined(parts: Sequence[Floats], rate: int, seed: int, pause: tuple[float, float]) -> Iterator[Passage]:
    """Parts one after the other with short pauses; a new passage after ``SECONDS``."""
    random = np.random.default_rng([seed, 1])
    held: list[Floats] = []
    for number, part in enumerate(parts):
        held += [part, np.zeros(int(random.uniform(*pause) * rate), np.float32)]
        if sum(map(len, held)) >= SECONDS * rate or number == len(parts) - 1:
            yield np.concatenate(held), rate
            held = []


def _g722(path: Path) -> Floats:
    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.float32) / np.float32(32768)
