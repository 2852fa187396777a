"""``python -m learned_opt [VERB] ...``: finds the verb and hands the rest of the words to its file.

Imports neither torch nor Hydra: help and mistyped verbs are answered at once.
"""

import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version

from learned_opt.commands import cli, help_pages
from learned_opt.core.errors import UsageError
from learned_opt.core.plain_text import write_any_text
from learned_opt.runtime import latest_link

DISTRIBUTION = "learned-opt"  # as it is installed
HELP_FLAGS = {"--help", "-h"}


def script() -> None:
    """Entry point of the ``learned-opt`` command, which finds the modules of a user as Python does.

    ``python -m`` looks into the current folder first; a script would look beside itself.
    """
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
    main()


def main() -> None:
    """Entry point of ``python -m learned_opt``."""
    cli.open_closed_streams()
    write_any_text()
    if cli.wants_tracebacks():
        _dispatch()
    else:
        cli.answer(_dispatch)


def _dispatch() -> None:
    sys.argv[1:] = latest_link.followed(sys.argv[1:])
    words = sys.argv[1:]
    verb = "train"
    has_verb = bool(words) and words[0] in help_pages.VERBS
    if has_verb:
        verb = words[0]
        del sys.argv[1]

    if words == ["--version"]:
        print(f"learned_opt {_version()}")
        return

    asks_for_help = bool(HELP_FLAGS & set(words))
    if asks_for_help and not has_verb:
        print(help_pages.overview())
        return
    if asks_for_help and help_pages.has_config(verb):
        print(help_pages.page(verb, sys.argv[1:]))
        return

    if not has_verb:
        _refuse_unknown_verb(words)

    # only this file: no verb waits for the imports of another
    importlib.import_module(f"learned_opt.commands.{verb.replace('-', '_')}").main()


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # a checkout that is run where it lies
        return "(a checkout that is not installed)"


def _refuse_unknown_verb(words: list[str]) -> None:
    """A first word that changes no config was meant as a verb.

    Raises:
        UsageError: says what to write.
    """
    for word in words:
        if word.startswith("replay="):
            file = word.removeprefix("replay=")
            raise UsageError(f"replay is a verb; write: python -m learned_opt replay {file}")

    first = words[0] if words else "+"
    if "=" not in first and not first.startswith(("+", "~", "-")):
        hint = cli.suggest(first, help_pages.VERBS)
        raise UsageError(
            f"unknown verb {first!r}; it must be one of: {', '.join(help_pages.VERBS)}.{hint}"
        )
