"""The opt_state of a weight space, laid out by parameter as ``torch.optim`` keeps it.

A meta-optimizer's state is a tree. Some of its branches are dicts over parameters, all of them or
some; its other leaves belong to all at once. Laid out by parameter, every leaf has the path of its
keys for a name: ``{"momentum": ...}``. What belongs to one parameter lies with that one alone.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from learned_opt.core.tree import Tree, tree_map


def by_parameter(state: Tree, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Take a state apart; what belongs to all parameters is handed to each.

    Args:
        state: opt_state of a weight space.
        names: its parameters.

    Returns:
        dict[str, dict[str, Any]]: name of the parameter -> path in the state -> leaf, or subtree of
        that parameter.

    >>> by_parameter({"step": 1, "momentum": {"a": 2, "b": 3}, "second": {"b": 4}}, ["a", "b"])
    {'a': {'step': 1, 'momentum': 2}, 'b': {'step': 1, 'momentum': 3, 'second': 4}}
    """
    parts: dict[str, dict[str, Any]] = {name: {} for name in names}

    def walk(branch: Any, path: str) -> None:
        if _is_over_parameters(branch, path, parts):
            for name, leaf in branch.items():
                parts[name][path] = leaf
        elif isinstance(branch, Mapping):
            for key, below in branch.items():
                walk(below, _join(path, key))
        else:
            for part in parts.values():
                part[path] = branch

    walk(state, "")
    return parts


def together(parts: Mapping[str, Mapping[str, Any]], like: Tree) -> Tree:
    """The state that has these parts; the inverse of ``by_parameter``.

    Args:
        parts: name of the parameter -> path -> leaf or subtree.
        like: a state of the same parameters, which gives the structure and the dtypes:
            ``load_state_dict`` makes all numbers those of the parameter.
    """

    def typed(leaf: Tensor, like: Tensor) -> Tensor:
        return leaf.to(like.dtype)

    def walk(branch: Any, path: str) -> Any:
        if _is_over_parameters(branch, path, parts):
            leaves = {}
            for name, like_leaf in branch.items():
                # version 0.2 handed a dict over some parameters to all of them, entry by entry
                former = _join(path, name)
                key = path if path in parts[name] else former
                leaves[name] = tree_map(typed, parts[name][key], like_leaf)
            return leaves
        if isinstance(branch, Mapping):
            return {key: walk(below, _join(path, key)) for key, below in branch.items()}

        any_part = next(iter(parts.values()))
        return typed(any_part[path], branch)

    return walk(like, "")


def _is_over_parameters(branch: Any, path: str, parts: Mapping[str, Any]) -> bool:
    """Whether a branch of a state, below its root, is a dict over parameters."""
    is_dict = isinstance(branch, Mapping) and bool(branch) and bool(path)
    return is_dict and branch.keys() <= parts.keys()


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key
