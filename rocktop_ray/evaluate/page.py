"""A set as one page of HTML: tables, pictures, players. It needs nothing but the files beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from html import escape
from importlib import resources
from string import Template
from urllib.parse import quote

import rocktop_ray
from rocktop_ray.evaluate.measures import MEASURES, Measure
from rocktop_ray.evaluate.sets import PICTURE, RESULT, SOURCE, TARGET, SetReport, TakeScores

_DIRECTIONS = {"lower": "lower is better", "higher": "higher is better", "zero": "zero is best", "neither": ""}


def render_page(
    report: SetReport, *, title: str = "Evaluation", target: bool = False, alone: Iterable[str] = ()
) -> str:
    """The page, to be written as UTF-8 into the folder that the set was written to.

    ``target``: whether a clip of the target voice lies there. ``alone``: files without a partner, to be named.
    """
    shown = [measure for measure in MEASURES if any(measure.name in take.values for take in report.takes)]
    seconds = sum(take.values.get("seconds", 0.0) for take in report.takes)
    aligned = "; F0 and cepstra aligned by dynamic time warping" if report.choices.align == "dtw" else ""
    about = f"{_count(report.takes, 'take')}, {seconds:.1f} s, by rocktop-ray {rocktop_ray.__version__}{aligned}."
    parts = [
        _notes(report, alone),
        f"<h2>Summary</h2>\n{_summary(report, shown)}",
        f"<h2>Takes</h2>\n{_table(report.takes, shown)}",
        *(_card(take, shown, target, report.missing) for take in report.takes),
    ]
    return document(title, about, "\n".join(parts))


def document(title: str, about: str, body: str) -> str:
    """A whole page in the style of our reports. ``title`` and ``about`` are text, ``body`` is HTML.

    It styles tables (in ``div.wide``; ``table.sortable`` with a button in each head), ``section`` as a card, players in
    ``div.players``, and ``dl`` as facts.
    """
    template = Template(resources.files("rocktop_ray.evaluate").joinpath("page.html").read_text("utf-8"))
    return template.substitute(title=escape(title), about=escape(about), body=body)


def _count(things: list[TakeScores], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _notes(report: SetReport, alone: Iterable[str]) -> str:
    lines = [f'<li class="bad">{escape(name)} failed: {escape(error.message)}</li>' for name, error in report.failed]
    lines += [f'<li class="bad">{escape(name)} has no partner</li>' for name in alone]
    lines += [f"<li>{escape(name)}: {escape(why)}</li>" for name, why in report.missing.items()]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _head(measure: Measure) -> str:
    small = " · ".join(part for part in (measure.unit, _DIRECTIONS[measure.better]) if part)
    return f"{escape(measure.title)}<small>{small}</small>"


def _summary(report: SetReport, shown: list[Measure]) -> str:
    found = report.summary.measures
    folders = {take.name: take.folder or "" for take in report.takes}
    rows = []
    for measure in shown:
        one = found[measure.name]
        worst = ""
        if one.worst is not None and one.worst_take is not None:
            link = f'<a href="#{escape(_anchor(folders[one.worst_take]))}">{escape(one.worst_take)}</a>'
            worst = f"{measure.text(one.worst)} ({link})"
        cells = (measure.text(one.mean), measure.text(one.median), measure.text(one.deviation), worst, str(one.count))
        rows.append(f"<tr><td>{_label(measure)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = "".join(f"<th>{name}</th>" for name in ("measure", "mean", "median", "deviation", "worst", "takes"))
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _label(measure: Measure) -> str:
    small = " · ".join(part for part in (measure.unit, _DIRECTIONS[measure.better]) if part)
    return f'{escape(measure.title)} <small class="faint">{small}</small>'


def _table(takes: list[TakeScores], shown: list[Measure]) -> str:
    heads = "".join(f'<th><button type="button">{head}</button></th>' for head in ("take", *map(_head, shown)))
    rows = []
    for take in takes:
        link = f'<a href="#{escape(_anchor(take.folder or ""))}">{escape(take.name)}</a>'
        cells = [f'<td data-value="{escape(take.name)}">{link}</td>']
        for measure in shown:
            value = take.values.get(measure.name)
            text = "" if value is None else measure.text(value)
            cells.append(f'<td data-value="{"" if value is None else repr(value)}">{text}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="wide"><table class="sortable">{body}</table></div>'


def _card(take: TakeScores, shown: list[Measure], target: bool, missing: Collection[str]) -> str:
    """Players, picture and numbers of one take."""
    folder = quote(take.folder or "")
    clips = [("source", f"{folder}/{SOURCE}"), ("result", f"{folder}/{RESULT}")]
    clips += [("target voice", TARGET)] if target else []
    players = "".join(
        f'<div>{name}<audio controls preload="none" src="{address}" '
        f'aria-label="{name} of {escape(take.name)}"></audio></div>'
        for name, address in clips
    )
    picture = ""
    if take.picture:
        text = f"Waveforms, spectrograms and melodies of {take.name}"
        picture = (
            f'<a href="{folder}/{PICTURE}"><img loading="lazy" width="1400" height="900" alt="{escape(text)}" '
            f'src="{folder}/{PICTURE}"></a>'
        )
    numbers = "".join(
        f"<div><dt>{escape(measure.title)}</dt><dd>{measure.text(take.values[measure.name])} {measure.unit}</dd></div>"
        for measure in shown
        if measure.name in take.values
    )
    reasons = {name: why for name, why in take.report["left_out"].items() if name not in missing}  # told at the top
    left = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in reasons.items())
    left = f'<ul class="faint">{left}</ul>' if left else ""
    title = f"<h3>{escape(take.name)}</h3>"
    body = f'{title}<div class="players">{players}</div>{picture}<dl>{numbers}</dl>{left}'
    return f'<section id="{escape(_anchor(take.folder or ""))}">{body}</section>'


def _anchor(folder: str) -> str:
    return folder.rsplit("/", 1)[-1]
