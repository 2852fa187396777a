"""Numerical proof of a permutation spec.

Does the function stay what it is, and is the group as large as it can be?
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from learned_opt.core.evaluation_mode import evaluation_mode
from learned_opt.core.tree import Tree
from learned_opt.symmetry.infer import infer_permutation_spec
from learned_opt.symmetry.precision import double, double_by_default, unchanged
from learned_opt.symmetry.spec import GroupElement, PermutationSpec

TOLERANCE = 1e-9  # relative to the largest output, in float64
SINGLE_TOLERANCE = 1e-4  # the same in float32


class SpecReport(NamedTuple):
    """The result of a check.

    Args:
        passed: every random group element left the outputs unchanged.
        maximal: no single axis could be split off its name, no name falls into parts that a trace
            tells apart, and no fixed name could be freed.
        error: largest relative change of an output under the group.
        findings: one sentence each.
    """

    passed: bool
    maximal: bool
    error: float
    findings: list[str]


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
        candidates: a spec whose names are tried as parts of the names of ``spec``; by default the
            inferred one, for which the module must be traceable.

    Returns:
        SpecReport: ``passed`` is the proof; ``findings`` name the parameter and axis of everything
        that is wrong, and what a larger group could still permute.

    Raises:
        ValueError: the spec does not fit the parameters.

    A forward that names float32 itself is run in the types of the module, to their precision.

    >>> mlp = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> axes = {"0.weight": ("hidden", "in"), "0.bias": ("hidden",)}
    >>> axes |= {"2.weight": ("out", "hidden"), "2.bias": ("out",)}
    >>> inputs = torch.tensor([[1.0, 2.0], [-1.0, 3.0], [0.5, -2.0]])
    >>> check_spec(mlp, PermutationSpec(axes, fixed={"in", "out"}), inputs).passed
    True
    >>> check_spec(mlp, PermutationSpec(axes, fixed={"in"}), inputs).passed
    False
    """
    source = generator or torch.Generator().manual_seed(0)
    candidates = candidates or infer_permutation_spec(module, *example_inputs)
    state = source.get_state()
    function, params = _random_function(module, example_inputs, source, double)
    tolerance = TOLERANCE
    try:
        function(params)
    except RuntimeError:
        # the same numbers in the module's own types; raises the module's own error, if that is it
        source.set_state(state)
        function, params = _random_function(module, example_inputs, source, unchanged)
        tolerance = SINGLE_TOLERANCE

    return check_function(
        function, params, spec, source, num_draws, tolerance, candidates=candidates
    )


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
    trial = _Trial(function, params, spec, generator, num_draws)
    wrong: list[str] = []  # names that are no symmetry
    too_small: list[str] = []  # what a larger group could permute as well

    worst = trial.change_under_group()
    for name in spec.names:
        if trial.sizes[name] <= 1:
            continue

        error = trial.change_under_name(name)
        axes = _listed(spec.occurrences(name))
        if name in spec.fixed:
            if error <= tolerance:
                too_small.append(
                    f"{name} is fixed, but permuting {axes} together leaves the outputs unchanged"
                )
            continue

        worst = max(worst, error)
        if error <= tolerance:
            too_small += _loose_axes(trial, name, tolerance)
        else:
            wrong.append(
                f"{name} is no symmetry: permuting {axes} changes the outputs by {error:.1e}"
            )

    if candidates is not None:
        for part, error in trial.changes_under_parts(candidates).items():
            if error <= tolerance:
                axes = _listed(candidates.occurrences(part))
                too_small.append(f"{axes} can be permuted apart from what shares their name")

    passed = not wrong and worst <= tolerance
    return SpecReport(passed, not too_small, worst, wrong + too_small)


