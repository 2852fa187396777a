"""Arguments of the Python functions, checked once: one sentence with the name and what it must be.

What is a constructor is called elsewhere; here is looked at what a person could have mixed up.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from learned_opt.core import tree
from learned_opt.core.checks import check_at_least
from learned_opt.optimizers.base import MetaOptimizer
from tasks.base import TaskFamily

T = TypeVar("T")
LARGEST_SEED = 2**63 - 1  # that a generator of torch takes


def check_count(least: int, **values: Any) -> None:
    """Refuse what is no whole number, or too small a one.

    Raises:
        TypeError: names the argument that is no whole number.
        ValueError: names the argument that is too small.

    >>> check_count(1, steps=0)
    Traceback (most recent call last):
    ValueError: steps must be at least 1, got 0.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number, got {value!r}.")
        check_at_least(least, **{name: value})


def check_seed(seed: Any) -> None:
    """Refuse what no generator takes.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is negative or too large.
    """
    check_count(0, seed=seed)
    if seed > LARGEST_SEED:
        raise ValueError(f"seed must be at most {LARGEST_SEED}, got {seed}.")


def named_tasks(
    task: TaskFamily | Sequence[TaskFamily] | Mapping[str, TaskFamily],
) -> dict[str, TaskFamily]:
    """The tasks by their names.

    Args:
        task: one, several, or several under names.

    Raises:
        TypeError: one is no task family.
        ValueError: there is none, or two have one name.
    """
    named: list[tuple[str, Any]] = []
    if isinstance(task, Mapping):
        named = [(str(name), family) for name, family in task.items()]
    elif isinstance(task, list | tuple):
        named = [(_checked(family).name, family) for family in task]
    else:
        family = _checked(task)
        named = [(family.name, family)]

    families: dict[str, TaskFamily] = {}
    for name, family in named:
        if name in families:
            raise ValueError(f"two tasks are called {name!r}; give task={{NAME: ..., NAME: ...}}.")
        families[name] = _checked(family)
    if not families:
        raise ValueError("task must hold at least one task family, got none.")
    return families


def _checked(family: Any) -> TaskFamily:
    """The task family, which it must be.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(family, TaskFamily):
        return family
    if isinstance(family, type) and issubclass(family, TaskFamily):
        name = family.__name__
        raise TypeError(f"task must be an object, got the class {name}; call it: {name}(...).")
    advice = ""
    if isinstance(family, nn.Module):
        advice = "; tasks.ModuleTask(module, loss, data) makes one of a module"
    raise TypeError(f"task must be a tasks.base.TaskFamily, got {shown(family)}{advice}.")


def of_each(value: T | Mapping[str, T], names: Sequence[str], argument: str) -> dict[str, T]:
    """What an argument says of every task: one value for all, or a mapping with one for each.

    Args:
        value: of the argument.
        names: of the tasks.
        argument: its name, for the message.

    Raises:
        ValueError: the mapping is not of these tasks.

    >>> of_each(200, ["mlp", "cnn"], "horizon")
    {'mlp': 200, 'cnn': 200}
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, value)
    keys = tree.difference(list(names), list(value))
    if keys:
        raise ValueError(f"{argument} must have a value for each task; {keys}.")
    return {name: value[name] for name in names}


def check_constructor(value: Any, argument: str, kind: type, example: str) -> None:
    """Refuse what has been built already, or is no constructor at all.

    Args:
        value: of the argument.
        argument: its name.
        kind: of what it makes.
        example: of a value that would do.

    Raises:
        TypeError: tells what it is instead.
    """
    wanted = f"{argument} must be a constructor such as {example}"
    if isinstance(value, kind):
        raise TypeError(f"{wanted}, got a {type(value).__name__} that is built already.")
    if isinstance(value, str):
        raise TypeError(f"{wanted}, got the text {value!r}; names are for the command line.")
    if not callable(value):
        raise TypeError(f"{wanted}, got {shown(value)}.")


def check_optimizer(value: Any) -> None:
    """Refuse what makes no meta-optimizer, as far as its class tells.

    Raises:
        TypeError: tells what it is instead.
    """
    example = "functools.partial(UNFOptimizer, channels=32)"
    check_constructor(value, "optimizer", MetaOptimizer, example)
    if isinstance(value, torch.optim.Optimizer):
        raise TypeError(f"optimizer must make a MetaOptimizer, got {shown(value)} of torch.")

    target = value.func if isinstance(value, partial) else value
    if isinstance(target, type) and not issubclass(target, MetaOptimizer):
        raise TypeError(
            f"optimizer must make a MetaOptimizer, whose parameters are trained, got the class "
            f"{target.__name__}."
        )


def built(constructor: Callable[..., Any], argument: str, kind: type, **arguments: Any) -> Any:
    """Call a constructor; what it refuses is told with the name of the argument.

    Args:
        constructor: from the user.
        argument: its name.
        kind: of what it must make.
        **arguments: for it.

    Raises:
        TypeError: it takes other arguments, or makes something else.
        ValueError: it refuses its values.
    """
    try:
        signature = inspect.signature(constructor)
        signature.bind(**arguments)
    except (TypeError, ValueError) as error:
        name = shown(constructor.func if isinstance(constructor, partial) else constructor)
        raise TypeError(
            f"{argument} cannot be called with {', '.join(arguments)} alone: {name}: {error}; "
            "give the rest by functools.partial."
        ) from error

    try:
        value = constructor(**arguments)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error
    if not isinstance(value, kind):
        raise TypeError(f"{argument} must make a {kind.__name__}, got {shown(value)}.")
    return value


def shown(value: Any) -> str:
    """What a value is, for a message."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return getattr(value, "__name__", None) or f"a {type(value).__name__}"


def check_blocks(blocks: Any) -> None:
    """Check the settings of blocks of theta, as far as no theta is needed.

    Raises:
        TypeError: it is no mapping of mappings.
    """
    rule = "blocks must map each block to its settings, such as {'equivariant': {'lr': 1e-3}}"
    if not isinstance(blocks, Mapping):
        raise TypeError(f"{rule}, got {shown(blocks)}.")
    for name, settings in blocks.items():
        if not isinstance(settings, Mapping):
            raise TypeError(f"{rule}, got {shown(settings)} for {name!r}.")
