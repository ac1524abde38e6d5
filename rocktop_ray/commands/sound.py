"""How a conversion sounds, as options: the same words for ``convert`` and ``live``."""

from __future__ import annotations

import typer

PANEL = "Sound"

KEY = typer.Option(help="Transpose by semitones.", rich_help_panel=PANEL)
FORMANT = typer.Option(help="Shift formants by semitones.", rich_help_panel=PANEL)
INDEX_RATE = typer.Option(help="Share of retrieved units, 0-1.", rich_help_panel=PANEL)
PROTECT = typer.Option(help="Protect consonants, 0-0.5 (off).", rich_help_panel=PANEL)
RMS_MIX = typer.Option(help="1: the voice's loudness, 0: the take's.", rich_help_panel=PANEL)
SPEAKER = typer.Option(help="Speaker of a multi-speaker voice.", rich_help_panel=PANEL)
TEMPERATURE = typer.Option(help="Scale of the prior noise.", rich_help_panel=PANEL)
UNVOICED = typer.Option(help="F0 of voiceless frames: zero (classic) or interpolate (2026).", rich_help_panel=PANEL)
AUTOTUNE = typer.Option(help="Snap F0 to the scale, 0-1.", rich_help_panel=PANEL)
SCALE = typer.Option(help="chromatic, major, minor, ...", rich_help_panel=PANEL)
ROOT = typer.Option(help="Tonic of the scale.", rich_help_panel=PANEL)
SEED = typer.Option(help="Of all random draws; the same gives the same bytes.", rich_help_panel=PANEL)
