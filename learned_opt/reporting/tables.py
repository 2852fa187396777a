"""Tables of text: on terminals of any width, and as Markdown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from learned_opt.core.plain_text import plain


class Table(NamedTuple):
    """A table whose cells are text.

    Printed by rich, it has a line for each row; where the terminal is too narrow for that, a block
    of lines for each row, so that nothing is cut.

    Args:
        headings: of the columns; the first column names the row.
        rows: cells as text.
        title: above it.

    >>> print(Table(["optimizer", "loss"], [["unf", "**0.1**"]]).markdown)
    | optimizer | loss |
    | --- | --- |
    | unf | **0.1** |
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    @property
    def markdown(self) -> str:
        """The table as GitHub writes it, without the title."""
        return markdown_table(self.headings, self.rows)

    @property
    def plain(self) -> "Table":
        """The same without the stars of bold Markdown."""
        rows = []
        for row in self.rows:
            rows.append([cell.replace("**", "") for cell in row])
        return Table(self.headings, rows, self.title)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """The widest layout that the terminal holds, and an empty line."""
        # before the layout, as plain texts are wider
        table = self._in_ascii() if options.ascii_only else self
        if table.title:
            yield Text(table.title, style="italic")
        yield table._layout(console, options)
        yield ""

    def _in_ascii(self) -> "Table":
        rows = []
        for row in self.rows:
            rows.append([plain(cell) for cell in row])
        return Table([plain(heading) for heading in self.headings], rows, plain(self.title))

    def _layout(self, console: Console, options: ConsoleOptions) -> RichTable:
        # asks for the width that nothing cuts, to compare it with the terminal's
        unbounded = options.update(width=10_000, max_width=10_000)
        stacked = ["\n".join(heading.rsplit(" ", 1)) for heading in self.headings]
        for headings, padding in ((self.headings, 1), (stacked, 0)):
            lines = _lines(headings, self.rows, padding)
            if console.measure(lines, options=unbounded).maximum <= options.max_width:
                return lines
        return _blocks(self.headings, self.rows)


def _lines(headings: Sequence[str], rows: Sequence[Sequence[str]], padding: int) -> RichTable:
    table = RichTable(
        box=box.SIMPLE_HEAD, padding=(0, 0, 0, padding), pad_edge=False, show_edge=False
    )
    for i, heading in enumerate(headings):
        justify = "right" if i else "left"
        table.add_column(heading, justify=justify, vertical="bottom", no_wrap=True)

    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _blocks(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> RichTable:
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column()
    grid.add_column(overflow="fold")

    for name, *cells in rows:
        grid.add_row(Text(name, style="bold"))
        for heading, cell in zip(headings[1:], cells, strict=True):
            grid.add_row(Text(f"  {heading}"), Text(cell))
    return grid


def table_of(headings: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> Table:
    """A table of dicts with the headings as keys."""
    names = list(headings)
    cells = []
    for row in rows:
        cells.append([str(row[name]) for name in names])
    return Table(names, cells)


def markdown_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table as GitHub writes it."""
    names = list(headings)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
