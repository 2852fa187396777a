"""The permutation spec of a model of the user: traced, told, or read off its modules."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from learned_opt.deploy.parameter_names import names_in
from learned_opt.deploy.sharded import is_sharded
from learned_opt.deploy.weight_space import free_spec
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.calls import PICKED
from learned_opt.symmetry.check import check_spec
from learned_opt.symmetry.infer import infer_permutation_spec
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.symmetry.untraceable import UntraceableError

MODES = ("trace", "none")
UNKNOWN = "not traced: symmetry is none"


class Symmetries:
    """How the symmetries of a model are told.

    Args:
        model: the model.
        example_inputs: a tensor, tuple or dict that it accepts, or None.
        symmetry: ``trace`` it with these, ``none``, or its spec.

    Raises:
        ValueError: ``symmetry`` is something else.
    """

    def __init__(
        self, model: nn.Module, example_inputs: Any, symmetry: str | PermutationSpec
    ) -> None:
        if not isinstance(symmetry, PermutationSpec) and symmetry not in MODES:
            raise ValueError(
                f"symmetry must be {', '.join(MODES)} or a PermutationSpec, got {symmetry!r}."
            )
        self.model = model
        self.symmetry = symmetry
        self.example_inputs = example_inputs
        self.args, self.kwargs = arguments(example_inputs)

    def spec(self, candidates: Sequence[PermutationSpec]) -> PermutationSpec | None:
        """The spec; None where nothing tells it.

        Args:
            candidates: known ones, of which one may be that of the model.

        Raises:
            UntraceableError: the model cannot be traced.
        """
        if isinstance(self.symmetry, PermutationSpec):
            return self.symmetry
        if self.symmetry == "none":
            return _fixed_spec(self.model)

        # trained on these very shapes, at least: if the symmetries are alike, only inputs can tell
        params = dict(self.model.named_parameters())
        fitting = [spec for spec in candidates if _describes(spec, params)]
        if self.example_inputs is None:
            return fitting[0] if fitting else None
        return self._traced(fitting)

    def kinds(self) -> PermutationSpec:
        """A spec that knows the kind of each tensor, as far as shapes and modules show it."""
        spec = free_spec({name: param.shape for name, param in self.model.named_parameters()})
        names = names_in(self.model)
        fixed = {}
        for module in self.model.modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                axis, _ = spec.axes[names[module.weight]]
                fixed[axis] = module.num_embeddings
        reasons = dict.fromkeys(fixed, PICKED)
        return PermutationSpec(spec.axes, set(fixed), reasons=reasons, fixed_sizes=fixed)

    def _traced(self, candidates: Sequence[PermutationSpec]) -> PermutationSpec:
        """The candidate that holds for the model, else the spec that a trace of it gives."""
        if any(is_sharded(param) for param in self.model.parameters()):
            raise ValueError(
                "a sharded model cannot be traced: give no example_inputs, or symmetry=spec with "
                "what infer_permutation_spec said before it was sharded."
            )
        try:
            inferred = infer_permutation_spec(self.model, *self.args, **self.kwargs)
        except UntraceableError as error:
            raise UntraceableError(
                f"{str(error).rstrip('.')}; symmetry='none' goes on without a trace."
            ) from error

        for spec in candidates:
            if _without_names(spec) == _without_names(inferred):
                return _with_reasons(spec, inferred)
        # one written by hand may split axes otherwise than a trace does, and hold all the same
        if self.kwargs or not all(isinstance(value, Tensor) for value in self.args):
            return inferred
        for spec in candidates:
            if check_spec(self.model, spec, *self.args, candidates=inferred).passed:
                return spec
        return inferred


def arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, by position and by name.

    >>> arguments({"x": 1})
    ((), {'x': 1})
    """
    if example_inputs is None:
        return (), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def restricted(
    meta_optimizer: MetaOptimizer, model: nn.Module, params: Sequence[Any]
) -> MetaOptimizer:
    """A meta-optimizer on the weight space of some parameters of a model.

    The symmetries between these stay; those that others would break, a meta-optimizer does not see.

    Args:
        meta_optimizer: bound to all parameters.
        model: the model.
        params: tensors of it, pairs of name and tensor, or param groups.
    """
    if meta_optimizer.simplified().separable:
        return meta_optimizer

    names = names_in(model)
    kept = set()
    for entry in params:
        group = entry["params"] if isinstance(entry, Mapping) else [entry]
        for param in [group] if isinstance(group, Tensor) else list(group):
            tensor = param[1] if isinstance(param, tuple) else param
            if tensor in names:
                kept.add(names[tensor])
    return meta_optimizer.rebind(meta_optimizer.spec.part(kept))


def _fixed_spec(model: nn.Module) -> PermutationSpec:
    """A spec in which no axis permutes."""
    shapes = {name: param.shape for name, param in model.named_parameters()}
    axes = free_spec(shapes).axes
    sizes = {}
    for name, names in axes.items():
        sizes.update(zip(names, shapes[name], strict=True))
    return PermutationSpec(axes, set(sizes), {}, dict.fromkeys(sizes, UNKNOWN), sizes)


def _describes(spec: PermutationSpec, params: Mapping[str, nn.Parameter]) -> bool:
    """Whether a spec could be that of parameters: same names, axes of one name equally long."""
    try:
        sizes = spec.sizes(dict(params))
    except ValueError:
        return False
    return all(sizes[name] == size for name, size in spec.fixed_sizes.items())


def _with_reasons(spec: PermutationSpec, inferred: PermutationSpec) -> PermutationSpec:
    """A spec with the reasons of an equal one that a trace gave: rules of tensors read them."""
    names = dict(zip(inferred.names, spec.names, strict=True))
    reasons = {names[name]: reason for name, reason in inferred.reasons.items()}
    return replace(spec, reasons={**spec.reasons, **reasons})


def _without_names(spec: PermutationSpec) -> tuple[Any, ...]:
    """A spec up to what its permutations are called: their names become numbers."""
    number = {name: i for i, name in enumerate(spec.names)}
    axes = {}
    for parameter, names in spec.axes.items():
        axes[parameter] = tuple(number[name] for name in names)
    fixed = {number[name] for name in spec.fixed}
    return axes, fixed, dict(spec.views), dict(spec.cuts)
