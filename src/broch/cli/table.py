"""Tables: aligned text for files and pipes, rich on a terminal."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broch.cli import output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells under headings."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[str] = field(default_factory=frozenset)  # columns that align right
    title: str = ""


def show(table: Table) -> None:
    """Print it to standard output, as that can show it."""
    if output.is_terminal(sys.stdout):
        console().print(as_rich(table))
    else:
        output.say(as_text(table))


def console() -> "Console":
    """A rich console on standard output that keeps to NO_COLOR and the encoding."""
    from rich.console import Console

    return Console(no_color=not output.has_colour(sys.stdout), highlight=False)


def as_text(table: Table) -> str:
    """Two spaces between columns, no colour, no lines: made for grep and awk."""
    rows = [[_one_line(cell) for cell in row] for row in table.rows]
    widths = [
        max(len(heading), *(len(row[index]) for row in rows), 0)
        for index, heading in enumerate(table.columns)
    ]
    right = [heading in table.numeric for heading in table.columns]
    lines = [table.title] if table.title else []
    for cells in (table.columns, *rows):
        padded = (
            cell.rjust(size) if is_right else cell.ljust(size)
            for cell, size, is_right in zip(cells, widths, right, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def as_rich(table: Table) -> "RichTable":
    """For a terminal: cells wrap where it is narrow."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(
        title=Text(table.title, style="bold") if table.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="bold",
    )
    for heading in table.columns:
        made.add_column(heading, justify="right" if heading in table.numeric else "left")
    for row in table.rows:
        made.add_row(*(Text(_one_line(cell), style=_STYLES.get(cell, "")) for cell in row))
    return made


_STYLES = {
    "accepted": "green",
    "running": "green",
    "ok": "green",
    "emulated": "yellow",
    "missing": "red",
    "failed": "red",
    "refused": "red",
}


def _one_line(cell: str) -> str:
    return output.clean(cell).replace("\n", "\\n")