class _Trial:
    """A function at random parameters, and by how much permutations of them change its outputs.

    Every change is relative to the largest output, and the largest of ``num_draws`` draws.
    """

    def __init__(
        self,
        function: Callable[[Tree], list[Tensor]],
        params: Tree,
        spec: PermutationSpec,
        generator: torch.Generator,
        num_draws: int,
    ) -> None:
        self.function = function
        self.params = params
        self.spec = spec
        self.generator = generator
        self.num_draws = num_draws

        self.sizes = spec.sizes(params)
        self.outputs = function(params)
        # one, where all outputs are zero
        self.scale = max(float(output.abs().max()) for output in self.outputs) or 1.0

    def change(self, permuted: Tree) -> float:
        """The largest relative change of an output at other parameters."""
        differences = []
        for after, before in zip(self.function(permuted), self.outputs, strict=True):
            differences.append(float((after - before).abs().max()))
        return max(differences) / self.scale

    def change_under_group(self) -> float:
        """The change under random elements of the whole group."""
        changes = []
        for _ in range(self.num_draws):
            changes.append(self.change(self.spec.permute(self.params, self.generator)))
        return max(changes, default=0.0)

    def change_under_name(self, name: str) -> float:
        """The change when all axes of one name are permuted together, and no others."""
        changes = []
        for element in self._moves(name):
            changes.append(self.change(self.spec.apply(self.params, element)))
        return max(changes)

    def change_under_axis(self, name: str, parameter: str, axis: int) -> float:
        """The change when one axis of a name is permuted without the others that have the name."""
        changes = []
        for element in self._moves(name):
            viewed = self.spec.view(self.params)
            viewed[parameter] = viewed[parameter].index_select(axis, element[name])
            changes.append(self.change(self.spec.unview(viewed)))
        return max(changes)

    def changes_under_parts(self, candidates: PermutationSpec) -> dict[str, float]:
        """The change under each name of another spec that has a part of the axes of one name."""
        sizes = candidates.sizes(self.params)
        still = {name: torch.arange(size) for name, size in sizes.items()}  # the identity
        changes = {}
        for part in _parts(self.spec, candidates):
            element = still | {part: _derangement(sizes[part], self.generator)}
            changes[part] = self.change(candidates.apply(self.params, element))
        return changes

    def _moves(self, name: str) -> list[GroupElement]:
        """Group elements that move one name only."""
        still = {other: torch.arange(size) for other, size in self.sizes.items()}
        moves = []
        for _ in range(self.num_draws):
            moves.append(still | {name: _derangement(self.sizes[name], self.generator)})
        return moves


def _loose_axes(trial: _Trial, name: str, tolerance: float) -> list[str]:
    """A sentence on each axis of a name that may be permuted alone."""
    axes = trial.spec.occurrences(name)
    if len(axes) < 2:
        return []

    sentences = []
    for parameter, axis in axes:
        if trial.change_under_axis(name, parameter, axis) <= tolerance:
            sentences.append(f"axis {axis} of {parameter} need not move with the rest of {name}")
    return sentences


def _random_function(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    source: torch.Generator,
    precision: Callable[[Tensor], Tensor],
) -> tuple[Callable[[Tree], list[Tensor]], Tree]:
    """The module as a function of its parameters, and random parameters for it."""
    is_exact = precision is double
    params = {}
    for name, parameter in module.named_parameters():
        drawn = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
        fan_in = max(1, parameter.shape[-1] if parameter.ndim else 1)
        drawn = drawn / fan_in**0.5  # outputs of order one at any width
        params[name] = drawn if is_exact else drawn.to(parameter.dtype)

    buffers = {name: precision(buffer) for name, buffer in module.named_buffers()}
    arguments = tuple(map(precision, inputs))

    @torch.no_grad()
    def function(values: Tree) -> list[Tensor]:
        with evaluation_mode(module), double_by_default() if is_exact else nullcontext():
            outputs = functional_call(module, {**values, **buffers}, arguments)
        return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]

    return function, params


def _derangement(size: int, source: torch.Generator) -> Tensor:
    """A random permutation that is not the identity."""
    order = torch.randperm(size, generator=source)
    return order if (order != torch.arange(size)).any() else order.roll(1)


def _parts(spec: PermutationSpec, candidates: PermutationSpec) -> list[str]:
    """Free names of the candidates whose axes are some, not all, of the axes of one name."""
    wholes = [set(spec.occurrences(name)) for name in spec.names]
    parts = []
    for name in candidates.names:
        axes = set(candidates.occurrences(name))
        # axes are numbered alike only where both specs split the parameter alike
        comparable = spec.cuts == candidates.cuts and all(
            spec.views.get(p) == candidates.views.get(p) for p, _ in axes
        )
        is_part = any(axes < whole for whole in wholes)
        if name not in candidates.fixed and comparable and is_part:
            parts.append(name)
    return parts


def _listed(axes: list[tuple[str, int]]) -> str:
    return ", ".join(f"axis {axis} of {parameter}" for parameter, axis in axes)
