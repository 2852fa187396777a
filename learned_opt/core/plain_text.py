"""Texts on terminals that know fewer characters than we write, such as those of ``LC_ALL=C``."""

import codecs
import io
import sys
import unicodedata

ERRORS = "learned_opt.plain"  # name of the way in which streams encode what they do not know
PLAIN = {
    "±": "+-",
    "×": "x",  # noqa: RUF001
    "µ": "u",
    "μ": "u",
    "…": "...",
    "–": "-",  # noqa: RUF001
    "—": "-",
    "−": "-",  # noqa: RUF001
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "·": "*",
    "•": "*",
    "─": "-",
    "━": "-",
    "│": "|",
}
SURROGATES = range(0xDC80, 0xDD00)  # bytes of file names that no encoding explains


def plain(text: str) -> str:
    """A text in ASCII: signs as they are typed, letters without accents, the rest as codes.

    >>> plain("1.00 ±0.50 µs")
    '1.00 +-0.50 us'
    >>> plain("café")
    'cafe'
    """
    return "".join(map(_plain_character, text))


def write_any_text() -> None:
    """Have the streams of this process write in plain characters what they cannot encode."""
    codecs.register_error(ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        # those of a notebook or a test are no files
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def _plain_character(character: str) -> str:
    if character.isascii():
        return character
    if character in PLAIN:
        return PLAIN[character]
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letters or character.encode("ascii", "backslashreplace").decode()


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    """What ``codecs.register_error`` takes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error

    character = error.object[error.start]
    if ord(character) in SURROGATES:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return _plain_character(character), error.start + 1
