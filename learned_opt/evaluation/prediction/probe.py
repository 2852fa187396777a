"""Gradients of trained networks on one batch: how the loss of each looks from where it stands.

Legend: M networks.
"""

import torch
from torch.func import grad, vmap

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.core.tree import Tree
from tasks.base import TaskFamily

CHUNK = 64  # networks side by side


def probe_gradients(family: TaskFamily, params: Tree, seed: int) -> Tree:
    """Gradients of the loss on one batch of training data, the same for all networks.

    No held-out data are read, of which the success to predict is a figure.

    Args:
        family: what the networks were trained on, with one task.
        params: weights, leaves ``(M, *shape)``.
        seed: of the batch.

    Returns:
        Tree: leaves ``(M, *shape)``.
    """
    source = generator(seed, "probe")
    task = family.sample(source)
    batch = family.without_noise(family.batch(source, task))
    gradients_of_chunk = vmap(grad(family.loss), in_dims=(0, None, None))

    chunks = []
    for first in range(0, len(tree.leaves(params)[0]), CHUNK):
        chunk = {name: value[first : first + CHUNK] for name, value in params.items()}
        chunks.append(gradients_of_chunk(chunk, batch, task))
    return tree.tree_map(lambda *leaves: torch.cat(leaves), *chunks)
