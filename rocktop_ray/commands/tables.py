"""Facts as a table on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text


def facts_table(rows: Iterable[tuple[str, str]], title: str | None = None) -> Table:
    """Names and values in two columns, long values folded. Values are shown as they are, never read as markup."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table
