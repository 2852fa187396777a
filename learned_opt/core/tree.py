"""Algebra on trees: nested dicts whose leaves are tensors.

Parameters, gradients, updates, theta and optimizer state are all trees, so these few functions
are the only tree code of the project.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Tree = dict[str, Any]


def tree_map(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply a function to the leaves of one or more trees of the same structure.

    >>> tree_map(lambda a, b: a + b, {"w": {"x": 1}}, {"w": {"x": 2}})
    {'w': {'x': 3}}
    """
    if not isinstance(tree, Mapping):
        return function(tree, *rest)

    mapped = {}
    for key, branch in tree.items():
        others = [other[key] for other in rest]
        mapped[key] = tree_map(function, branch, *others)
    return mapped


def leaves(tree: Any) -> list[Tensor]:
    """All leaves, in key order of the dicts.

    >>> leaves({"w": {"x": 1, "y": 2}, "b": 3})
    [1, 2, 3]
    """
    if not isinstance(tree, Mapping):
        return [tree]

    collected: list[Tensor] = []
    for branch in tree.values():
        collected.extend(leaves(branch))
    return collected


def add(left: Tree, right: Tree) -> Tree:
    """The sum of two trees of the same structure, leaf by leaf."""
    return tree_map(torch.add, left, right)


def stack(trees: Sequence[Tree]) -> Tree:
    """Stack trees of the same structure and shapes along a new first axis.

    >>> stack([{"w": torch.zeros(3)}, {"w": torch.ones(3)}])["w"].shape
    torch.Size([2, 3])
    """
    return tree_map(lambda *tensors: torch.stack(tensors), trees[0], *trees[1:])


def expand(tree: Tree, size: int) -> Tree:
    """A view with a new first axis of length ``size``; no memory is copied.

    >>> expand({"w": torch.zeros(3)}, 2)["w"].shape
    torch.Size([2, 3])
    """
    return tree_map(lambda leaf: leaf.expand(size, *leaf.shape), tree)


def contiguous(tree: Tree) -> Tree:
    """Copy every leaf that is a view with gaps or repeats."""
    return tree_map(torch.Tensor.contiguous, tree)


def to(tree: Tree, device: torch.device | str) -> Tree:
    """Move every leaf to a device; leaves that are there already are not copied."""
    return tree_map(lambda leaf: leaf.to(device), tree)


def flatten(tree: Tree, prefix: str = "") -> dict[str, Tensor]:
    """Leaves by the path of their keys, joined by slashes.

    >>> flatten({"w": {"x": 1, "y": 2}, "b": 3})
    {'w/x': 1, 'w/y': 2, 'b': 3}
    """
    if not isinstance(tree, Mapping):
        return {prefix: tree}

    flat: dict[str, Tensor] = {}
    for key, branch in tree.items():
        flat |= flatten(branch, _path(prefix, key))
    return flat


def unflatten(leaves: Mapping[str, Tensor], like: Tree, prefix: str = "") -> Tree:
    """The tree of ``like``'s structure that has these leaves; the inverse of ``flatten``.

    >>> unflatten({"w/x": 1, "b": 3}, {"w": {"x": 0}, "b": 0})
    {'w': {'x': 1}, 'b': 3}
    """
    if not isinstance(like, Mapping):
        return leaves[prefix]
    return {key: unflatten(leaves, branch, _path(prefix, key)) for key, branch in like.items()}


def _path(prefix: str, key: str) -> str:
    return f"{prefix}/{key}" if prefix else key


def num_elements(tree: Tree) -> int:
    """Total number of scalars in the tree.

    >>> num_elements({"w": torch.zeros(2, 3), "b": torch.zeros(2)})
    8
    """
    return sum(leaf.numel() for leaf in leaves(tree))


def global_norm(tree: Tree) -> Tensor:
    """Euclidean norm of all leaves taken as one vector.

    >>> global_norm({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    tensor(5.)
    """
    # no copy of all leaves side by side is made
    norms = [torch.linalg.vector_norm(leaf) for leaf in leaves(tree)]
    return torch.linalg.vector_norm(torch.stack(norms))


def difference(expected: Sequence[str], actual: Sequence[str]) -> str:
    """Name the keys in which two key sets differ; the empty string when they do not.

    >>> difference(["a", "b"], ["b", "c"])
    'missing: a; unexpected: c'
    """
    known = set(expected)
    present = set(actual)
    missing = [key for key in expected if key not in present]
    unexpected = [key for key in actual if key not in known]

    parts = []
    if missing:
        parts.append(f"missing: {', '.join(missing)}")
    if unexpected:
        parts.append(f"unexpected: {', '.join(unexpected)}")
    return "; ".join(parts)
