"""A page about a dataset: what is in it, in pictures, and every recording that is not, with its reason."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from rocktop_ray.errors import SettingsError
from rocktop_ray.store.storage import Storage
from train_loops.dataset.manifest import Manifest
from train_loops.dataset.workers import SEMITONES, SHARES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORT = "report.html"
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #ddd;
overflow-wrap:anywhere;vertical-align:top}th{background:#f4f4f4}img{max-width:100%}
"""
_NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def write_report(manifest: Manifest, target: Storage) -> None:
    """Puts ``report.html`` beside the manifest. Raises SettingsError without matplotlib, StorageError."""
    target.write(REPORT, report_page(manifest).encode(), content_type="text/html; charset=utf-8")


def report_page(manifest: Manifest) -> str:
    """The page: HTML with its pictures inside, no scripts, nothing loaded from elsewhere."""
    counts, networks = manifest.counts(), manifest.networks
    facts = [
        ("source", manifest.source),
        ("takes", f"{counts['takes']}, {_time(counts['seconds'])}"),
        ("slices", f"{counts['slices']}, {_time(counts['sliced_seconds'])} (overlaps count twice)"),
        ("left out", f"{counts['rejected']} takes; {sum(take.short for take in manifest.takes)} slices too short, "
         f"{sum(take.silent for take in manifest.takes)} silent"),
        ("voice", f"{manifest.config.rate} Hz"),
        ("content units", f"{networks.encoder}, {networks.dim} wide"),
        ("F0", networks.pitch),
        ("fingerprint", manifest.fingerprint),
    ]  # fmt: skip
    speakers = [
        (str(number), name, str(mine["takes"]), str(mine["slices"]), _time(mine["seconds"]))
        for number, (name, mine) in enumerate(counts["speakers"].items())
    ]
    noted = [(take.key, take.speaker, "; ".join(take.notes)) for take in manifest.takes if take.notes]
    rejected = [(entry.key, entry.speaker, entry.reason, entry.message) for entry in manifest.rejected]
    sections = [
        f"<h1>Dataset</h1>{_table(('', ''), facts)}",
        f"<h2>Speakers</h2>{_table(('number', 'name', 'takes', 'slices', 'audio'), speakers)}",
        f"<h2>Pictures</h2>{_pictures(manifest)}",
        f"<h2>Left out ({len(rejected)})</h2>{_table(('recording', 'speaker', 'reason', 'what to know'), rejected)}",
        f"<h2>Worth a look ({len(noted)})</h2>{_table(('recording', 'speaker', 'note'), noted)}",
        f"<h2>Files that are no recordings ({len(manifest.others)})</h2>"
        f"{_table(('file',), [(name,) for name in manifest.others])}",
        f"<h2>Settings</h2>{_table(('', ''), [(k, str(v)) for k, v in manifest.config.as_mapping().items()])}",
    ]
    body = "\n".join(sections)
    head = f'<meta charset="utf-8"><title>Dataset</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in heads) if any(heads) else ""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>" if head else f"<table>{body}</table>"


def _time(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _pictures(manifest: Manifest) -> str:
    takes = manifest.takes
    parts = [part for take in takes for part in take.parts]
    midi = np.sum([part["midi"] for part in parts], axis=0) if parts else np.zeros(SEMITONES)
    shares = np.sum([part["shares"] for part in parts], axis=0) if parts else np.zeros(SHARES)
    frames = sum(sum(part["frames"]) for part in parts)
    voiced = sum(part["voiced"] for part in parts) / max(frames, 1)

    def lengths(axes: Axes) -> None:
        axes.hist([take.seconds for take in takes], bins=40, color="#4477aa")
        axes.set(title="Length of takes", xlabel="s", ylabel="takes")

    def slices(axes: Axes) -> None:
        axes.hist([count / 100 for part in parts for count in part["frames"]], bins=40, color="#4477aa")
        axes.set(title="Length of slices", xlabel="s", ylabel="slices")

    def levels(axes: Axes) -> None:
        values = [take.level_dbfs for take in takes], [take.peak_dbfs for take in takes]
        axes.hist(values, bins=40, label=["RMS of what sounds", "peak"], color=["#4477aa", "#ee6677"])
        axes.legend()
        axes.set(title="Level of takes, before levelling", xlabel="dBFS", ylabel="takes")

    def pitch(axes: Axes) -> None:
        sung = np.flatnonzero(midi)
        axes.set(title="F0 of voiced frames", ylabel="s")
        if not len(sung):
            axes.text(0.5, 0.5, "no voiced frame", ha="center", transform=axes.transAxes)
            return
        notes = np.arange(max(sung[0] - 1, 0), min(sung[-1] + 2, SEMITONES))
        axes.bar(notes, midi[notes] / 100, width=1.0, color="#228833", edgecolor="white", linewidth=0.3)
        marks = notes[:: max(1, len(notes) // 12)]
        axes.set_xticks(marks, [f"{_NOTES[note % 12]}{note // 12 - 1}" for note in marks])

    def phonation(axes: Axes) -> None:
        axes.bar((np.arange(SHARES) + 0.5) / SHARES, shares, width=1 / SHARES, color="#228833", edgecolor="white")
        axes.set(title=f"Phonation: voiced share of slices (of all {voiced:.0%})", xlabel="share", ylabel="slices")

    def singers(axes: Axes) -> None:
        mine = manifest.counts()["speakers"]
        axes.barh(range(len(mine)), [one["seconds"] / 60 for one in mine.values()], color="#4477aa")
        axes.set_yticks(range(len(mine)), [_short(name) for name in mine])
        axes.set(title="Audio of each speaker", xlabel="min")

    return _figure([lengths, slices, levels, pitch, phonation, singers])


def _short(name: str) -> str:
    return (name if len(name) <= 16 else f"{name[:15]}…").replace("$", r"\$")


def _figure(draw: list[Callable[[Any], None]]) -> str:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingsError("the report needs matplotlib: pip install 'rocktop-ray[train]', or --no-report") from error
    figure = Figure(figsize=(11, 9), layout="constrained")
    for axes, one in zip(figure.subplots(3, 2).flat, draw, strict=True):
        one(axes)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    text = base64.b64encode(picture.getvalue()).decode()
    return f'<img alt="Histograms of length, level, F0, phonation and speakers" src="data:image/png;base64,{text}">'
