"""What the verbs share: errors that a person can act on, exit codes, and how Hydra is started.

Imports nothing heavy, so that a mistyped command is answered at once.

Bad input is one sentence on stderr and exit code 2, a run that cannot go on one and exit code 1,
Ctrl-C a line and exit code 130. Set HYDRA_FULL_ERROR=1 to see tracebacks instead.
"""

import argparse
import difflib
import errno
import importlib
import os
import re
import select
import sys
from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import Any, NoReturn

from learned_opt.commands import examples
from learned_opt.commands.words import as_hydra_reads, check_words
from learned_opt.compose.config_files import options
from learned_opt.core.errors import PROGRAM, Interrupted, RunError, UsageError, fail
from learned_opt.runtime import interrupts
from learned_opt.runtime.lasting_output import lasting_output

# these answer questions about the program and need no task
QUERIES = ("--hydra-help", "--version", "--info", "-i", "-sc", "--shell-completion")
# these bring configs of the user's own, which may hold a task
OWN_CONFIGS = (
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--experimental-rerun",
)
# how lines begin in which messages of Hydra tell of its insides
OF_INSIDES = ("full_key:", "object_type=", "reference_type=", "Set the")
OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)  # errors without a file
HELP = "python -m learned_opt VERB --help"
COMPOSERS = ("hydra", "omegaconf", "antlr4", "yaml")  # packages that make a config of words
INTERRUPTED = 130  # exit code of a shell command after Ctrl-C
BROKEN_PIPE = 141  # and of one whose reader has gone


