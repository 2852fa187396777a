"""One content, two forms: sections of a report as Markdown and as a page of HTML."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.figure import Figure

from learned_opt.reporting import html
from learned_opt.reporting.tables import markdown_table


class Rows(NamedTuple):
    """A table.

    Args:
        headings: of its columns; the first one names the rows.
        rows: cells as text.
        words: whether its cells are sentences rather than numbers.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


class Sentences(NamedTuple):
    """A list of sentences."""

    lines: Sequence[str]


class Drawing(NamedTuple):
    """A picture, in a file of its own beside the Markdown.

    Args:
        name: of the figure.
        alt: what it shows.
    """

    name: str
    alt: str


Part = Rows | Sentences | Drawing | str  # a str is a note in small print
Sections = Mapping[str, Sequence[Part]]


def markdown(title: str, sections: Sections) -> str:
    """The report as Markdown; drawings are links to ``NAME.png``."""
    blocks = [f"# {title}"]
    for heading, parts in sections.items():
        blocks += [f"## {heading}", *map(_markdown, parts)]
    return "\n\n".join(blocks) + "\n"


def page(title: str, sections: Sections, figures: Mapping[str, Figure], subtitle: str = "") -> str:
    """The report as one self-contained file of HTML, with the figures inside."""
    made = [
        html.Section(heading, [_html(part, figures) for part in parts])
        for heading, parts in sections.items()
    ]
    return html.page(title, made, subtitle)


def _markdown(part: Part) -> str:
    if isinstance(part, Rows):
        return markdown_table(part.headings, part.rows)
    if isinstance(part, Sentences):
        return "\n".join(f"- {line}" for line in part.lines)
    return f"![{part.alt}]({part.name}.png)" if isinstance(part, Drawing) else part


def _html(part: Part, figures: Mapping[str, Figure]) -> Markup:
    if isinstance(part, Rows):
        rows = [[cell.replace("**", "") for cell in row] for row in part.rows]
        return (html.facts if part.words else html.table)(part.headings, rows)
    if isinstance(part, Sentences):
        return html.sentences(part.lines)
    if isinstance(part, Drawing):
        return html.pictures([html.picture(figures[part.name], part.alt)])
    return html.note(part)
