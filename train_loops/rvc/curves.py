"""The curves of a run as one picture: losses, the score, norms, learning rate and speed over steps."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rocktop_ray.evaluate.measures import MEASURES

CURVES = "curves.png"
Row = Mapping[str, Any]
"""``step`` and values by name, see ``history``."""
_COLUMNS = 3
_BLUE, _ORANGE, _GREEN, _INK, _FAINT = "#2f6fbb", "#d9772b", "#2e8b57", "#24292f", "#8a929c"
_TITLES = {measure.name: (measure.title, measure.unit) for measure in MEASURES}


@dataclass(frozen=True)
class _Panel:
    title: str
    curves: tuple[tuple[str, str, str], ...]
    """Name of the value, label, colour. Of ``validation/...`` each point is shown."""
    logarithmic: bool = False
    percent: bool = False


_PANELS = (
    _Panel("score on held-out takes (dB, lower is better)", (("validation/score", "score", _GREEN),)),
    _Panel("mel loss", (("loss/mel", "training", _BLUE), ("validation/mel", "held out", _GREEN))),
    _Panel("KL divergence", (("loss/kl", "training", _BLUE), ("validation/kl", "held out", _GREEN))),
    _Panel("feature matching", (("loss/feature", "training", _BLUE), ("validation/feature", "held out", _GREEN))),
    _Panel("adversarial loss of the generator", (("loss/adversarial", "training", _BLUE),)),
    _Panel("loss of the discriminator", (("loss/discriminator", "training", _ORANGE),)),
    _Panel(
        "norm of gradients",
        (("norm/generator", "generator", _BLUE), ("norm/discriminator", "discriminator", _ORANGE)),
        logarithmic=True,
    ),
    _Panel("learning rate", (("learning_rate", "", _INK),)),
    _Panel("steps per second", (("speed/steps_per_second", "", _INK),)),
    _Panel(
        "share of time spent waiting",
        (("speed/loader_wait", "for examples", _BLUE), ("speed/exchange", "for other workers", _ORANGE)),
        percent=True,
    ),
)
_LOSSES = ("score", "mel", "kl", "feature", "adversarial", "discriminator", "generator")


def draw_curves(logs: Sequence[Row], validations: Sequence[Row], *, title: str, best_step: int = 0) -> bytes:
    """A PNG with a panel for each value that the rows hold, the best step marked in all of them."""
    rows = [*logs, *validations]
    held = {name for row in rows for name in row}
    panels = [panel for panel in _PANELS if any(name in held for name, *_ in panel.curves)]
    panels += [_measure(name) for name in sorted(held, key=_rank) if _is_measure(name)]
    lines = max(1, -(-len(panels) // _COLUMNS))
    figure = Figure(figsize=(4.6 * _COLUMNS, 2.7 * lines + 0.5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=13, fontweight="bold", color=_INK)
    grid = figure.subplots(lines, _COLUMNS, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel, rows, best_step)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    picture = io.BytesIO()
    canvas.print_png(picture, metadata={"Software": None})
    return picture.getvalue()


def _draw(axes: Axes, panel: _Panel, rows: Sequence[Row], best_step: int) -> None:
    seen: list[npt.NDArray[np.float64]] = []
    for name, label, colour in panel.curves:
        points = np.array([(row["step"], row[name]) for row in rows if row.get(name) is not None], np.float64)
        if not len(points):
            continue
        steps, values = points.T
        if name.startswith("validation/"):
            axes.plot(steps, values, "-o", color=colour, label=label, linewidth=1.4, markersize=3)
            seen.append(values)
            if name == "validation/score":
                least = int(values.argmin())
                axes.plot(steps[least], values[least], "*", color=_ORANGE, markersize=13, zorder=5)
        else:
            calm = smoothed(values)
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.7)
            axes.plot(steps, calm, color=colour, label=label, linewidth=1.6)
            seen += [calm, np.quantile(values, [0.02, 0.98])]
    _dress(axes, panel, np.concatenate(seen) if seen else np.zeros(0))
    if best_step:
        axes.axvline(best_step, color=_FAINT, linewidth=0.9, linestyle=":", zorder=0)


def _dress(axes: Axes, panel: _Panel, seen: npt.NDArray[np.float64]) -> None:
    axes.set_title(panel.title, loc="left", fontsize=10, color=_INK)
    axes.grid(color="#e3e6ea", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c3c8cf")
    axes.tick_params(colors="#57606a", labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    if panel.logarithmic and len(seen) and seen.min() > 0:
        axes.set_yscale("log")
    elif panel.percent:
        axes.set_ylim(0, max(0.05, min(1.0, 1.1 * float(seen.max(initial=0.0)))))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    elif len(seen):  # a first step far off, or a spike, does not flatten the rest
        low, high = float(seen.min()), float(seen.max())
        room = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        axes.set_ylim(low - room, high + room)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useOffset=False)
        axes.yaxis.get_offset_text().set_fontsize(8)
    if len(panel.curves) > 1:
        axes.legend(fontsize=8, frameon=False, loc="upper right", labelcolor="#57606a")


def smoothed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means over a window of a fortieth of the curve around each point, cut off at its ends."""
    half = len(values) // 80
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def measure_name(name: str) -> tuple[str, str]:
    """Title and unit of ``validation/...``, for people."""
    plain = name.removeprefix("validation/")
    if plain == "score":
        return "score", "dB"
    return _TITLES.get(plain, (f"{plain} loss" if plain in _LOSSES else plain.replace("_", " "), ""))


def _is_measure(name: str) -> bool:
    return name.startswith("validation/") and name.removeprefix("validation/") not in _LOSSES


def _measure(name: str) -> _Panel:
    title, unit = measure_name(name)
    return _Panel(f"{title} ({unit})" if unit else title, ((name, "held out", _GREEN),))


def _rank(name: str) -> tuple[int, str]:
    plain = name.removeprefix("validation/")
    names = list(_TITLES)
    return (names.index(plain) if plain in names else len(names), name)


def _thousands(value: float, _: object) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _plain(text: str) -> str:
    """Dollars begin a formula."""
    return text.replace("$", r"\$")
