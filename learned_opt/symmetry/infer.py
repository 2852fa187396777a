"""Permutation spec of any traceable ``nn.Module``, by tracing its function and following every axis through it."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch._decomp import core_aten_decompositions
from torch._subclasses.functional_tensor import dispatch_functionalize
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from learned_opt.core.tree import Tree
from learned_opt.symmetry.atoms import Atom, fix, leaves
from learned_opt.symmetry.calls import Axes, Call, Labelled, constant_axes, fix_positions, fresh
from learned_opt.symmetry.rules import KEEP_POSITIONS, rule_for
from learned_opt.symmetry.spec import PermutationSpec


def infer_permutation_spec(module: nn.Module, *example_inputs: Tensor) -> PermutationSpec:
    """Find the permutation symmetries of a module's parameters.

    Every axis starts as an atom of its own and is unified with others as the traced operations demand. Axes of inputs
    and outputs, axes whose order an operation uses, and axes that meet an operation without a rule are fixed, so the
    result is always a symmetry, at worst a smaller one than the module has.

    Args:
        module: traced in evaluation mode; its buffers count as permuted along with the parameters only where they do
            not vary.
        example_inputs: tensors that ``module(*example_inputs)`` accepts.

    Returns:
        PermutationSpec: for the parameters of ``module.named_parameters()``. A merged axis (packed attention weights,
        LSTM gates, flattened maps) is split by ``spec.views``; ``spec.reasons`` says why a name is fixed.
    """
    buffers = {name: _exact(buffer) for name, buffer in module.named_buffers()}
    was_training = module.training
    module.eval()

    def function(params: Tree, *inputs: Tensor) -> list[Tensor]:
        outputs = functional_call(module, params | buffers, inputs)
        return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]

    try:
        # in float64: torch has fused kernels for less, which hide what they do
        params = {name: _exact(p) for name, p in module.named_parameters()}
        return infer_from_function(function, params, *map(_exact, example_inputs))
    finally:
        module.train(was_training)


def infer_from_function(
    function: Callable[..., list[Tensor]], params: Tree, *example_inputs: Tensor
) -> PermutationSpec:
    """``infer_permutation_spec`` for any function of parameters.

    Args:
        function: ``(params, *inputs) -> list of tensors``; tensors that it closes over count as constants.
        params: name -> tensor.
        example_inputs: further arguments.
    """
    values, inputs = (
        [p.detach().clone().requires_grad_() for p in params.values()],
        list(example_inputs),
    )

    def flat(values: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
        return function(dict(zip(params, values, strict=True)), *inputs)

    table: Any = core_aten_decompositions()
    # torch.func.functionalize refuses custom autograd functions
    graph = make_fx(dispatch_functionalize(flat), decomposition_table=table)(values, inputs)
    graph.graph.eliminate_dead_code()  # what is not returned ties no axes together
    tracer = _AxisTracer(graph, [list(map(fresh, p.shape)) for p in values], inputs)
    with torch.no_grad():
        tracer.run(*values, *inputs)
    return _spec_of(dict(zip(params, tracer.param_axes, strict=True)))


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().double().clone() if tensor.is_floating_point() else tensor


class _AxisTracer(fx.Interpreter):
    """Runs the graph on the example values and keeps the axes of every result that depends on parameters or inputs."""

    def __init__(
        self, graph: fx.GraphModule, param_axes: list[Axes], inputs: Sequence[Tensor]
    ) -> None:
        super().__init__(graph)
        self.param_axes = param_axes
        reason = "an axis of the input"
        leaves_in = [[fresh(size, reason) for size in value.shape] for value in inputs]
        self.given = iter([*param_axes, *leaves_in])
        self.axes: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Compute the value of a node and its axes."""
        value = super().run_node(n)
        if n.op == "placeholder":
            self.axes[n] = next(self.given)
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
        if n.target is operator.getitem:
            source, index = n.args
            return self.axes[cast(fx.Node, source)][index]
        op = cast(torch._ops.OpOverload, n.target)
        schema = op._schema.arguments
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        nodes = {a.name: node for a, node in zip(schema, n.args, strict=False)} | dict(n.kwargs)
        plain = {a.name: v for a, v in zip(schema, args, strict=False)} | dict(kwargs)
        defaults = {a.name: a.default_value for a in schema if a.has_default_value()}
        arguments = defaults | {name: self._label(nodes[name], plain[name]) for name in plain}
        call = Call(op._schema.name.split("::")[1], arguments, value)
        if call.name not in KEEP_POSITIONS:
            for labelled in call.labelled:
                fix_positions(labelled.axes)
        axes = rule_for(op)(call)
        if op._schema.is_mutable:
            self.axes[cast(fx.Node, n.args[0])] = axes
        return axes

    def _label(self, node: Any, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._label(a, b) for a, b in zip(node, value, strict=True)]
        if not isinstance(value, Tensor):
            return value
        return Labelled(value, self.axes[node] if node in self.axes else constant_axes(value))


def _spec_of(param_axes: dict[str, Axes]) -> PermutationSpec:
    """Name the atoms after the first place where they occur."""
    names: dict[Atom, str] = {}
    axes: dict[str, tuple[str, ...]] = {}
    views: dict[str, tuple[tuple[int, ...], ...]] = {}
    for parameter, own in param_axes.items():
        parts = [leaves(axis) or [Atom(1, "a single index")] for axis in own]
        places = [
            (dim, i, atom) for dim, factors in enumerate(parts) for i, atom in enumerate(factors)
        ]
        axes[parameter] = tuple(
            names.setdefault(atom, f"{parameter}[{dim}]" + (f".{i}" if len(parts[dim]) > 1 else ""))
            for dim, i, atom in places
        )
        if len(places) > len(own):
            views[parameter] = tuple(tuple(atom.size for atom in factors) for factors in parts)
    reasons = {name: atom.reason for atom, name in names.items() if atom.reason}
    sizes = {name: atom.size for atom, name in names.items() if atom.reason}
    return PermutationSpec(axes, reasons, views, reasons, sizes)
