"""From the constructor of a meta-optimizer to the node in ``theta.json`` that builds it again.

The way back is ``construct.build``. Classes are named by their modules; arguments must be plain, or
constructors themselves.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from learned_opt.optimizers.base import MetaOptimizer

Node = dict[str, Any]


def node_of(constructor: Callable[..., Any], where: str = "optimizer") -> Node:
    """The node of a constructor.

    Args:
        constructor: a ``MetaOptimizer`` class, or ``functools.partial`` of one with arguments by
            name.
        where: what messages call it.

    Raises:
        ValueError: a part of it cannot be named or written down; tells which.

    >>> from learned_opt.optimizers.mlp import MLPOptimizer
    >>> node = node_of(partial(MLPOptimizer, hidden_size=8))
    >>> node["_target_"], node["hidden_size"]
    ('learned_opt.optimizers.mlp.MLPOptimizer', 8)
    """
    target = constructor.func if isinstance(constructor, partial) else constructor
    if not (isinstance(target, type) and issubclass(target, MetaOptimizer)):
        raise ValueError(
            f"{where} must be a MetaOptimizer class, or functools.partial of one, so that "
            f"theta.json can name it, got {_shown(constructor)}."
        )
    return _callable_node(constructor, where)


def _callable_node(constructor: Any, where: str) -> Node:
    """The node of a class, a function or a partial of one, to be called later."""
    by_name = {}
    if isinstance(constructor, partial):
        by_name = _by_name(constructor)
        constructor = constructor.func

    arguments = {name: _value(value, f"{where}.{name}") for name, value in by_name.items()}
    node = {"_target_": _full_name(constructor, where), "_partial_": True, **arguments}
    return node | _defaults(constructor, arguments)


def _defaults(constructor: Callable[..., Any], arguments: Node) -> Node:
    """The plain values that are left to the constructor: a later version may have others."""
    defaults = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        value = parameter.default
        is_plain = value is None or isinstance(value, bool | int | float | str)
        if name not in arguments and is_plain:
            defaults[name] = value
        elif name not in arguments and value == {}:
            defaults[name] = {}
    return defaults


def _by_name(constructor: partial[Any]) -> Node:
    """The arguments of a partial, those without a name under the one that they stand for."""
    signature = inspect.signature(constructor.func)
    bound = signature.bind_partial(*constructor.args, **constructor.keywords)
    return {**bound.arguments}


def _value(value: Any, where: str) -> Any:
    """An argument as plain data."""
    if value is None or isinstance(value, bool | int | float | str):
        return described(value)
    if isinstance(value, list | tuple):
        return [_value(part, f"{where}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): _value(part, f"{where}.{key}") for key, part in value.items()}

    if isinstance(value, partial | type) or hasattr(value, "__qualname__"):
        return _callable_node(value, where)
    if is_dataclass(value):
        arguments = {}
        for field in fields(value):
            if field.init:
                arguments[field.name] = _value(getattr(value, field.name), f"{where}.{field.name}")
        return {"_target_": _full_name(type(value), where), **arguments}

    raise ValueError(
        f"{where} must be a number, a text, a list or a constructor, so that theta.json can hold "
        f"it, got {_shown(value)}."
    )


def described(value: Any) -> Any:
    """Any object as plain data, for comparisons; what cannot be written down goes by its name.

    >>> described(partial(max, 2, key=None))
    {'call': 'builtins.max', 'arguments': [2], 'key': None}
    """
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)  # numbers of numpy too
    if isinstance(value, list | tuple | set | frozenset):
        return [described(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): described(part) for key, part in value.items()}

    if isinstance(value, partial):
        arguments = {"arguments": described(value.args)} if value.args else {}
        return {"call": described(value.func), **arguments, **described(value.keywords)}
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"

    attributes = {}
    for name, part in getattr(value, "__dict__", {}).items():
        if part is None or isinstance(part, bool | int | float | str):
            attributes[name] = described(part)
    return {"class": described(type(value)), **attributes}


def _full_name(target: Any, where: str) -> str:
    """Where a class or a function is found, e.g. ``package.module.Class``."""
    name = getattr(target, "__qualname__", "<")
    if "<" in name or "." in name:  # made inside of a function, or of a class
        raise ValueError(
            f"{where} must be a class or function at the top of a module, so that theta.json can "
            f"name it, got {_shown(target)}."
        )
    return f"{target.__module__}.{name}"


def _shown(value: Any) -> str:
    return getattr(value, "__qualname__", None) or f"a {type(value).__name__}"
