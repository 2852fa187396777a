"""Trained optimizers: find, check, build, and fit to a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from learned_opt.deploy import hub, published
from learned_opt.deploy.weight_space import free_spec
from learned_opt.deploy.weights import build_trained, load_metadata, specs
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.check import check_spec
from learned_opt.symmetry.infer import infer_permutation_spec
from learned_opt.symmetry.spec import PermutationSpec


def load(
    name: str | Path,
    revision: str | None = None,
    trust: tuple[str, ...] = (),
    weights: str | Path | None = None,
) -> tuple[MetaOptimizer, dict[str, Any]]:
    """The optimizer that a name stands for, and its metadata.

    Args:
        name: as ``hub.find`` takes it.
        revision: branch, tag or commit on the hub.
        trust: modules of others whose classes the files may name.
        weights: its authors' file, of an optimizer that ``published`` reads.

    Returns:
        tuple[MetaOptimizer, dict[str, Any]]: the optimizer on the first weight space that it was
        trained on, and what its ``theta.json`` holds.

    Raises:
        ValueError: nothing has that name, or the files are not ours, damaged or of another format.
        ConnectionError: the hub cannot be reached.
    """
    if weights is not None:
        return published.load(str(name), Path(weights).expanduser())
    path = hub.find(name, revision)
    metadata = load_metadata(path)
    return build_trained(path, metadata, trust), metadata


def fit(
    optimizer: MetaOptimizer,
    metadata: Mapping[str, Any],
    model: nn.Module,
    example_inputs: Sequence[Tensor] | None,
) -> MetaOptimizer:
    """The optimizer on the weight space of a model.

    Args:
        optimizer: as ``load`` gives it.
        metadata: its metadata.
        model: the model that it will train.
        example_inputs: what ``model(*example_inputs)`` accepts, or None.

    Raises:
        ValueError: the spec of the model is needed and cannot be known, or the optimizer cannot
            move to it.
    """
    if optimizer.separable:
        return optimizer
    if not optimizer.reads_spec:
        shapes = {name: param.shape for name, param in model.named_parameters()}
        return optimizer.rebind(free_spec(shapes))

    params = dict(model.named_parameters())
    # trained on these very shapes, at least: whether the symmetries are alike, only inputs can tell
    candidates = [spec for spec in specs(metadata) if _describes(spec, params)]
    if example_inputs is not None:
        return optimizer.rebind(_spec_of(model, example_inputs, candidates))
    if not candidates:
        raise ValueError(
            "this optimizer reads the symmetries of the model: give example_inputs, a tuple of "
            "tensors that the model accepts. Its parameters are not those of "
            f"{', '.join(metadata['specs'])}, which it was trained on."
        )
    return optimizer.rebind(candidates[0])


def _spec_of(
    model: nn.Module, example_inputs: Sequence[Tensor], candidates: Sequence[PermutationSpec]
) -> PermutationSpec:
    """The candidate that holds for a model, else the spec that a trace of it gives."""
    inferred = infer_permutation_spec(model, *example_inputs)
    for spec in candidates:
        if _without_names(spec) == _without_names(inferred):
            return spec

    # one written by hand may split axes otherwise than a trace does, and hold all the same
    for spec in candidates:
        if check_spec(model, spec, *example_inputs, candidates=inferred).passed:
            return spec
    return inferred


def _describes(spec: PermutationSpec, params: Mapping[str, nn.Parameter]) -> bool:
    """Whether a spec could be that of parameters: same names, axes of one name equally long."""
    try:
        sizes = spec.sizes(dict(params))
    except ValueError:
        return False
    return all(sizes[name] == size for name, size in spec.fixed_sizes.items())


def _without_names(spec: PermutationSpec) -> tuple[Any, ...]:
    """A spec up to what its permutations are called: their names become numbers."""
    number = {name: i for i, name in enumerate(spec.names)}
    axes = {}
    for parameter, names in spec.axes.items():
        axes[parameter] = tuple(number[name] for name in names)
    fixed = {number[name] for name in spec.fixed}
    return axes, fixed, dict(spec.views), dict(spec.cuts)
