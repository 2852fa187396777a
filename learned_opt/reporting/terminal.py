"""Tables on terminals of any width."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text


class FittingTable(NamedTuple):
    """A table with a line for each row; where that is too wide, a block of lines for each row, and nothing is cut.

    Args:
        headings: of the columns; the first column names the row.
        rows: cells as text.
        title: above it.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """The widest layout that the terminal holds, and an empty line."""
        unbounded = options.update(width=10_000, max_width=10_000)
        stacked = ["\n".join(heading.rsplit(" ", 1)) for heading in self.headings]
        layouts = [_lines(self.headings, self.rows, 1), _lines(stacked, self.rows, 0)]
        fits = (
            own
            for own in layouts
            if console.measure(own, options=unbounded).maximum <= options.max_width
        )
        if self.title:
            yield Text(self.title, style="italic")
        yield next(fits, _blocks(self.headings, self.rows))
        yield ""


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]], padding: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, padding), pad_edge=False, show_edge=False)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", vertical="bottom", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _blocks(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, *cells in rows:
        grid.add_row(Text(name, style="bold"))
        for heading, cell in zip(headings[1:], cells, strict=True):
            grid.add_row(Text(f"  {heading}"), Text(cell))
    return grid
