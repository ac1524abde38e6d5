"""``rocktop live``: a stream that is converted as it is sung, by a server or in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rocktop_ray.commands import sound

_STREAM = "Stream"
_DEVICE = "Sound devices"
_HERE = "Without a server"


def live(
    source: Annotated[
        str | None, typer.Argument(help="A recording, - for raw samples from standard input, or none: a microphone.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="A file, - for raw samples to standard output, or none: a loudspeaker."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Server, e.g. ws://127.0.0.1:8000; none: work here.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Work in this process; so it is without --url.")] = False,
    voice: Annotated[str, typer.Option(help="A voice of the server, or of the library.")] = "bundle",
    api_key: Annotated[
        str | None, typer.Option(help="API key of the server.", envvar="ROCKTOP_API_KEY", show_envvar=True)
    ] = None,
    pace: Annotated[
        str | None,
        typer.Option(
            help="live: as time passes; free: as fast as it goes. Default: free, with devices live.",
            rich_help_panel=_STREAM,
        ),
    ] = None,
    block: Annotated[
        float | None,
        typer.Option(help="Block in ms, 20-1000. Default: 40; here 160 for most voices.", min=20, max=1000),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(help="Hz. Default: the file's or device's; of raw samples 48000.", rich_help_panel=_STREAM),
    ] = None,
    raw: Annotated[
        str | None,
        typer.Option(help="Raw samples: f32 (default) or s16, mono, little endian.", rich_help_panel=_STREAM),
    ] = None,
    wire: Annotated[
        str | None,
        typer.Option(help="Samples on the network: f32 (default), or s16 for half of it.", rich_help_panel=_STREAM),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(
            help="Seconds for which a lost connection is made again. Default: 30.",
            min=0,
            max=3600,
            rich_help_panel=_STREAM,
        ),
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="One line per second to standard error.", rich_help_panel=_STREAM)
    ] = False,
    bypass: Annotated[bool, typer.Option("--bypass", help="The take itself, equally late.")] = False,
    key: Annotated[float | None, sound.KEY] = None,
    formant: Annotated[float | None, sound.FORMANT] = None,
    index_rate: Annotated[float | None, sound.INDEX_RATE] = None,
    protect: Annotated[float | None, sound.PROTECT] = None,
    rms_mix: Annotated[float | None, sound.RMS_MIX] = None,
    speaker: Annotated[int | None, sound.SPEAKER] = None,
    temperature: Annotated[float | None, sound.TEMPERATURE] = None,
    unvoiced: Annotated[str | None, sound.UNVOICED] = None,
    autotune: Annotated[float | None, sound.AUTOTUNE] = None,
    scale: Annotated[str | None, sound.SCALE] = None,
    root: Annotated[str | None, sound.ROOT] = None,
    seed: Annotated[int | None, sound.SEED] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Number or part of the name; of the input if both differ.", rich_help_panel=_DEVICE),
    ] = None,
    output_device: Annotated[
        str | None, typer.Option(help="The same of the output. Default: as --device.", rich_help_panel=_DEVICE)
    ] = None,
    buffer: Annotated[
        float | None,
        typer.Option(
            help="ms that a loudspeaker keeps in reserve. Default: 40.", min=5, max=1000, rich_help_panel=_DEVICE
        ),
    ] = None,
    devices: Annotated[
        bool, typer.Option("--list-devices", help="List the sound devices and stop.", rich_help_panel=_DEVICE)
    ] = False,
    library: Annotated[Path | None, typer.Option(help="Folder of the voice library.", rich_help_panel=_HERE)] = None,
    index: Annotated[
        Path | None, typer.Option(help="Retrieval index in place of the voice's own.", rich_help_panel=_HERE)
    ] = None,
    pitch: Annotated[
        str | None,
        typer.Option(help="Pitch extractor, over windows. Default: listener, each frame once.", rich_help_panel=_HERE),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1, rich_help_panel=_HERE)] = None,
) -> None:
    """Convert a stream as it is sung. The result has the source's length, without the delay; Ctrl-C ends it well."""
    from rocktop_ray.commands import live_run
    from rocktop_ray.errors import SettingsError
    from rocktop_ray.live.messages import FORMATS, PACES
    from rocktop_ray.settings import ConvertSettings

    if devices:
        live_run.show_devices()
        return
    for name, value, choices in (("pace", pace, PACES), ("raw", raw, FORMATS), ("wire", wire, FORMATS)):
        if value is not None and value not in choices:
            raise SettingsError(f"--{name} is one of {', '.join(choices)}, not {value!r}")
    here = {"--library": library, "--index": index, "--pitch": pitch, "--threads": threads}
    if url is not None and (local or any(value is not None for value in here.values())):
        named = [name for name, value in {"--local": local or None, **here}.items() if value is not None]
        raise SettingsError(f"{', '.join(named)}: only without a server; leave out --url, or these")
    speaker_options = {"--output-device": output_device, "--buffer": buffer}
    for without, words, options in (
        (url is None, "--url", {"--wire": wire, "--patience": patience}),
        (source is not None and out is not None, "a microphone or a loudspeaker", {"--device": device}),
        (out is not None, "a loudspeaker", speaker_options),
        ("-" not in (source, out), "raw samples (-)", {"--raw": raw}),
    ):
        named = [name for name, value in options.items() if value is not None]
        if without and named:
            raise SettingsError(f"{', '.join(named)}: only with {words}")
    given: dict[str, Any] = {
        "key": key,
        "formant": formant,
        "index_rate": index_rate,
        "protect": protect,
        "rms_mix": rms_mix,
        "speaker": speaker,
        "temperature": temperature,
        "unvoiced": unvoiced,
        "autotune": autotune,
        "scale": scale,
        "root": root,
        "seed": seed,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    ConvertSettings.from_mapping(chosen)
    live_run.run(
        live_run.Wanted(
            source=source,
            out=out,
            url=url,
            api_key=api_key,
            voice=voice,
            settings=chosen,
            bypass=bypass,
            pace=pace,
            block=block,
            rate=rate,
            raw=raw or "f32",
            wire=wire or "f32",
            patience=30.0 if patience is None else patience,
            stats=stats,
            device=device,
            output_device=output_device,
            buffer=(40.0 if buffer is None else buffer) / 1000,
            library=library,
            index=index,
            pitch=pitch,
            threads=threads,
        )
    )
