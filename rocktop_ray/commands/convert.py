"""``rocktop convert``: one take, or a folder of takes, into a voice."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rocktop_ray.commands import sound
from rocktop_ray.commands.progress import conversion_bar

_ENGINE = "Engine"
_OUTPUT = "Output"


def convert(
    source: Annotated[Path, typer.Argument(help="A recording, or a folder of recordings.")],
    target: Annotated[Path, typer.Argument(help="The file to write, or a folder.")],
    voice: Annotated[str, typer.Option(help="A voice of the library, or a voice file.")] = "bundle",
    index: Annotated[Path | None, typer.Option(help="Retrieval index in place of the voice's own.")] = None,
    library: Annotated[Path | None, typer.Option(help="Folder of the voice library; default: the user's own.")] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Content encoder: hubert_base.pt or a folder.", rich_help_panel=_ENGINE)
    ] = None,
    pitch: Annotated[
        str | None,
        typer.Option(
            help="rmvpe, fcpe, crepe, crepe-tiny, pm or harvest; default the voice's.", rich_help_panel=_ENGINE
        ),
    ] = None,
    pitch_weights: Annotated[
        Path | None, typer.Option(help="Weights of the pitch extractor.", rich_help_panel=_ENGINE)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0.", rich_help_panel=_ENGINE)] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1, rich_help_panel=_ENGINE)] = None,
    key: Annotated[float, sound.KEY] = 0.0,
    auto_key: Annotated[
        bool, typer.Option("--auto-key", help="Choose the key that suits the voice.", rich_help_panel=sound.PANEL)
    ] = False,
    formant: Annotated[float, sound.FORMANT] = 0.0,
    index_rate: Annotated[float | None, sound.INDEX_RATE] = None,
    protect: Annotated[float | None, sound.PROTECT] = None,
    rms_mix: Annotated[float | None, sound.RMS_MIX] = None,
    speaker: Annotated[int, sound.SPEAKER] = 0,
    temperature: Annotated[float | None, sound.TEMPERATURE] = None,
    unvoiced: Annotated[str | None, sound.UNVOICED] = None,
    median: Annotated[
        int, typer.Option(help="Median filter of F0, frames to each side.", rich_help_panel=sound.PANEL)
    ] = 0,
    autotune: Annotated[float, sound.AUTOTUNE] = 0.0,
    scale: Annotated[str, sound.SCALE] = "chromatic",
    root: Annotated[str, sound.ROOT] = "C",
    seed: Annotated[int, sound.SEED] = 0,
    f0_file: Annotated[
        Path | None, typer.Option(help="Melody from a file of 'seconds,Hz' lines.", rich_help_panel=sound.PANEL)
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="Default: from the target's ending, else wav.", rich_help_panel=_OUTPUT)
    ] = None,
    rate: Annotated[int, typer.Option(help="Sample rate in Hz.", rich_help_panel=_OUTPUT)] = 48_000,
    bitrate: Annotated[str | None, typer.Option(help="For lossy formats, e.g. 128k.", rich_help_panel=_OUTPUT)] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise", "--normalize", help="Bring the peak to -1 dBFS.", rich_help_panel=_OUTPUT)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.", rich_help_panel=_OUTPUT)] = False,
) -> None:
    """Convert a take into another voice. The result has exactly the source's length and never peaks above -1 dBFS."""
    import torch

    from rocktop_ray.audio.batch import run_batch
    from rocktop_ray.audio.formats import check_output, format_for
    from rocktop_ray.engine import build_engine
    from rocktop_ray.errors import SettingsError
    from rocktop_ray.features.pitch.f0_file import read_f0_file
    from rocktop_ray.protocols import TAKE_RATE
    from rocktop_ray.settings import ConvertSettings
    from rocktop_ray.takes import convert_file

    if threads is not None:
        torch.set_num_threads(threads)
    named = bool(target.suffix) and not source.is_dir() and not target.is_dir()
    name = format or (format_for(target) if named else "wav")
    output = check_output(name, rate, bitrate)
    if format and named and check_output(format_for(target), TAKE_RATE).format.suffix != output.format.suffix:
        raise SettingsError(f"{target.name} is not how {format} files end: name it {target.stem}{output.format.suffix}")
    given: dict[str, Any] = {
        "index_rate": index_rate,
        "protect": protect,
        "rms_mix": rms_mix,
        "temperature": temperature,
        "unvoiced": unvoiced,
    }
    fixed: dict[str, Any] = {
        "key": key,
        "auto_key": auto_key,
        "formant": formant,
        "speaker": speaker,
        "seed": seed,
        "median_radius": median,
        "autotune": autotune,
        "scale": scale,
        "root": root,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    ConvertSettings.from_mapping({**fixed, **chosen})
    melody = None if f0_file is None else read_f0_file(f0_file)
    engine = build_engine(
        voice,
        index=index,
        encoder_path=encoder,
        pitch=pitch,
        pitch_path=pitch_weights,
        device=device,
        library=library,
    )
    settings = ConvertSettings.from_mapping({**engine.voice.info.defaults, **fixed, **chosen})
    console = Console(stderr=True)

    def work(take: Path, result: Path) -> None:
        with conversion_bar(console, take) as watch:
            done = convert_file(
                engine.converter,
                take,
                result,
                settings,
                output,
                normalise=normalise,
                melody=melody,
                on_progress=watch,
            )
        facts = {"source": str(take), "target": str(result), "voice": engine.voice.name, **done.as_dict()}
        speed = f"{1 / facts['real_time_factor']:.1f} x real time"
        line = f"{result}: {done.seconds:.2f} s, key {done.key:+g}, {speed}"
        typer.echo(json.dumps(facts) if as_json else line)

    # A folder that was half done goes on only with the same choices.
    how = {
        "voice": engine.voice.info.sha256 or voice,
        "parts": [str(part) for part in (index, encoder, pitch, pitch_weights, f0_file)],
        "output": [name, rate, bitrate, normalise],
        **asdict(settings),
    }
    report = run_batch(source, target, work, how, suffix=output.format.suffix)
    if not source.is_dir() and report.failed:
        raise report.failed[0][1]
    for take, error in report.failed:
        typer.echo(f"failed: {take}: {error.message}", err=True)
    report.raise_for_failures()
