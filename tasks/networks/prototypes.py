"""Nearest prototype: flat, or down a tree that the order of the prototypes spells out.

Legend: B examples, L prototypes, I inputs, V arity of the tree, H its height.
"""

from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor


def route(inputs: Tensor, prototypes: Tensor, tree_arity: int | None) -> Tensor:
    """``nearest``, or where the tree has an arity ``descend``: ``(B, I), (L, I) -> (B,)``."""
    if tree_arity is None:
        return nearest(inputs, prototypes)
    return descend(inputs, tree_levels(prototypes, tree_arity), tree_arity)


def nearest(inputs: Tensor, prototypes: Tensor) -> Tensor:
    """Index of the nearest prototype, the lowest where several are, up to rounding: ``(B, I), (L, I) -> (B,)``."""
    return distances(inputs, prototypes).argmin(-1)


def distances(inputs: Tensor, prototypes: Tensor) -> Tensor:
    """Squared distances, each row less a number of its own: ``(B, L)``."""
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
    """
    if arity < 2:
        raise ValueError(f"arity must be at least 2, got {arity}.")
    height = 0
    while arity**height < num_prototypes:
        height += 1
    return height


def tree_levels(prototypes: Tensor, arity: int) -> list[Level]:
    """The nodes below the root, level by level.

    Leaf l is prototype l, and node i of a level has the children V i to V i + V - 1 of the next.
    """
    height = tree_height(len(prototypes), arity)
    missing = arity**height - len(prototypes)
    padded = torch.cat([prototypes, prototypes.new_zeros(missing, prototypes.shape[1])])
    present = torch.cat([torch.ones_like(prototypes[:, 0]), prototypes.new_zeros(missing)])
    levels = []
    for depth in range(1, height + 1):
        counts = present.unflatten(0, (arity**depth, -1)).sum(1)
        centres = padded.unflatten(0, (arity**depth, -1)).sum(1) / counts.clamp(min=1).unsqueeze(1)
        levels.append(Level(centres, torch.where(counts > 0, torch.zeros_like(counts), torch.inf)))
    return levels


def descend(inputs: Tensor, levels: list[Level], arity: int) -> Tensor:
    """From the root to the nearest child's centre at each level: ``(B, I) -> (B,)``.

    Compares V H centres instead of L. Equals ``nearest`` where cells of parents hold the cells of their children, as
    those of a grid do; elsewhere it is another partition of the space.
    """
    node = torch.zeros(inputs.shape[:1], dtype=torch.long, device=inputs.device)
    for level in levels:
        children = arity * node.unsqueeze(1) + torch.arange(arity, device=inputs.device)  # (B, V)
        squares = (inputs.unsqueeze(1) - level.centres[children]).square().sum(-1)
        closest = (squares + level.absent[children]).argmin(-1, keepdim=True)
        node = children.gather(1, closest).squeeze(1)
    return node


def tree_order(prototypes: Tensor, arity: int) -> Tensor:
    """An order of the prototypes in which neighbours in the tree are neighbours in space: ``(L,)`` indices.

    Cut into V parts along the coordinate that spreads the most, and again within each part.
    """

    def order(members: Tensor, height: int) -> Tensor:
        if height == 0:
            return members
        points = prototypes[members]
        axis = int((points.amax(0) - points.amin(0)).argmax())
        parts = members[points[:, axis].argsort(stable=True)].split(arity ** (height - 1))
        return torch.cat([order(part, height - 1) for part in parts])

    return order(
        torch.arange(len(prototypes), device=prototypes.device), tree_height(len(prototypes), arity)
    )


def kmeans(inputs: Tensor, num_prototypes: int, seed: int = 0) -> Tensor:
    """Centres of a k-means clustering: ``(B, I) -> (L, I)``.

    Raises:
        ValueError: there are fewer different examples than prototypes.
    """
    distinct = len(inputs.unique(dim=0))
    if distinct < num_prototypes:
        raise ValueError(
            f"num_experts must be at most the number of different examples, {distinct}, got {num_prototypes}."
        )
    found = KMeans(num_prototypes, random_state=seed).fit(inputs.detach().cpu().double().numpy())
    return torch.from_numpy(found.cluster_centers_).to(inputs)
