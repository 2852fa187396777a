"""What a meta-optimizer does to every tensor of an inner network, over inner time.

Legend: M chains, T inner steps (horizon).
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.rng import Key
from learned_opt.core.tree import Tree, tree_map
from learned_opt.evaluation.seeded_runs import SEGMENT
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.symmetry.spec import PermutationSpec

QUANTITIES = ("update_to_weight", "effective_lr", "cosine_sgd", "cosine_momentum", "cosine_adam")


class Row(NamedTuple):
    """One figure of one tensor at one inner step, a mean over chains.

    Args:
        inner_step: number of the update, from 0.
        tensor: name of the inner parameter.
        quantity: one of QUANTITIES.
        value: see ``quantities``.
    """

    inner_step: int
    tensor: str
    quantity: str
    value: float


class Observed(MetaOptimizer):
    """A meta-optimizer that works as before, and whose opt_state also holds what its last step saw and wrote.

    Under ``seen``: the gradients, the updates, and the updates that momentum SGD and Adam (of unit learning rate and
    their usual decays) would have made after the same gradients.

    Args:
        optimizer: the meta-optimizer.
    """

    def __init__(self, optimizer: MetaOptimizer) -> None:
        super().__init__(optimizer.spec)
        self.optimizer = optimizer
        self.momentum = make_sgdm(optimizer.spec, lr=1.0)
        self.adam = make_adam(optimizer.spec, lr=1.0)

    def init_state(self, params: Tree) -> Tree:
        """Fresh states of all optimizers; nothing seen yet."""
        own = self.optimizer.init_state(params)
        zeros = tree_map(torch.zeros_like, params)
        return {
            "step": own["step"],
            "own": own,
            "references": {
                "momentum": self.momentum.init_state(params),
                "adam": self.adam.init_state(params),
            },
            "seen": dict.fromkeys(("grads", "updates", "momentum", "adam"), zeros),
        }

    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        """One inner step of the optimizer, see ``MetaOptimizer.forward``."""
        updates, own = self.optimizer(grads, state["own"], params, loss)
        by_momentum, momentum = self.momentum(grads, state["references"]["momentum"], params, loss)
        by_adam, adam = self.adam(grads, state["references"]["adam"], params, loss)
        return updates, {
            "step": own["step"],
            "own": own,
            "references": {"momentum": momentum, "adam": adam},
            "seen": {"grads": grads, "updates": updates, "momentum": by_momentum, "adam": by_adam},
        }

    def rebind(self, spec: PermutationSpec) -> Self:
        """Wherever the optimizer itself can go."""
        return type(self)(self.optimizer.rebind(spec))


@torch.no_grad()
def observe(
    unroll: Unroll, keys: Sequence[tuple[Key, ...]], horizon: int, num_points: int
) -> list[Row]:
    """Train inner networks with theta as it is and measure the updates.

    Runs eagerly: a second compiled step would cost more than it saves, and the one of training stays as it is.

    Args:
        unroll: the inner loop of the meta-optimizer.
        keys: one for each chain.
        horizon: inner steps.
        num_points: how many of them are measured, evenly spread, the first and the last among them.
    """
    own = Unroll(unroll.family, Observed(unroll.optimizer), False, unroll.device, unroll.precision)
    theta = tree.expand(
        {n: p.detach().to(unroll.device) for n, p in own.optimizer.named_parameters()}, len(keys)
    )
    points = set(torch.linspace(0, horizon - 1, min(num_points, horizon)).round().int().tolist())
    chains, rows = own.start(keys), []
    for start in range(0, horizon, SEGMENT):
        steps = range(start, min(start + SEGMENT, horizon))
        batches = own.batches([(*key, start) for key in keys], chains, len(steps))
        for k, step in enumerate(steps):
            _, after = own.run(theta, chains, tree_map(lambda leaf, k=k: leaf[k : k + 1], batches))
            if step in points:
                rows += _rows(step, quantities(chains["params"], **after["opt_state"]["seen"]))
            chains = after
    return rows


def quantities(
    params: Tree, grads: Tree, updates: Tree, momentum: Tree, adam: Tree
) -> dict[str, dict[str, Tensor]]:
    """Compare the update of every tensor with its weights and with other updates; all leaves ``(M, *shape)``.

    Args:
        params: inner parameters before the update.
        grads: their gradients g.
        updates: what is added to them, u.
        momentum: the update of momentum SGD.
        adam: the update of Adam.

    Returns:
        dict[str, dict[str, Tensor]]: tensor -> quantity -> ``(M,)``; not finite where a norm that it divides by is 0.
        ``update_to_weight`` is ``|u| / |w|``; ``effective_lr`` is ``-<u, g> / |g|^2``, the learning rate of the SGD
        step that is closest to u; ``cosine_sgd``, ``cosine_momentum`` and ``cosine_adam`` are cosines of the angles
        between u and the updates of these optimizers.
    """
    found = {}
    for name, grad in tree_map(_flat, grads).items():
        weight, update, by_momentum, by_adam = (
            _flat(each[name]) for each in (params, updates, momentum, adam)
        )
        found[name] = {
            "update_to_weight": update.norm(dim=1) / weight.norm(dim=1),
            "effective_lr": -(update * grad).sum(1) / (grad * grad).sum(1),
            "cosine_sgd": _cosine(update, -grad),
            "cosine_momentum": _cosine(update, by_momentum),
            "cosine_adam": _cosine(update, by_adam),
        }
    return found


def _rows(step: int, found: dict[str, dict[str, Tensor]]) -> list[Row]:
    """Means over the chains where a quantity is finite; none where it is in no chain."""
    rows = []
    for tensor, figures in found.items():
        for quantity, values in figures.items():
            finite = values[values.isfinite()]
            if len(finite):
                rows.append(Row(step, tensor, quantity, finite.mean().item()))
    return rows


def _cosine(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(1) / (left.norm(dim=1) * right.norm(dim=1))


def _flat(leaf: Tensor) -> Tensor:
    return leaf.reshape(len(leaf), -1).double()
