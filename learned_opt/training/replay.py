"""An unroll that was not finite, run again from its recipe up to the first value that is not.

Legend: K inner steps; every tensor has a leading axis of one chain.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.inner.unroll import Chains, Unroll
from learned_opt.training.recipe import Recipe

ShowLoss = Callable[[int, float], None]  # is called with the number and the loss of an inner step


def replay(unroll: Unroll, recipe: Recipe, tensors: dict[str, Tensor], show: ShowLoss) -> str:
    """Run the unroll of a recipe up to the first value that is not finite.

    Args:
        unroll: the inner loop of the recipe's config.
        recipe: which unroll.
        tensors: what it starts from.
        show: is called with the number and the loss of every inner step.

    Returns:
        str: where which tensor was not finite; empty if all stayed finite.

    Raises:
        ValueError: the tensors do not fit the config.
    """
    theta, chains = _start(unroll, tensors)
    keys = [(recipe.root, recipe.task)]
    streams = [unroll.batches(keys, chains, recipe.unroll_length)]  # leaves (K, 1, ...)
    if recipe.split != "train":
        streams.append(unroll.batches(keys, chains, recipe.unroll_length, recipe.split))

    cause = _replay_forward(unroll, theta, chains, streams, show)
    if cause or not recipe.backpropagates:
        return cause
    return _replay_backward(unroll, theta, chains, streams)


def _start(unroll: Unroll, tensors: dict[str, Tensor]) -> tuple[Tree, Chains]:
    """The tensors of a recipe in the structure that the inner loop has."""
    theta: Tree = {}
    for name, parameter in unroll.optimizer.named_parameters():
        theta[name] = parameter[None]

    fresh = {"theta": theta, "chain": unroll.start([("replay",)])}
    rows = {name: leaf[None].to(unroll.device) for name, leaf in tensors.items()}
    if differing := tree.difference(list(tree.flatten(fresh)), list(rows)):
        raise ValueError(f"the recipe's tensors do not fit its config: {differing}.")

    start = tree.unflatten(rows, fresh)
    return start["theta"], start["chain"]


@torch.no_grad()
def _replay_forward(
    unroll: Unroll, theta: Tree, chains: Chains, streams: list[Tree], show: ShowLoss
) -> str:
    num_steps = len(tree.leaves(streams[0])[0])
    for k in range(num_steps):
        batches = _inner_step(streams[0], k)
        measured = _inner_step(streams[1], k) if len(streams) > 1 else None
        losses, after = unroll.run(theta, chains, batches, measured=measured)

        show(k, losses.item())
        if not losses.isfinite().all():
            return f"loss in inner step {k}"
        if _first_nonfinite(after["params"]):
            cause = _cause_of_params(unroll, chains, after, batches)
            return f"{cause} in inner step {k}"
        chains = after
    return ""


def _inner_step(stream: Tree, k: int) -> Tree:
    """The batches of inner step k alone, leaves ``(1, 1, ...)``."""
    return tree.tree_map(lambda leaf: leaf[k : k + 1], stream)


def _cause_of_params(unroll: Unroll, before: Chains, after: Chains, batches: Tree) -> str:
    """What made the params not finite: the gradient, the optimizer's state, or the update."""
    params = tree.tree_map(_first_row, before["params"])
    batch = tree.tree_map(lambda leaf: leaf[0, 0], batches)  # leaves are (1, 1, ...)
    task = tree.tree_map(_first_row, before["task"])
    causes = {
        "gradient": grad(unroll.family.loss)(params, batch, task),
        "opt_state": after["opt_state"],
        "params": after["params"],
    }
    return _first_nonfinite(causes)


def _replay_backward(unroll: Unroll, theta: Tree, chains: Chains, streams: list[Tree]) -> str:
    leaves = tree.tree_map(lambda leaf: leaf.clone().requires_grad_(), theta)
    measured = streams[1] if len(streams) > 1 else None
    losses, _ = unroll.run(leaves, chains, streams[0], True, measured)

    gradients = torch.autograd.grad(
        losses.sum(), tree.leaves(leaves), allow_unused=True, materialize_grads=True
    )
    name = _first_nonfinite(dict(zip(leaves, gradients, strict=True)))
    return f"gradient of the summed losses by theta's {name}" if name else ""


def _first_row(leaf: Tensor) -> Tensor:
    return leaf[0]


def _first_nonfinite(values: Tree) -> str:
    """The name of the first tensor with a value that is not finite; empty where there is none."""
    for name, leaf in tree.flatten(values).items():
        if not leaf.isfinite().all():
            return name
    return ""
