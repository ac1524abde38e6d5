"""A run as one page of HTML: curves, the best metrics, samples to hear and see. It needs only the files beside it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

import numpy as np
from matplotlib import image

import rocktop_ray
from rocktop_ray.evaluate.measures import MEASURES
from rocktop_ray.evaluate.page import document
from rocktop_ray.evaluate.picture import spectrogram_db
from rocktop_ray.protocols import Array
from train_loops.rvc.callbacks import Facts, Outcome
from train_loops.rvc.curves import CURVES, Row, measure_name

SAMPLES = "samples"
"""Folder of samples beside the page: ``samples/<step>/<name>.wav`` and ``.png``."""
TARGET = "target"
"""In place of the step: the recordings."""
_ROWS = 240
_HIGH = 16_000.0
_KNEE = 1000.0
"""Hz up to which the mel scale is nearly linear."""
_MEASURES = {f"validation/{measure.name}": measure for measure in MEASURES}
_REASONS = {
    "steps": "all steps are done",
    "epochs": "all epochs are done",
    "minutes": "its time is over",
    "patience": "the score got no better",
    "asked": "it was asked to",
}


@dataclass(frozen=True)
class RunPage:
    """What the page tells."""

    facts: Facts
    logs: Sequence[Row]
    validations: Sequence[Row]
    samples: Mapping[int, Sequence[str]]
    """Keys of the samples of a step."""
    outcome: Outcome | None = None
    """None while the run goes on."""

    def render(self) -> str:
        """The page, to be written as UTF-8 beside the other files of the run."""
        body = [
            f"<section>{_facts(self._what())}</section>",
            f'<section><a href="{CURVES}"><img alt="Curves of the run over its steps" src="{CURVES}"></a></section>',
            self._metrics(),
            self._heard(),
        ]
        return document(f"Training of {self.facts.name}", self._about(), "\n".join(body))

    @property
    def _best(self) -> Row | None:
        best = [row for row in self.validations if row.get("improved")]
        return best[-1] if best else None

    def _about(self) -> str:
        last = max((row["step"] for row in (*self.logs, *self.validations)), default=self.facts.resumed_from)
        if self.outcome is None:
            stands = f"The run goes on; this is its state at step {last}."
        else:
            at = self.outcome.at
            stands = (
                f"The run ended after {at.step} steps, {at.epoch} epochs and {clock(at.seconds)}: "
                f"{_REASONS[self.outcome.reason]}."
            )
        best = "" if self._best is None else f" The best weights are those of step {self._best['step']}."
        return f"{stands}{best} rocktop-ray {rocktop_ray.__version__}."

    def _what(self) -> list[tuple[str, str]]:
        recipe, data = self.facts.recipe, self.facts.dataset
        counts, network = data.get("counts", {}), recipe.synthesizer
        speakers = list(counts.get("speakers", ()))
        named = ", ".join(speakers[:6]) + (f" and {len(speakers) - 6} more" if len(speakers) > 6 else "")
        return [
            ("voice", f"{recipe.version}, {network.sample_rate} Hz, {'with' if network.uses_f0 else 'without'} F0"),
            ("content units", f"{data.get('networks', {}).get('encoder', '')}, {network.content_dim} wide"),
            ("batch", f"{recipe.batch_size} examples, {recipe.precision}"),
            ("speakers", named),
            ("takes", f"{counts.get('takes', '')}, {clock(counts.get('seconds', 0.0))}"),
            ("dataset", str(data.get("fingerprint", ""))[:16]),
        ]

    def _metrics(self) -> str:
        if not self.validations:
            return ""
        first, last, best = self.validations[0], self.validations[-1], self._best or self.validations[-1]
        names = list(dict.fromkeys(name for row in self.validations for name in row if name.startswith("validation/")))
        rows = []
        for name in sorted(names, key=_order):
            title, unit = measure_name(name)
            found = [row[name] for row in self.validations if row.get(name) is not None]
            better = _better(name)
            record = "" if not found or better is None else _text(name, min(found, key=better))
            cells = [*(_text(name, row.get(name)) for row in (first, best, last)), record]
            small = " · ".join(part for part in (unit, _direction(name)) if part)
            label = f'{escape(title)} <small class="faint">{escape(small)}</small>'
            rows.append(f"<tr><td>{label}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
        columns = (("first", first), ("best weights", best), ("latest", last))
        heads = [f"{label}<small>step {row['step']}</small>" for label, row in columns]
        head = "".join(f"<th>{text}</th>" for text in ("held-out takes", *heads, "best of all steps"))
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        return f'<h2>Metrics</h2>\n<div class="wide">{table}</div>'

    def _heard(self) -> str:
        by_name: dict[str, list[int]] = {}
        for step in sorted(self.samples):
            for key in self.samples[step]:
                if key.endswith(".wav"):
                    by_name.setdefault(key.rpartition("/")[2].removesuffix(".wav"), []).append(step)
        cards = [self._card(name, steps) for name, steps in sorted(by_name.items())]
        return "\n".join(["<h2>Samples</h2>", *cards]) if cards else ""

    def _card(self, name: str, steps: list[int]) -> str:
        best = None if self._best is None else self._best["step"]
        shown = [(TARGET, "recorded")]
        if best in steps:
            shown.append((str(best), f"best weights, step {best}"))
        if steps[-1] != best:
            shown.append((str(steps[-1]), f"latest, step {steps[-1]}"))
        cells = "".join(_cell(name, folder, label, picture=True) for folder, label in shown)
        others = [step for step in steps if str(step) not in dict(shown)]
        more = "".join(_cell(name, str(step), f"step {step}", picture=False) for step in others)
        if more:
            more = f'<details><summary>as it came to be</summary><div class="players">{more}</div></details>'
        return f'<section><h3>{escape(name)}</h3><div class="players">{cells}</div>{more}</section>'


def sample_picture(wave: Array, rate: int) -> bytes:
    """A PNG with the spectrogram of ``[samples]``: 0 to -80 dB of its own peak, mel scale up to 16 kHz."""
    levels = spectrogram_db(wave)
    high = min(_HIGH, rate / 2)
    hertz = _KNEE * np.expm1(np.linspace(0, np.log1p(high / _KNEE), _ROWS))
    places = np.round(hertz / (rate / 2) * (len(levels) - 1)).astype(int)
    picture = io.BytesIO()
    image.imsave(picture, levels[places], cmap="magma", origin="lower", vmin=-80, vmax=0, format="png")
    return picture.getvalue()


def clock(seconds: float) -> str:
    """``0:07``, ``12:30`` or ``3:05:00``."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def _cell(name: str, folder: str, label: str, *, picture: bool) -> str:
    place = f"{SAMPLES}/{folder}/{quote(name)}"
    player = f'<audio controls preload="none" src="{place}.wav" aria-label="{escape(f"{name}, {label}")}"></audio>'
    image_tag = f'<img loading="lazy" alt="Spectrogram of {escape(f"{name}, {label}")}" src="{place}.png">'
    return f"<div>{escape(label)}{player}{image_tag if picture else ''}</div>"


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in rows)
    return f"<dl>{cells}</dl>"


def _order(name: str) -> tuple[int, int, str]:
    """The score, then metrics, then losses."""
    if name == "validation/score":
        return 0, 0, name
    known = list(_MEASURES)
    return (1, known.index(name), name) if name in known else (2, 0, name)


def _better(name: str) -> Any:
    """A key by which the best value is the least; None for facts."""
    if name not in _MEASURES:
        return None if name in ("validation/adversarial", "validation/discriminator") else lambda value: value
    kinds: dict[str, Any] = {"lower": lambda value: value, "higher": lambda value: -value, "zero": abs}
    return kinds.get(_MEASURES[name].better)


def _direction(name: str) -> str:
    if name in _MEASURES:
        better = _MEASURES[name].better
        return {"lower": "lower is better", "higher": "higher is better", "zero": "zero is best"}.get(better, "")
    return "" if _better(name) is None else "lower is better"


def _text(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return _MEASURES[name].text(value) if name in _MEASURES else f"{value:.3f}"
