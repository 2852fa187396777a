"""Nearest prototype: flat, or down a tree that the order of the prototypes spells out.

Legend: B examples, L prototypes, I inputs, V arity of the tree, H its height, h a level.
"""

from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor


def route(inputs: Tensor, prototypes: Tensor, tree_arity: int | None) -> Tensor:
    """Choose a prototype for each input.

    Args:
        inputs: ``(B, I)``.
        prototypes: ``(L, I)``; for a tree in the order of ``tree_order``.
        tree_arity: V for ``descend``, None for ``nearest``.

    Returns:
        Tensor: indices ``(B,)``.
    """
    if tree_arity is None:
        return nearest(inputs, prototypes)
    return descend(inputs, tree_levels(prototypes, tree_arity), tree_arity)


def nearest(inputs: Tensor, prototypes: Tensor) -> Tensor:
    """Index of the nearest prototype, ``(B, I), (L, I) -> (B,)``.

    The lowest index where several are equally near, up to rounding.

    >>> nearest(torch.tensor([[0.1], [0.9]]), torch.tensor([[0.0], [1.0]])).tolist()
    [0, 1]
    """
    return distances(inputs, prototypes).argmin(-1)


def distances(inputs: Tensor, prototypes: Tensor) -> Tensor:
    """Squared distances, each row less a number of its own: ``(B, I), (L, I) -> (B, L)``."""
    middle = prototypes.detach().mean(0)  # the smaller the numbers, the less is lost to rounding
    centred = prototypes - middle
    return centred.square().sum(-1) - 2 * (inputs - middle) @ centred.mT


class Level(NamedTuple):
    """Nodes of one level of the tree.

    Args:
        centres: ``(V^h, I)`` mean of the prototypes below each node, 0 where there are none.
        absent: ``(V^h,)`` infinite where there are none, else 0.
    """

    centres: Tensor
    absent: Tensor


def tree_height(num_prototypes: int, arity: int) -> int:
    """Levels below the root: the least H with V^H >= L.

    Raises:
        ValueError: the arity is below 2.

    >>> tree_height(9, arity=2)
    4
    """
    if arity < 2:
        raise ValueError(f"arity must be at least 2, got {arity}.")

    height = 0
    while arity**height < num_prototypes:
        height += 1
    return height


def tree_levels(prototypes: Tensor, arity: int) -> list[Level]:
    """The nodes below the root, level by level, of prototypes ``(L, I)``.

    Leaf l is prototype l, and node i of a level has the children V i to V i + V - 1 of the next.
    """
    height = tree_height(len(prototypes), arity)
    missing = arity**height - len(prototypes)
    padded = torch.cat([prototypes, prototypes.new_zeros(missing, prototypes.shape[1])])  # (V^H, I)
    present = torch.cat([torch.ones_like(prototypes[:, 0]), prototypes.new_zeros(missing)])  # (V^H)

    levels = []
    for depth in range(1, height + 1):
        num_nodes = arity**depth
        counts = present.unflatten(0, (num_nodes, -1)).sum(1)
        sums = padded.unflatten(0, (num_nodes, -1)).sum(1)  # (V^h, I)
        centres = sums / counts.clamp(min=1).unsqueeze(1)

        absent = torch.where(counts > 0, torch.zeros_like(counts), torch.inf)
        levels.append(Level(centres, absent))
    return levels


def descend(inputs: Tensor, levels: list[Level], arity: int) -> Tensor:
    """Walk from the root to the nearest child's centre at each level: ``(B, I) -> (B,)``.

    Compares V H centres instead of L. Equals ``nearest`` where cells of parents hold the cells of
    their children, as those of a grid do; elsewhere it is another partition of the space.
    """
    node = torch.zeros(inputs.shape[:1], dtype=torch.long, device=inputs.device)
    for level in levels:
        children = arity * node.unsqueeze(1) + torch.arange(arity, device=inputs.device)  # (B, V)
        squares = (inputs.unsqueeze(1) - level.centres[children]).square().sum(-1)  # (B, V)
        closest = (squares + level.absent[children]).argmin(-1, keepdim=True)
        node = children.gather(1, closest).squeeze(1)
    return node


def tree_order(prototypes: Tensor, arity: int) -> Tensor:
    """An order of prototypes in which neighbours in the tree are neighbours in space.

    Cut into V parts along the coordinate that spreads the most, and again within each part.

    Args:
        prototypes: ``(L, I)``.
        arity: V.

    Returns:
        Tensor: ``(L,)`` indices.
    """
    height = tree_height(len(prototypes), arity)
    everyone = torch.arange(len(prototypes), device=prototypes.device)
    return _order_part(everyone, prototypes, arity, height)


def _order_part(members: Tensor, prototypes: Tensor, arity: int, height: int) -> Tensor:
    """The indices of some of the prototypes in the order of a tree of a height."""
    if height == 0:
        return members

    points = prototypes[members]
    spread = points.amax(0) - points.amin(0)  # (I,)
    axis = int(spread.argmax())
    along_axis = points[:, axis].argsort(stable=True)
    parts = members[along_axis].split(arity ** (height - 1))
    return torch.cat([_order_part(part, prototypes, arity, height - 1) for part in parts])


def kmeans(inputs: Tensor, num_prototypes: int, seed: int = 0) -> Tensor:
    """Centres of a k-means clustering: ``(B, I) -> (L, I)``.

    Raises:
        ValueError: there are fewer different examples than prototypes.
    """
    distinct = len(inputs.unique(dim=0))
    if distinct < num_prototypes:
        raise ValueError(
            "num_experts must be at most the number of different examples, "
            f"{distinct}, got {num_prototypes}."
        )

    points = inputs.detach().cpu().double().numpy()
    clustering = KMeans(num_prototypes, random_state=seed).fit(points)
    return torch.from_numpy(clustering.cluster_centers_).to(inputs)
