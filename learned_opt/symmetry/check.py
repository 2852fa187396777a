"""Numerical proof of a permutation spec: does the function stay, and is the group as large as it can be?"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from learned_opt.core.tree import Tree
from learned_opt.symmetry.infer import infer_permutation_spec
from learned_opt.symmetry.spec import GroupElement, PermutationSpec

TOLERANCE = 1e-9  # relative to the largest output, in float64


class SpecReport(NamedTuple):
    """What a check found.

    Args:
        passed: every random group element left the outputs unchanged.
        maximal: no single axis could be split off its name, no name falls into parts that a trace tells apart, and no
            fixed name could be freed.
        error: largest relative change of an output under the group.
        findings: one sentence each.
    """

    passed: bool
    maximal: bool
    error: float
    findings: list[str]


def check_function(
    function: Callable[[Tree], list[Tensor]],
    params: Tree,
    spec: PermutationSpec,
    generator: torch.Generator,
    num_draws: int = 3,
    tolerance: float = TOLERANCE,
    candidates: PermutationSpec | None = None,
) -> SpecReport:
    """``check_spec`` for any function of parameters.

    Args:
        function: parameters -> tensors that no symmetry may change.
        params: random parameters.
        spec: spec of ``params``.
        generator: CPU generator.
        num_draws: group elements tried for each name.
        tolerance: largest change relative to the largest output that counts as none.
        candidates: a spec whose names are tried as parts of the names of ``spec``.

    Raises:
        ValueError: the spec does not fit the parameters.
    """
    sizes, outputs = spec.sizes(params), function(params)

    def change(permuted: Tree) -> float:
        moved = function(permuted)
        scale = max(float(out.abs().max()) for out in outputs) or 1.0
        return max(float((a - b).abs().max()) for a, b in zip(moved, outputs, strict=True)) / scale

    def moves(name: str) -> list[GroupElement]:
        still = {other: torch.arange(size) for other, size in sizes.items()}
        return [still | {name: _derangement(sizes[name], generator)} for _ in range(num_draws)]

    findings: list[str] = []
    smaller: list[str] = []
    worst = max((change(spec.permute(params, generator)) for _ in range(num_draws)), default=0.0)
    for name in (n for n in spec.names if sizes[n] > 1):
        error = max(change(spec.apply(params, element)) for element in moves(name))
        places = _places(spec, name)
        if name in spec.fixed:
            if error <= tolerance:
                smaller.append(
                    f"{name} is fixed, but permuting {_say(places)} together leaves the outputs unchanged"
                )
            continue
        worst = max(worst, error)
        if error > tolerance:
            findings.append(
                f"{name} is no symmetry: permuting {_say(places)} changes the outputs by {error:.1e}"
            )
            continue
        for parameter, axis in places if len(places) > 1 else []:
            alone = [
                _apply_one(spec, params, parameter, axis, element[name]) for element in moves(name)
            ]
            if max(map(change, alone)) <= tolerance:
                smaller.append(f"axis {axis} of {parameter} need not move with the rest of {name}")
    if candidates is not None:
        still = {name: torch.arange(size) for name, size in candidates.sizes(params).items()}
        for name in _parts(spec, candidates):
            element = still | {name: _derangement(len(still[name]), generator)}
            if change(candidates.apply(params, element)) <= tolerance:
                smaller.append(
                    f"{_say(_places(candidates, name))} can be permuted apart from what shares their name"
                )
    return SpecReport(not findings and worst <= tolerance, not smaller, worst, findings + smaller)


def check_spec(
    module: nn.Module,
    spec: PermutationSpec,
    *example_inputs: Tensor,
    generator: torch.Generator | None = None,
    num_draws: int = 3,
    candidates: PermutationSpec | None = None,
) -> SpecReport:
    """Permute random weights by random group elements and compare the module's outputs, in float64.

    Args:
        module: evaluated with random parameters; its own are not touched.
        spec: spec of ``module.named_parameters()``.
        example_inputs: tensors that ``module(*example_inputs)`` accepts.
        generator: CPU generator; seed 0 by default.
        num_draws: group elements tried for each name.
        candidates: a spec whose names are tried as parts of the names of ``spec``; by default the inferred one, for
            which the module must be traceable.

    Returns:
        SpecReport: ``passed`` is the proof; ``findings`` name the parameter and axis of everything that is wrong, and
        what a larger group could still permute.

    Raises:
        ValueError: the spec does not fit the parameters.
    """
    source = generator or torch.Generator().manual_seed(0)
    function, params = _random_function(module, example_inputs, source)
    candidates = candidates or infer_permutation_spec(module, *example_inputs)
    return check_function(function, params, spec, source, num_draws, candidates=candidates)


def _random_function(
    module: nn.Module, inputs: tuple[Tensor, ...], source: torch.Generator
) -> tuple[Callable[[Tree], list[Tensor]], Tree]:
    """The module in float64 as a function of its parameters, and random parameters for it."""

    def double(tensor: Tensor) -> Tensor:
        return tensor.detach().double() if tensor.is_floating_point() else tensor

    params = {
        name: torch.randn(p.shape, generator=source, dtype=torch.float64)
        / max(1, p.shape[-1] if p.ndim else 1) ** 0.5
        for name, p in module.named_parameters()
    }
    buffers = {name: double(buffer) for name, buffer in module.named_buffers()}
    exact = tuple(map(double, inputs))

    @torch.no_grad()
    def function(values: Tree) -> list[Tensor]:
        was_training = module.training
        module.eval()
        try:
            outputs = functional_call(module, {**values, **buffers}, exact)
        finally:
            module.train(was_training)
        return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]

    return function, params


def _derangement(size: int, source: torch.Generator) -> Tensor:
    """A random permutation that is not the identity."""
    order = torch.randperm(size, generator=source)
    return order if (order != torch.arange(size)).any() else order.roll(1)


def _places(spec: PermutationSpec, name: str) -> list[tuple[str, int]]:
    return [
        (p, i) for p, names in spec.axes.items() for i, other in enumerate(names) if other == name
    ]


def _parts(spec: PermutationSpec, candidates: PermutationSpec) -> list[str]:
    """Free names of the candidates whose axes are some, not all, of the axes of one name of the spec."""
    own = [set(_places(spec, name)) for name in spec.names]

    def comparable(name: str) -> bool:
        return all(
            spec.views.get(p) == candidates.views.get(p) for p, _ in _places(candidates, name)
        )

    free = [name for name in candidates.names if name not in candidates.fixed and comparable(name)]
    return [name for name in free if any(set(_places(candidates, name)) < places for places in own)]


def _say(places: list[tuple[str, int]]) -> str:
    return ", ".join(f"axis {axis} of {parameter}" for parameter, axis in places)


def _apply_one(
    spec: PermutationSpec, params: Tree, parameter: str, axis: int, order: Tensor
) -> Tree:
    """Permute one axis of one parameter alone."""
    viewed = spec.view(params)
    return spec.unview({**viewed, parameter: viewed[parameter].index_select(axis, order)})
