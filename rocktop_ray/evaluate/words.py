"""Are the words still understood? Word error rate, and the recognisers that may be installed to find it."""

from __future__ import annotations

import importlib.util
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rocktop_ray.protocols import ENCODER_RATE, Array

WHISPER_VARIABLE = "ROCKTOP_WHISPER"
"""Environment variable with the folder of a faster-whisper (CTranslate2) model."""


@dataclass(frozen=True)
class WordErrors:
    """Of the cheapest way to turn the reference into what was heard."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    """Of the reference."""
    rate: float
    """Errors per word of the reference; may exceed 1. Without reference words 0 or, if words were heard, 1."""


def split_words(text: str) -> list[str]:
    """Words in lower case, without punctuation but with apostrophes inside."""
    kept = (
        char if char.isalnum() or char == "'" or unicodedata.combining(char) else " "
        for char in unicodedata.normalize("NFKC", text).replace("’", "'").lower()
    )
    return [word for word in (part.strip("'") for part in "".join(kept).split()) if word]


def word_errors(reference: str, heard: str) -> WordErrors:
    """Counts the errors of ``heard`` against ``reference`` (Levenshtein distance over words)."""
    wanted, found = split_words(reference), split_words(heard)
    # Each cell: (errors, substitutions, deletions, insertions) so far.
    row = [(count, 0, 0, count) for count in range(len(found) + 1)]
    for word in wanted:
        above, row = row, [(row[0][0] + 1, 0, row[0][2] + 1, 0)]
        for at, other in enumerate(found):
            errors, changed, missing, added = above[at]
            same = (errors + (word != other), changed + (word != other), missing, added)
            errors, changed, missing, added = above[at + 1]
            dropped = (errors + 1, changed, missing + 1, added)
            errors, changed, missing, added = row[at]
            row.append(min(same, dropped, (errors + 1, changed, missing, added + 1)))
    errors, changed, missing, added = row[-1]
    return WordErrors(changed, missing, added, len(wanted), errors / len(wanted) if wanted else float(errors > 0))


class Recogniser(Protocol):
    """Hears words."""

    @property
    def name(self) -> str:
        """For reports."""
        ...

    def transcribe(self, audio: Array) -> str:
        """Audio ``[samples]`` at 16 kHz -> text."""
        ...


class FasterWhisper:
    """Whisper by way of faster-whisper, from a local folder; nothing is downloaded."""

    def __init__(self, folder: Path, language: str | None = None) -> None:
        from faster_whisper import WhisperModel

        self.name = f"whisper ({folder.name})"
        self._language = language
        self._model: Any = WhisperModel(str(folder), device="cpu", compute_type="float32", local_files_only=True)

    def transcribe(self, audio: Array) -> str:
        """Audio ``[samples]`` at 16 kHz -> text; without sampling or a memory of earlier segments, so repeatable."""
        segments, _ = self._model.transcribe(
            audio, language=self._language, beam_size=5, temperature=0.0, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)


class PocketSphinx:
    """CMU PocketSphinx with the English model of its package: weak on singing, but small and offline."""

    name = "pocketsphinx (en-us)"

    def transcribe(self, audio: Array) -> str:
        """Audio ``[samples]`` at 16 kHz -> text."""
        from pocketsphinx import Decoder

        decoder: Any = Decoder(samprate=float(ENCODER_RATE), logfn=os.devnull)
        scaled = audio * (0.9 / max(float(np.abs(audio).max(initial=0.0)), 1e-6))
        decoder.start_utt()
        decoder.process_raw((scaled * 32767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return hypothesis.hypstr if hypothesis is not None else ""


def find_recogniser(language: str | None = None) -> Recogniser | None:
    """The best recogniser that is installed, None without one.

    faster-whisper counts if ``$ROCKTOP_WHISPER`` names a model folder; then PocketSphinx, for English only.
    """
    folder = os.environ.get(WHISPER_VARIABLE)
    if folder and Path(folder).is_dir() and importlib.util.find_spec("faster_whisper"):
        return FasterWhisper(Path(folder), language)
    if language in (None, "en") and importlib.util.find_spec("pocketsphinx"):
        return PocketSphinx()
    return None
