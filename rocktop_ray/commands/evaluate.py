"""``rocktop evaluate``: measure a converted take against its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The recording that was converted.")],
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="What came out.")],
    target: Annotated[Path | None, typer.Option(help="A clip of the voice it should sound like.")] = None,
    key: Annotated[float | None, typer.Option(help="Key shift in semitones; found by itself if left out.")] = None,
    pitch: Annotated[str | None, typer.Option(help="Pitch extractor; fcpe if installed, else harvest.")] = None,
    words: Annotated[str | None, typer.Option(help="What is sung, to count the recogniser's errors.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON.")] = False,
) -> None:
    """Compare a converted take with its source: melody, voice, level, length, spectrum, words."""
    from rich.console import Console

    from rocktop_ray.audio.decode import read_take
    from rocktop_ray.commands.tables import facts_table
    from rocktop_ray.evaluate.report import default_pitch_extractor, default_speaker_encoder, evaluate_takes
    from rocktop_ray.evaluate.words import find_recogniser
    from rocktop_ray.features.pitch.registry import build_pitch_extractor
    from rocktop_ray.protocols import TAKE_RATE
    from rocktop_ray.store.fetch import command

    speaker = default_speaker_encoder()
    report = evaluate_takes(
        read_take(source),
        read_take(result),
        TAKE_RATE,
        target=read_take(target) if target is not None else None,
        key=key,
        pitch=build_pitch_extractor(pitch) if pitch is not None else default_pitch_extractor(),
        speaker=speaker,
        recogniser=find_recogniser(),
        true_words=words,
    )
    if as_json:
        typer.echo(json.dumps({"source": str(source), "result": str(result), **report.as_dict()}, indent=2))
    else:
        Console().print(facts_table(report.rows()))
    if speaker is None:
        typer.echo(f"the voices were not compared; the weights for that come with: {command('resemblyzer')}", err=True)
