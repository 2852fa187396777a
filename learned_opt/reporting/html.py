"""A page in one self-contained file: what it is made of, and nothing of what it says."""

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Section(NamedTuple):
    """A heading and what is below it.

    Args:
        heading: plain text; also in the list of links at the top.
        parts: made by the functions of this file; plain text would be escaped.
    """

    heading: str
    parts: Sequence[Markup]


class Picture(NamedTuple):
    """A picture inside the page.

    Args:
        source: data URL.
        alt: what it shows, for who cannot see it.
        caption: below it.
    """

    source: str
    alt: str
    caption: str


def page(title: str, sections: Sequence[Section], subtitle: str = "", reload: int = 0) -> str:
    """The whole page.

    Args:
        title: of the page and of the browser's tab.
        sections: from top to bottom.
        subtitle: set as code below the title, such as a command.
        reload: seconds after which the page loads itself again; 0 for a page that stays.
    """
    return _TEMPLATES.get_template("page.html").render(
        title=title, sections=sections, subtitle=subtitle, reload=reload
    )


def table(headings: Iterable[str], rows: Iterable[Iterable[str]], caption: str = "") -> Markup:
    """A table of numbers, its first column names; scrolls sideways where the screen is narrow."""
    return _part("table", list(headings), [list(row) for row in rows], caption, "numbers")


def facts(headings: Iterable[str], rows: Iterable[Iterable[str]], caption: str = "") -> Markup:
    """A table of words, which wrap."""
    return _part("table", list(headings), [list(row) for row in rows], caption, "facts")


def sentences(lines: Iterable[str], kind: str = "") -> Markup:
    """A list of sentences; ``missing`` as kind makes it stand out."""
    return _part("sentences", list(lines), kind)


def note(text: str) -> Markup:
    """A paragraph in small print."""
    return _part("note", text)


def details(summary: str, text: str) -> Markup:
    """Preformatted text that is folded away until its summary is clicked."""
    return _part("details", summary, text)


def pictures(items: Iterable[Picture]) -> Markup:
    """Pictures side by side, one below the other on a narrow screen."""
    return _part("pictures", list(items))


def picture(figure: Figure, alt: str, caption: str = "") -> Picture:
    """A matplotlib figure as vectors; the same figure gives the same bytes."""
    file = io.BytesIO()
    # ids from a fixed salt and no date: equal results make equal pages
    with matplotlib.rc_context({"svg.hashsalt": "learned_opt"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    # as an image of its own, since the ids of several drawings in one document would clash
    return Picture(
        f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}", alt, caption
    )


def _part(name: str, *arguments: Any) -> Markup:
    return getattr(_TEMPLATES.get_template("parts.html").module, name)(*arguments)
