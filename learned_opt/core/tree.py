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
    """Apply ``function`` to the leaves of one or more trees of the same structure."""
    if isinstance(tree, Mapping):
        return {key: tree_map(function, tree[key], *(other[key] for other in rest)) for key in tree}
    return function(tree, *rest)


def leaves(tree: Any) -> list[Tensor]:
    """All leaves, in key order of the dicts."""
    if isinstance(tree, Mapping):
        return [leaf for branch in tree.values() for leaf in leaves(branch)]
    return [tree]


def add(left: Tree, right: Tree) -> Tree:
    """``left + right``, leaf by leaf."""
    return tree_map(torch.add, left, right)


def stack(trees: Sequence[Tree]) -> Tree:
    """Stack equal trees along a new first axis."""
    return tree_map(lambda *tensors: torch.stack(tensors), trees[0], *trees[1:])


def expand(tree: Tree, size: int) -> Tree:
    """A view with a new first axis of length ``size``; no memory is copied."""
    return tree_map(lambda leaf: leaf.expand(size, *leaf.shape), tree)


def contiguous(tree: Tree) -> Tree:
    """Copy every leaf that is a view with gaps or repeats."""
    return tree_map(torch.Tensor.contiguous, tree)


def to(tree: Tree, device: torch.device | str) -> Tree:
    """Move every leaf to ``device``."""
    return tree_map(lambda leaf: leaf.to(device), tree)


def flatten(tree: Tree, prefix: str = "") -> dict[str, Tensor]:
    """Leaves by the path of their keys, joined by slashes."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    parts = [flatten(branch, f"{prefix}/{key}" if prefix else key) for key, branch in tree.items()]
    return {name: leaf for part in parts for name, leaf in part.items()}


def unflatten(leaves: Mapping[str, Tensor], like: Tree, prefix: str = "") -> Tree:
    """The tree of ``like``'s structure that has these leaves; the inverse of ``flatten``."""
    if not isinstance(like, Mapping):
        return leaves[prefix]
    return {
        key: unflatten(leaves, branch, f"{prefix}/{key}" if prefix else key)
        for key, branch in like.items()
    }


def num_elements(tree: Tree) -> int:
    """Total number of scalars in the tree."""
    return sum(leaf.numel() for leaf in leaves(tree))


def global_norm(tree: Tree) -> Tensor:
    """Euclidean norm of all leaves taken as one vector."""
    return torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(leaf) for leaf in leaves(tree)])
    )


def difference(expected: Sequence[str], actual: Sequence[str]) -> str:
    """Name the keys in which two key sets differ; the empty string when they do not.

    >>> difference(["a", "b"], ["b", "c"])
    'missing: a; unexpected: c'
    """
    missing = [key for key in expected if key not in set(actual)]
    unexpected = [key for key in actual if key not in set(expected)]
    parts = [("missing", missing), ("unexpected", unexpected)]
    return "; ".join(f"{label}: {', '.join(keys)}" for label, keys in parts if keys)
