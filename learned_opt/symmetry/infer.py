"""Permutation spec of any traceable ``nn.Module``.

Its function is traced, and every axis is followed through the traced operations.
"""

import operator
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch._decomp import core_aten_decompositions
from torch._subclasses.functional_tensor import dispatch_functionalize
from torch.func import functional_call
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from learned_opt.core.evaluation_mode import evaluation_mode
from learned_opt.core.tracing import traced
from learned_opt.core.tree import Tree
from learned_opt.symmetry.atoms import Atom, Axis, fix, fresh, length
from learned_opt.symmetry.calls import Axes, Call, Labelled, constant_axes, fix_positions
from learned_opt.symmetry.layout import names_of_pieces
from learned_opt.symmetry.precision import double, double_by_default, unchanged
from learned_opt.symmetry.rules import KEEP_POSITIONS, rule_for
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.symmetry.sums import simplify
from learned_opt.symmetry.trace_arguments import Examples, Precision, without_numbers
from learned_opt.symmetry.untraceable import call_error, error_of, quiet_failures


def infer_permutation_spec(
    module: nn.Module, *example_inputs: Any, **named_inputs: Any
) -> PermutationSpec:
    """Find the permutation symmetries of a module's parameters.

    Every axis starts as an atom of its own and is unified with others as the traced operations
    demand. Axes of inputs and outputs, axes whose order an operation uses, and axes that meet an
    operation without a rule are fixed, so the result is always a symmetry, at worst a smaller one
    than the module has. The numbers of the parameters are not read, and no copy of them is made.

    Args:
        module: traced in evaluation mode; its buffers count as permuted along with the parameters
            only where they do not vary.
        example_inputs: what ``module(*example_inputs, **named_inputs)`` accepts; trees of tensors,
            all else counts as constant.
        named_inputs: further ones by name.

    Returns:
        PermutationSpec: for the parameters of ``module.named_parameters()``. A merged axis (packed
        attention weights, LSTM gates, flattened maps) is split by ``spec.views``, a parameter
        that reads a concatenation is cut in pieces by ``spec.cuts``;
        ``spec.reasons`` says why a name is fixed.

    Raises:
        ValueError: the module does not take the example inputs; names their shapes.
        UntraceableError: the module cannot be traced; names the operation at which it stops.

    >>> mlp = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> spec = infer_permutation_spec(mlp, torch.zeros(1, 2))
    >>> spec.axes["0.weight"], spec.axes["2.weight"]
    (('0.weight[0]', '0.weight[1]'), ('2.weight[0]', '0.weight[0]'))
    >>> sorted(spec.fixed)
    ['0.weight[1]', '2.weight[0]']
    """
    examples = Examples(example_inputs, named_inputs)
    attempts = [
        # in float64: torch has fused kernels for less, which hide what they do
        partial(_infer_in, double, module, examples),
        # a forward that names float32 itself cannot run in float64
        partial(_infer_in, unchanged, module, examples),
        # an operation of somebody else may need numbers
        partial(_infer_in, unchanged, module, examples, numbers=True),
    ]
    with evaluation_mode(module), quiet_failures():
        for attempt in attempts:
            with suppress(Exception):
                return attempt()

        tensors = examples.tensors(unchanged)
        args, kwargs = examples.call(tensors)
        try:  # a call that is wrong says nothing of the trace
            with torch.no_grad():
                module(*args, **kwargs)
        except Exception as error:
            raise call_error(module, tensors, error) from error
        raise error_of(attempts[0], module)


def _infer_in(
    precision: Precision, module: nn.Module, examples: Examples, numbers: bool = False
) -> PermutationSpec:
    """The spec of a module whose parameters, buffers and inputs are cast first."""
    params = dict(module.named_parameters())
    if numbers:
        params = {name: precision(parameter) for name, parameter in params.items()}
    else:
        params = without_numbers(params, precision)
    buffers = {name: precision(buffer) for name, buffer in module.named_buffers()}

    def function(params: Tree, *inputs: Tensor) -> list[Tensor]:
        args, kwargs = examples.call(inputs)
        outputs = functional_call(module, params | buffers, args, kwargs)
        return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]

    with double_by_default() if precision is double else nullcontext():
        return infer_from_function(function, params, *examples.tensors(precision))


