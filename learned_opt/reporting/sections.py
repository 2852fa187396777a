"""One content, two forms: sections of a report as Markdown and as a page of HTML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.figure import Figure

from learned_opt.reporting import html, plots
from learned_opt.reporting.tables import Table


class Rows(NamedTuple):
    """A table.

    Args:
        table: its content.
        caption: below it, on the page.
        words: whether its cells are sentences rather than numbers.
    """

    table: Table
    caption: str = ""
    words: bool = False


class Sentences(NamedTuple):
    """A list of sentences.

    Args:
        lines: the sentences.
        stands_out: whether the page marks them.
    """

    lines: Sequence[str]
    stands_out: bool = False


class Drawing(NamedTuple):
    """A picture.

    Args:
        figure: what matplotlib has drawn.
        alt: what it shows, for who cannot see it.
        caption: below it, on the page.
        file: name of the PNG beside the Markdown; empty for a picture of the page alone.
        on_page: whether the page shows it; the page may have it panel by panel.
    """

    figure: Figure
    alt: str
    caption: str = ""
    file: str = ""
    on_page: bool = True


class Drawings(NamedTuple):
    """Pictures that stand side by side on the page."""

    items: Sequence[Drawing]


class Folded(NamedTuple):
    """Preformatted text that is folded away on the page, and left out of the Markdown."""

    summary: str
    text: str


Part = Rows | Sentences | Drawings | Folded | str  # a str is a note in small print
Sections = Mapping[str, Sequence[Part]]  # heading -> parts


def facts(heading: str, values: Mapping[str, str]) -> Rows:
    """A table of two columns: what a fact is called, and what it is."""
    rows = [[name, str(value)] for name, value in values.items()]
    return Rows(Table([heading, "value"], rows), words=True)


def markdown(title: str, sections: Sections) -> str:
    """The report as Markdown; drawings are links to their files."""
    blocks = [f"# {title}"]
    for heading, parts in sections.items():
        texts = [text for text in map(_markdown, parts) if text]
        if texts:
            blocks += [f"## {heading}", *texts]
    return "\n\n".join(blocks) + "\n"


def _markdown(part: Part) -> str:
    if isinstance(part, Rows):
        return part.table.markdown
    if isinstance(part, Sentences):
        return "\n".join(f"- {line}" for line in part.lines)
    if isinstance(part, Drawings):
        links = [f"![{drawing.alt}]({drawing.file})" for drawing in part.items if drawing.file]
        return "\n\n".join(links)
    if isinstance(part, Folded):
        return ""
    return part


def save_drawings(folder: Path, sections: Sections) -> list[str]:
    """Write the pictures that the Markdown links to; returns their names."""
    names = []
    for parts in sections.values():
        for part in parts:
            if isinstance(part, Drawings):
                for drawing in part.items:
                    if drawing.file:
                        plots.save(drawing.figure, folder / drawing.file)
                        names.append(drawing.file)

    return names


def page(title: str, sections: Sections, subtitle: str = "", reload: int = 0) -> str:
    """The report as one self-contained file of HTML, with the figures inside.

    Args:
        title: of the page.
        sections: heading -> parts.
        subtitle: such as a command.
        reload: seconds after which the page loads itself again; 0 for a page that stays.
    """
    made = []
    for heading, parts in sections.items():
        shown = []
        for part in parts:
            if _is_on_page(part):
                shown.append(_html(part))

        if shown:
            made.append(html.Section(heading, shown))
    return html.page(title, made, subtitle, reload)


def _is_on_page(part: Part) -> bool:
    return not isinstance(part, Drawings) or any(drawing.on_page for drawing in part.items)


def _html(part: Part) -> Markup:
    if isinstance(part, Rows):
        table = part.table.plain
        make = html.facts if part.words else html.table
        return make(table.headings, table.rows, part.caption)
    if isinstance(part, Sentences):
        return html.sentences(part.lines, "missing" if part.stands_out else "")
    if isinstance(part, Drawings):
        shown = [drawing for drawing in part.items if drawing.on_page]
        pictures = [html.picture(item.figure, item.alt, item.caption) for item in shown]
        return html.pictures(pictures)
    if isinstance(part, Folded):
        return html.details(part.summary, part.text)

    return html.note(part.replace("**", ""))  # bold of Markdown
