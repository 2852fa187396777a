"""What the command lines share: where the configs lie, and errors that a person can act on.

Imports nothing heavy, so that a mistyped command is answered at once.
"""

import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from learned_opt.compose.config_files import options
from learned_opt.core.errors import PROGRAM, RunError, UsageError, fail

# these answer questions about the program and need no task
QUERIES = ("--help", "-h", "--hydra-help", "--version", "--info", "-i", "-sc", "--shell-completion")
VERBOSE = "hydra.verbose=[learned_opt,tasks,__main__]"  # what -v stands for: debug lines of this program alone
OWN_CONFIGS = (
    "--config-dir",
    "-cd",
    "--config-name",
    "-cn",
    "--config-path",
    "-cp",
    "--experimental-rerun",
)


def check_task_given(arguments: list[str]) -> None:
    """A run needs a task; Hydra itself would not miss it.

    Raises:
        UsageError: there is none, or it lacks its plus.
    """
    flags = {argument.split("=", 1)[0] for argument in arguments if argument.startswith("-")}
    if flags & {*QUERIES, *OWN_CONFIGS}:
        return
    choices = ", ".join(options("task"))
    keys = [argument.split("=", 1)[0] for argument in arguments if not argument.startswith("-")]
    if "task" in keys:
        raise UsageError(f"write +task=NAME, with the plus; NAME is one of: {choices}.")
    if "+task" not in keys and "+experiment" not in keys:
        raise UsageError(f"no task given; add +task=NAME, where NAME is one of: {choices}.")


def entry_point(main: Callable[[], Any], *, needs_task: bool = True, hydra: bool = True) -> None:
    """Run a main function; bad input becomes one line on stderr and exit code 2.

    Set HYDRA_FULL_ERROR=1 to see the traceback instead.

    Args:
        main: reads ``sys.argv``.
        needs_task: whether a command line without one is an error.
        hydra: whether Hydra reads the arguments; ``-v`` is then short for the override that shows debug lines.
    """
    if hydra:
        sys.argv[1:] = [VERBOSE if word == "-v" else word for word in sys.argv[1:]]
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        main()
        return
    try:
        if needs_task:
            check_task_given(sys.argv[1:])
        if hydra:
            importlib.import_module(
                "learned_opt.runtime.sweep_launcher"
            ).register()  # a plugin: nothing here depends on it
        os.environ["HYDRA_FULL_ERROR"] = (
            "1"  # makes Hydra raise, where it would print and exit by itself
        )
        one_line_errors(main)()
    except UsageError as error:
        fail(str(error))
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)


def one_line_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn errors of bad input into ``fail``, and Ctrl-C into a line and exit code 130.

    Needed around the task function too: what leaves it as an exception, Hydra announces in lines of its own. Not in a
    job of a sweep: there the launcher takes the exception, and the other jobs go on.
    """

    @wraps(function)
    def wrapped(*args: Any) -> Any:
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        if _is_job_of_a_sweep():
            return function(*args)
        try:
            return function(*args)
        except KeyboardInterrupt:
            print(f"\n{PROGRAM}: interrupted.", file=sys.stderr)
            sys.exit(130)
        except UsageError as error:
            fail(str(error))
        except RunError as error:
            fail(str(error), code=1)
        except (HydraException, OmegaConfBaseException) as error:
            fail(describe(error))

    return wrapped


def _is_job_of_a_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def describe(error: BaseException) -> str:
    """One sentence for an error of Hydra or OmegaConf, or of a constructor that Hydra called."""
    text = str(error)
    if match := re.search(r"Could not find '([\w/]+)/([\w.-]+)'", text):
        group, name = match.groups()
        return f"unknown {group} {name!r}; choose one of: {', '.join(options(group))}.{_suggest(name, options(group))}"
    if match := re.search(r"Could not override '([^']+)'", text):
        return f"unknown key {match[1]!r}.{_suggest_key(error)} To add a new key write +{match[1]}=VALUE."
    cause = error.__cause__
    if cause is None:
        return text.splitlines()[0]
    where = re.search(r"full_key: (\S+)", text)
    return f"{where[1]}: {cause}" if where else str(cause)


def _suggest(name: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(name, candidates, 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _suggest_key(error: BaseException) -> str:
    """Compare a misspelt key with its would-be siblings, which the inner OmegaConf error knows."""
    cause = error.__cause__
    parent, key = getattr(cause, "parent_node", None), getattr(cause, "key", None)
    return _suggest(str(key), [str(k) for k in parent]) if parent is not None else ""
