"""Whether the exported optimizer does what meta-training does."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from learned_opt.core import tree
from learned_opt.core.forward_only import forward_only
from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.optimizers.factors import Factors
from learned_opt.optimizers.routes import Route
from learned_opt.optimizers.sites import Entrywise, RowOrder
from learned_opt.symmetry.spec import PermutationSpec

AXIS = 3  # length of an axis of which nothing is known
ROWS = 4  # of the gradient sets
ROUNDING = 1e-5  # vmap may sum in another order; relative to the largest update of the tensor


def check_parity(
    meta_optimizer: MetaOptimizer,
    deploy: Callable[..., torch.optim.Optimizer],
    num_steps: int = 3,
) -> None:
    """Compare a deployed optimizer with the inner step of meta-training on random gradients.

    Bit for bit with the meta-optimizer itself, its sums of zeros left out and with the kernels of
    forward steps, and to rounding with one chain under vmap, as the inner loop runs it.

    Args:
        meta_optimizer: with its theta, on any spec.
        deploy: constructor of the deployed optimizer, ``(module, meta_optimizer)``:
            ``LearnedOptimizer``.
        num_steps: steps to compare.

    Raises:
        ValueError: they differ; names the step and the parameter.
    """
    meta_optimizer = deepcopy(meta_optimizer).cpu()
    theta = {name: p.detach() for name, p in meta_optimizer.named_parameters()}
    dtype = next(iter(theta.values())).dtype
    shapes = example_shapes(meta_optimizer.spec)
    source = torch.Generator().manual_seed(0)

    def draw() -> Tree:
        return {
            name: torch.randn(shape, generator=source, dtype=dtype)
            for name, shape in shapes.items()
        }

    params = draw()
    deployed_params = {name: nn.Parameter(value.clone()) for name, value in params.items()}
    deployed: Any = deploy(_module_of(deployed_params), meta_optimizer)
    simplified = meta_optimizer.simplified()
    state = simplified.init_state(params)
    whole_state = meta_optimizer.init_state(params)

    for step in range(1, num_steps + 1):
        grads = draw()
        loss = torch.rand((), generator=source, dtype=dtype)
        more: list[Tree] = []
        if meta_optimizer.needs_factors:
            more = [{name: _factors(grad, source) for name, grad in grads.items()}]
            grads = {name: factors.gradient() for name, factors in more[0].items()}
        with torch.no_grad():
            whole_inputs = (grads, whole_state, params, loss, *more)
            chained = _updates_of_one_chain(meta_optimizer, theta, whole_inputs)
            _, whole_state = meta_optimizer(*whole_inputs)
        with torch.no_grad(), forward_only():
            updates, state = simplified(grads, state, params, loss, *more)
        params = tree.add(params, updates)

        for name, param in deployed_params.items():
            if more:
                param.grad = None  # so that a new set begins
                deployed.hooks.sets.add(param, more[0][name], grads[name])
            param.grad = grads[name]
        deployed.step(loss=loss)

        for name, param in deployed_params.items():
            _check_equal(params[name], param, step, name)
            _check_close(updates[name], chained[name], step, name)


def verdict(meta_optimizer: MetaOptimizer, deploy: Callable[..., torch.optim.Optimizer]) -> str:
    """The outcome of ``check_parity`` as a sentence, for people."""
    try:
        check_parity(meta_optimizer, deploy)
    except ValueError as error:
        return f"WARNING: {error}"
    return "checked: learned_opt.LearnedOptimizer makes the steps of meta-training, to rounding"


def example_shapes(spec: PermutationSpec) -> dict[str, tuple[int, ...]]:
    """Small shapes of parameters that fit a spec.

    >>> example_shapes(PermutationSpec({"w": ("hidden", "pixel")}, {"pixel"}))
    {'w': (3, 3)}
    """
    sizes = dict(spec.fixed_sizes)  # layers may hold coefficients for these lengths alone
    for tensor, names in spec.axes.items():
        for axis, length in spec.layout.known_lengths(tensor).items():
            sizes[names[axis]] = length

    viewed = {}
    for tensor, names in spec.axes.items():
        viewed[tensor] = tuple(sizes.get(name, AXIS) for name in names)
    return spec.layout.shapes(viewed)


def _check_equal(expected: Tensor, actual: Tensor, step: int, name: str) -> None:
    if not torch.equal(expected, actual):
        gap = (expected - actual).abs().max().item()
        raise ValueError(
            f"the exported optimizer differs at step {step} in {name!r}, by {gap:.2g}."
        )


def _check_close(expected: Tensor, actual: Tensor, step: int, name: str) -> None:
    gap = (actual - expected).abs().max().item()
    size = expected.abs().max().item()
    if not gap <= ROUNDING * size:  # true of NaN, too
        raise ValueError(
            f"the inner loop differs at step {step} in {name!r}, by {gap:.2g} of {size:.2g}."
        )


def _updates_of_one_chain(
    meta_optimizer: MetaOptimizer, theta: Tree, inputs: Sequence[Any]
) -> Tree:
    """Updates of one chain under vmap, as the inner loop computes them.

    Args:
        meta_optimizer: the optimizer.
        theta: its parameters.
        inputs: gradients, state, params and loss; perhaps factors, which the chain closes over.
    """
    grads, state, params, loss, *factors = inputs

    def step(theta: Tree, *arguments: Tree | Tensor) -> Tree:
        return functional_call(meta_optimizer, theta, (*arguments, *factors))[0]

    chains = [tree.expand(part, 1) for part in (theta, grads, state, params)]
    updates = vmap(step)(*chains, loss.unsqueeze(0))
    return tree.tree_map(lambda leaf: leaf[0], updates)


def _module_of(params: Mapping[str, nn.Parameter]) -> nn.Module:
    """A module whose parameters have these names."""
    root = nn.Module()
    for name, param in params.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(last, param)
    return root


def _factors(like: Tensor, source: torch.Generator) -> Factors:
    """Random rows of a parameter."""
    shape = (ROWS, *like.shape)
    activations = torch.randn(shape, generator=source, dtype=like.dtype)
    gradients = torch.randn(shape, generator=source, dtype=like.dtype)
    order = RowOrder(ROWS, examples_first=True)
    route = Route.along(tuple(like.shape))
    site = Entrywise(route, gradients, ROWS, activations, order=order)
    return Factors((site,), float(ROWS))
