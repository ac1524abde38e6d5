"""Progress on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from rocktop_ray.convert import Progress


@contextmanager
def conversion_bar(console: Console, source: Path) -> Iterator[Callable[[Progress], None]]:
    """A bar over the seconds of a take, fed by ``Converter``'s progress; silent where there is no terminal."""
    from rocktop_ray.audio.decode import probe

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        TextColumn("{task.fields[stage]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(source.name, total=probe(source).seconds or 0.0, stage="")

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.seconds_done, stage=progress.stage)

        yield show


@contextmanager
def download_bar(console: Console, name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar over the bytes of a download, fed with bytes done and bytes in all; silent where there is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


@contextmanager
def count_bar(console: Console, unit: str, total: int) -> Iterator[Callable[[int, int, str], None]]:
    """A bar over things done; without a terminal a line for each tenth of the work."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(unit, total=total)

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, description=name)
            if not console.is_terminal and (done * 10 // total) > ((done - 1) * 10 // total):
                console.print(f"{done} of {total} {unit}", highlight=False)

        yield show
