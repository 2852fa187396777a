"""What a meta-optimizer does to every tensor of an inner network, over inner time.

Legend: M chains, T inner steps (horizon).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core import tree
from learned_opt.core.rng import Key
from learned_opt.core.tree import Tree, tree_map
from learned_opt.evaluation.seeded_runs import SEGMENT
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.symmetry.spec import PermutationSpec

QUANTITIES = ("update_to_weight", "effective_lr", "cosine_sgd", "cosine_momentum", "cosine_adam")
Quantities = dict[str, Tensor]  # quantity -> (M,)


class Row(NamedTuple):
    """One figure of one tensor at one inner step, a mean over chains.

    Args:
        inner_step: number of the update, from 0.
        tensor: name of the inner parameter.
        quantity: one of QUANTITIES.
        value: as ``quantities`` defines it.
    """

    inner_step: int
    tensor: str
    quantity: str
    value: float


class Observed(MetaOptimizer):
    """A meta-optimizer whose opt_state also holds what its last step saw and wrote.

    It works as before. Under ``seen``: the gradients, the updates, and the updates that momentum
    SGD and Adam (of unit learning rate and their usual decays) would have made after the same
    gradients.

    Args:
        optimizer: the meta-optimizer.
    """

    def __init__(self, optimizer: MetaOptimizer) -> None:
        super().__init__(optimizer.spec)
        self.optimizer = optimizer
        self.factor_needs = optimizer.factor_needs
        self.momentum = make_sgdm(optimizer.spec, lr=1.0)
        self.adam = make_adam(optimizer.spec, lr=1.0)

    @override
    def init_state(self, params: Tree) -> Tree:
        observed = self.optimizer.init_state(params)
        zeros = tree_map(torch.zeros_like, params)
        references = {
            "momentum": self.momentum.init_state(params),
            "adam": self.adam.init_state(params),
        }

        return {
            "step": observed["step"],
            "observed": observed,
            "references": references,
            "seen": dict.fromkeys(("grads", "updates", "momentum", "adam"), zeros),
        }

    @override
    def forward(
        self, grads: Tree, state: Tree, params: Tree, loss: Tensor, *factors: Tree
    ) -> tuple[Tree, Tree]:
        before = state["references"]
        updates, observed = self.optimizer(grads, state["observed"], params, loss, *factors)
        by_momentum, momentum = self.momentum(grads, before["momentum"], params, loss)
        by_adam, adam = self.adam(grads, before["adam"], params, loss)

        return updates, {
            "step": observed["step"],
            "observed": observed,
            "references": {"momentum": momentum, "adam": adam},
            "seen": {"grads": grads, "updates": updates, "momentum": by_momentum, "adam": by_adam},
        }

    @override
    def rebind(self, spec: PermutationSpec) -> Self:
        return type(self)(self.optimizer.rebind(spec))


@torch.no_grad()
def observe(
    unroll: Unroll, keys: Sequence[tuple[Key, ...]], horizon: int, num_points: int
) -> list[Row]:
    """Train inner networks with theta as it is and measure the updates.

    Runs eagerly: a second compiled step would cost more than it saves, and the one of training
    stays as it is.

    Args:
        unroll: the inner loop of the meta-optimizer.
        keys: one for each chain.
        horizon: inner steps T.
        num_points: how many of them are measured, evenly spread, the first and the last among
            them.
    """
    optimizer = Observed(unroll.optimizer)
    observed = Unroll(unroll.family, optimizer, False, unroll.device, unroll.precision)
    values = {name: p.detach().to(unroll.device) for name, p in optimizer.named_parameters()}
    theta = tree.expand(values, len(keys))
    points = torch.linspace(0, horizon - 1, min(num_points, horizon)).round().int().tolist()

    chains = observed.start(keys)
    rows = []
    for start in range(0, horizon, SEGMENT):
        steps = range(start, min(start + SEGMENT, horizon))
        batches = observed.batches([(*key, start) for key in keys], chains, len(steps))
        for k, step in enumerate(steps):
            # step by step, as the state holds what the last step alone has seen
            batch = tree_map(lambda leaf, k=k: leaf[k : k + 1], batches)
            _, after = observed.run(theta, chains, batch)
            if step in points:
                seen = after["opt_state"]["seen"]
                rows += _rows(step, quantities(chains["params"], **seen))
            chains = after

    return rows


def quantities(
    params: Tree, grads: Tree, updates: Tree, momentum: Tree, adam: Tree
) -> dict[str, Quantities]:
    """Compare the update of every tensor with its weights and with other updates.

    All leaves are ``(M, *shape)``.

    Args:
        params: inner parameters before the update, w.
        grads: their gradients g.
        updates: what is added to them, u.
        momentum: the update of momentum SGD.
        adam: the update of Adam.

    Returns:
        dict[str, Quantities]: tensor -> quantity -> ``(M,)``; not finite where a norm that it
        divides by is 0. ``update_to_weight`` is ``|u| / |w|``; ``effective_lr`` is
        ``-<u, g> / |g|^2``, the learning rate of the SGD step that is closest to u;
        ``cosine_sgd``, ``cosine_momentum`` and ``cosine_adam`` are cosines of the angles between
        u and the updates of these optimizers.
    """
    by_tensor = {}
    for name in grads:
        grad = _flat(grads[name])  # (M, size)
        weight = _flat(params[name])
        update = _flat(updates[name])
        by_tensor[name] = {
            "update_to_weight": update.norm(dim=1) / weight.norm(dim=1),
            "effective_lr": -(update * grad).sum(1) / (grad * grad).sum(1),
            "cosine_sgd": _cosine(update, -grad),
            "cosine_momentum": _cosine(update, _flat(momentum[name])),
            "cosine_adam": _cosine(update, _flat(adam[name])),
        }

    return by_tensor


def _rows(step: int, by_tensor: Mapping[str, Quantities]) -> list[Row]:
    """Means over the chains where a quantity is finite; none where it is in no chain."""
    rows = []
    for tensor, figures in by_tensor.items():
        for quantity, values in figures.items():
            finite = values[values.isfinite()]
            if len(finite):
                rows.append(Row(step, tensor, quantity, finite.mean().item()))
    return rows


def _cosine(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(1) / (left.norm(dim=1) * right.norm(dim=1))


def _flat(leaf: Tensor) -> Tensor:
    return leaf.reshape(len(leaf), -1).double()  # (M, size)
