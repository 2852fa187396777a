"""Whether the exported optimizer does what meta-training does."""

from copy import deepcopy
from math import prod

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.deploy.optimizer import LearnedOptimizer
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec

AXIS = 3  # length of an axis of which nothing is known
ROUNDING = 1e-5  # vmap may sum in another order; relative to the largest update of the tensor


def check_parity(meta_optimizer: MetaOptimizer, num_steps: int = 3) -> None:
    """Compare ``LearnedOptimizer`` with the inner step of meta-training on random gradients.

    Bit for bit with the meta-optimizer itself, and to rounding with one chain under vmap, as the inner loop runs it.

    Args:
        meta_optimizer: with its theta, on any spec.
        num_steps: steps to compare.

    Raises:
        ValueError: they differ; names the step and the parameter.
    """
    meta_optimizer, source = deepcopy(meta_optimizer).cpu(), torch.Generator().manual_seed(0)
    theta = {name: p.detach() for name, p in meta_optimizer.named_parameters()}
    dtype = next(iter(theta.values())).dtype
    shapes = example_shapes(meta_optimizer.spec)

    def draw() -> Tree:
        return {
            name: torch.randn(shape, generator=source, dtype=dtype)
            for name, shape in shapes.items()
        }

    params = draw()
    ours = {name: nn.Parameter(value.clone()) for name, value in params.items()}
    deployed, state = (
        LearnedOptimizer(ours.items(), meta_optimizer),
        meta_optimizer.init_state(params),
    )
    for step in range(1, num_steps + 1):
        grads, loss = draw(), torch.rand((), generator=source, dtype=dtype)
        with torch.no_grad():
            chained = _one_chain(meta_optimizer, theta, grads, state, params, loss)
            updates, state = meta_optimizer(grads, state, params, loss)
        params = tree.add(params, updates)
        for name, param in ours.items():
            param.grad = grads[name]
        deployed.step(loss=loss)
        for name, param in ours.items():
            gap = (params[name] - param).abs().max().item()
            if not torch.equal(params[name], param):
                raise ValueError(
                    f"the exported optimizer differs at step {step} in {name!r}, by {gap:.2g}."
                )
            gap, size = (
                (chained[name] - updates[name]).abs().max().item(),
                updates[name].abs().max().item(),
            )
            if not gap <= ROUNDING * size:
                raise ValueError(
                    f"the inner loop differs at step {step} in {name!r}, by {gap:.2g} of {size:.2g}."
                )


def verdict(meta_optimizer: MetaOptimizer) -> str:
    """What ``check_parity`` finds, as a sentence."""
    try:
        check_parity(meta_optimizer)
    except ValueError as error:
        return f"WARNING: {error}"
    return "checked: learned_opt.LearnedOptimizer makes the steps of meta-training, bit for bit"


def example_shapes(spec: PermutationSpec) -> dict[str, tuple[int, ...]]:
    """Small shapes of parameters that fit a spec."""
    sizes = dict(spec.fixed_sizes)
    for parameter, factors in spec.views.items():
        sizes |= dict(
            zip(spec.axes[parameter], [size for axis in factors for size in axis], strict=True)
        )
    shapes = {}
    for parameter, names in spec.axes.items():
        lengths = iter([sizes.get(name, AXIS) for name in names])
        merged = [len(axis) for axis in spec.views.get(parameter, ())] or [1] * len(names)
        shapes[parameter] = tuple(prod(next(lengths) for _ in range(count)) for count in merged)
    return shapes


def _one_chain(
    meta_optimizer: MetaOptimizer, theta: Tree, grads: Tree, state: Tree, params: Tree, loss: Tensor
) -> Tree:
    """Updates of one chain under vmap."""

    def step(theta: Tree, *arguments: Tree | Tensor) -> Tree:
        return functional_call(meta_optimizer, theta, arguments)[0]

    chains = [tree.expand(part, 1) for part in (theta, grads, state, params)]
    return tree.tree_map(lambda leaf: leaf[0], vmap(step)(*chains, loss.unsqueeze(0)))