class Parser(argparse.ArgumentParser):
    """The parser of a verb without configs; what it refuses is one sentence.

    Args:
        verb: the word behind ``python -m learned_opt``.
        description: what the verb does.
    """

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(
            prog=f"python -m learned_opt {verb}",
            description=description,
            epilog=examples.text(verb),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Refuse the words of the command line."""
        raise UsageError(f"{message}; {self.prog} --help shows what it takes.")


def check_task_given(arguments: list[str]) -> None:
    """A run needs a task; Hydra itself would not miss it.

    Raises:
        UsageError: there is none.
    """
    flags = set()
    keys = []
    for argument in arguments:
        key = argument.split("=", 1)[0]
        if argument.startswith("-"):
            flags.add(key)
        else:
            keys.append(key)

    if flags & {*QUERIES, *OWN_CONFIGS}:
        return

    choices = ", ".join(options("task"))
    if not {"task", "+task", "+experiment"} & set(keys):
        raise UsageError(f"no task given; add +task=NAME, where NAME is one of: {choices}.")


def entry_point(main: Callable[[], Any], *, needs_task: bool = True, hydra: bool = True) -> None:
    """Run a main function; its errors become a sentence and an exit code.

    Args:
        main: reads ``sys.argv``.
        needs_task: whether a command line without a task is an error.
        hydra: whether Hydra reads the arguments; ``-v`` is then short for the override that shows
            debug lines.
    """
    if wants_tracebacks():
        _start(main, needs_task, hydra)
        return
    try:
        answer(_start, main, needs_task, hydra)
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)


def _start(main: Callable[[], Any], needs_task: bool, hydra: bool) -> None:
    if hydra:
        sys.argv[1:] = as_hydra_reads(sys.argv[1:])
        check_words(sys.argv[1:])
        _check_flags(sys.argv[1:])
    if needs_task:
        check_task_given(sys.argv[1:])
    if hydra:
        # plugins of Hydra: nothing here depends on them
        importlib.import_module("learned_opt.runtime.plugins").register()
        # makes Hydra raise, where it would print and exit by itself
        os.environ["HYDRA_FULL_ERROR"] = "1"
    # what is read by ``head`` alone is still to be trained and written
    with lasting_output():
        main()


def _check_flags(words: list[str]) -> None:
    """Refuse flags that Hydra would answer with a page of its usage.

    Raises:
        UsageError: a flag is unknown, or its value is missing.
    """
    from hydra._internal.utils import get_args_parser  # Hydra offers no other way to its flags

    def refuse(message: str) -> NoReturn:
        raise UsageError(f"{message}; {HELP} shows what it takes.")

    parser = get_args_parser()
    parser.error = refuse
    parser.parse_args(words)


def wants_tracebacks() -> bool:
    """Whether errors are to be shown as Python shows them."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def answer(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; errors that a person can act on end the process with a sentence.

    Returns:
        what the function returns.
    """
    try:
        value = function(*arguments)
        sys.stdout.flush()  # at exit it would be too late to notice that the reader has gone
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Interrupted as error:
        interrupts.tell(f"{PROGRAM}: stopped by {error.number.name}. {error.way_on}")
        sys.exit(128 + error.number)  # as a shell tells a signal
    except UsageError as error:
        fail(str(error))
    except RunError as error:
        fail(str(error), code=1)
    except BrokenPipeError:
        if not _stdout_has_no_reader():
            raise
        # so that the exit does not print what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except Exception as error:
        if _is_of_config(error):
            fail(describe(error))
        if isinstance(error, OSError) and (error.filename or error.errno in OF_THE_MACHINE):
            fail(_describe_file_error(error), code=1)
        raise
    return value


def one_line_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """``answer`` around the task function that Hydra calls.

    Needed there too: what leaves it as an exception, Hydra announces in lines of its own. Not in a
    job of a sweep: there the launcher takes the exception, and the other jobs go on.
    """

    @wraps(function)
    def wrapped(*arguments: Any) -> Any:
        from learned_opt.compose import hydra_job, ways_on
        from learned_opt.runtime import job_record

        with interrupts.heard(), interrupts.way_on(partial(ways_on.of_job, *arguments)):
            if hydra_job.is_in_sweep():
                return job_record.recorded(function, *arguments)
            return answer(job_record.recorded, function, *arguments)

    return wrapped


def open_closed_streams() -> None:
    """Give a process that was started with ``>&-`` somewhere to print to."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process lives


def _stdout_has_no_reader() -> bool:
    """Whether it is stdout that is broken, and no socket of a library."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _is_of_config(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf has raised an error, of a class of theirs or of Python's."""
    return bool({"hydra", "omegaconf"} & _packages(error)) or _raised_in(error) in COMPOSERS


def _packages(error: BaseException) -> set[str]:
    """The packages of an error's classes; none of them is imported for that."""
    return {kind.__module__.split(".")[0] for kind in type(error).__mro__}


def _raised_in(error: BaseException) -> str:
    """The package of the line that has raised an error."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return str(step.tb_frame.f_globals.get("__name__")).split(".")[0] if step else ""


def describe(error: BaseException) -> str:
    """One sentence for an error of Hydra or OmegaConf, or of a constructor that Hydra called."""
    text = str(error)
    if match := re.search(r"Could not find '([\w/]+)/([^'/]+)'", text):
        group, name = match.groups()
        choices = options(group)
        hint = suggest(name, choices)
        return f"unknown {group} {name!r}; choose one of: {', '.join(choices)}.{hint}"
    if match := re.search(r"Could not override '([^']+)'", text):
        hint = _suggest_key(error)
        return f"unknown key {match[1]!r}.{hint} To add a new key write +{match[1]}=VALUE."

    if match := re.search(r"Multiple values for ([\w/@.]+)\. .*'override \S+: (\S+)'", text):
        return f"{match[1]} is chosen already; to take another one write {match[1]}={match[2]}."
    if match := re.search(r"An item is already at '([^']+)'", text):
        return f"the key {match[1]!r} is there already; leave out its plus."

    if match := re.search(r"Ambiguous value for argument '(.+?)=(.*)'", text):
        key, value = match.groups()
        return (
            f"{key}={value} has several values: add -m for a sweep over them, write "
            f"{key}=[{value}] for a list, or quote them for a text."
        )

    if not {"hydra", "omegaconf"} & _packages(error):
        return f"these words make no config: {_own_words(text) or type(error).__name__}."

    where = re.search(r"full_key: (\S+)", text)
    sentence = str(error.__cause__) if error.__cause__ else _own_words(text)
    return f"{where[1]}: {sentence}" if where else sentence


def _own_words(text: str) -> str:
    """The lines of a message of Hydra that say what is wrong, without those about its insides."""
    lines = []
    for line in text.splitlines():
        if line.startswith(("Config search path", "Available options")):
            break
        if not line.lstrip().startswith(OF_INSIDES):
            lines.append(line)
    return " ".join(lines)


def _describe_file_error(error: OSError) -> str:
    """What the operating system says of a file, and of which one."""
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}." if error.filename else f"{reason}."


def suggest(name: str, candidates: Iterable[str]) -> str:
    """The known name that a misspelt one is close to, as a question; empty where there is none.

    >>> suggest("traim", ["train", "report"])
    " Did you mean 'train'?"
    """
    close = difflib.get_close_matches(name, list(candidates), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _suggest_key(error: BaseException) -> str:
    """Compare a misspelt key with its would-be siblings, which the inner OmegaConf error knows."""
    cause = error.__cause__
    parent = getattr(cause, "parent_node", None)
    if parent is None:
        return ""
    return suggest(str(getattr(cause, "key", None)), [str(key) for key in parent])