def infer_from_function(
    function: Callable[..., list[Tensor]], params: Tree, *example_inputs: Tensor
) -> PermutationSpec:
    """``infer_permutation_spec`` for any function of parameters.

    Args:
        function: ``(params, *inputs) -> list of tensors``; tensors that it closes over count as
            constants.
        params: name -> tensor.
        example_inputs: further arguments.

    >>> def function(params, x):
    ...     return [torch.tanh(x @ params["read"]) @ params["write"]]
    >>> params = {"read": torch.zeros(2, 5), "write": torch.zeros(5, 3)}
    >>> spec = infer_from_function(function, params, torch.zeros(1, 2))
    >>> spec.occurrences("read[1]")  # the hidden units
    [('read', 1), ('write', 0)]
    """
    inputs = list(example_inputs)
    values = []
    for parameter in params.values():
        values.append(parameter.detach().clone().requires_grad_())

    def flat(values: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        return function(dict(zip(params, values, strict=True)), *inputs)

    # torch.func.functionalize refuses custom autograd functions
    table = core_aten_decompositions()
    graph = traced(dispatch_functionalize(flat), values, inputs, decompositions=table)
    graph.graph.eliminate_dead_code()  # what is not returned ties no axes together

    param_axes: list[Axes] = []
    for value in values:
        param_axes.append([fresh(size) for size in value.shape])
    tracer = _AxisTracer(graph, param_axes, inputs)
    with torch.no_grad():
        tracer.run(*values, *inputs)

    return _spec_of(dict(zip(params, param_axes, strict=True)))


class _AxisTracer(fx.Interpreter):
    """Runs a graph on example values and labels every result with its axes.

    Results that depend on neither parameters nor inputs get none: they are constants.

    Args:
        graph: of a function of the parameters and the inputs.
        param_axes: axes of each parameter; they are unified and fixed in place.
        inputs: example values of the inputs.
    """

    def __init__(
        self, graph: fx.GraphModule, param_axes: list[Axes], inputs: Sequence[Tensor]
    ) -> None:
        super().__init__(graph)
        input_axes: list[Axes] = []
        for value in inputs:
            input_axes.append([fresh(size, "an axis of the input") for size in value.shape])

        self.placeholders = iter([*param_axes, *input_axes])
        self.axes: dict[fx.Node, Any] = {}

    @override
    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "placeholder":
            self.axes[n] = next(self.placeholders)
        elif n.op == "call_function":
            if any(source in self.axes for source in n.all_input_nodes):
                self.axes[n] = self._apply(n, value)
        elif n.op == "output":
            for source in n.all_input_nodes:
                axes = self.axes.get(source, [])
                fix_positions(axes)
                for axis in axes:
                    fix(axis, "an axis of the output")
        return value

    def _apply(self, n: fx.Node, value: Any) -> Any:
        """The axes of what an operation returned."""
        if n.target is operator.getitem:
            source, index = n.args
            return self.axes[cast(fx.Node, source)][index]

        op = cast(torch._ops.OpOverload, n.target)
        call = Call(op._schema.name.split("::")[1], self._arguments(n, op), value)
        if call.name not in KEEP_POSITIONS:
            for labelled in call.labelled:
                fix_positions(labelled.axes)

        axes = rule_for(op)(call)
        if op._schema.is_mutable:  # what is written into has the axes of the result
            self.axes[cast(fx.Node, n.args[0])] = axes
        return axes

    def _arguments(self, n: fx.Node, op: torch._ops.OpOverload) -> dict[str, Any]:
        """All arguments of an operation by name, tensors labelled, defaults filled in."""
        schema = op._schema.arguments
        names = [argument.name for argument in schema]
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        nodes = dict(zip(names, n.args, strict=False)) | dict(n.kwargs)
        values = dict(zip(names, args, strict=False)) | dict(kwargs)

        arguments = {a.name: a.default_value for a in schema if a.has_default_value()}
        for name, value in values.items():
            arguments[name] = self._label(nodes[name], value)
        return arguments

    def _label(self, node: Any, value: Any) -> Any:
        if isinstance(value, list | tuple):
            pairs = zip(node, value, strict=True)
            return [self._label(part_node, part) for part_node, part in pairs]
        if not isinstance(value, Tensor):
            return value
        return Labelled(value, self.axes[node] if node in self.axes else constant_axes(value))


def _spec_of(param_axes: dict[str, Axes]) -> PermutationSpec:
    """Name the atoms after the first place where they occur."""
    names: dict[Atom, str] = {}
    axes: dict[str, tuple[str, ...]] = {}
    views: dict[str, tuple[tuple[int, ...], ...]] = {}
    cuts: dict[str, tuple[int, tuple[int, ...]]] = {}

    # a concatenated axis cuts its parameter in pieces, which take the parameter's turn
    waiting = list(reversed(param_axes.items()))
    while waiting:
        parameter, merged = waiting.pop()
        factors = [simplify(axis) or [Atom(1, "a single index")] for axis in merged]
        pieces = _cut_first_sum(factors)
        if pieces is not None:
            cut_axis, pieces_axes = pieces
            if len(list(chain.from_iterable(factors))) > len(merged):
                views[parameter] = tuple(map(_sizes, factors))
            lengths = tuple(length(piece_axes[cut_axis]) for piece_axes in pieces_axes)
            cuts[parameter] = (cut_axis, lengths)
            piece_names = names_of_pieces(parameter, cut_axis, lengths)
            waiting.extend(reversed(list(zip(piece_names, pieces_axes, strict=True))))
            continue

        parameter_names = []
        for dim, atoms in enumerate(factors):
            for position, atom in enumerate(atoms):
                suffix = f".{position}" if len(atoms) > 1 else ""
                name = names.setdefault(atom, f"{parameter}[{dim}]{suffix}")
                parameter_names.append(name)

        axes[parameter] = tuple(parameter_names)
        if len(parameter_names) > len(merged):
            views[parameter] = tuple(map(_sizes, factors))

    fixed = {name: atom for atom, name in names.items() if atom.reason}
    reasons = {name: atom.reason for name, atom in fixed.items()}
    fixed_sizes = {name: atom.size for name, atom in fixed.items()}
    return PermutationSpec(axes, reasons, views, reasons, fixed_sizes, cuts=cuts)


def _cut_first_sum(factors: Sequence[Axis]) -> tuple[int, list[Axes]] | None:
    """Which of the factors, counted over all axes, is the first sum; and the axes of its pieces.

    None where there is none.
    """
    atoms = list(chain.from_iterable(factors))
    for cut_axis, atom in enumerate(atoms):
        if atom.terms is None:
            continue
        before = [[other] for other in atoms[:cut_axis]]
        after = [[other] for other in atoms[cut_axis + 1 :]]
        return cut_axis, [[*before, term, *after] for term in atom.terms]
    return None


def _sizes(atoms: Sequence[Atom]) -> tuple[int, ...]:
    return tuple(atom.size for atom in atoms)
