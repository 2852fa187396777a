"""Trained optimizers in and out: find, check, build, fit to a model, save."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from learned_opt.deploy import construct, hub
from learned_opt.deploy.parity import check_parity
from learned_opt.deploy.weights import load_metadata, load_theta, save_theta
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.check import check_spec
from learned_opt.symmetry.infer import infer_permutation_spec
from learned_opt.symmetry.spec import PermutationSpec


def load(name: str | Path, revision: str | None = None) -> tuple[MetaOptimizer, dict[str, Any]]:
    """The optimizer that a name stands for, on the first weight space that it was trained on, and its metadata.

    Raises:
        ValueError: nothing has that name, or the files are not ours, damaged or of another format.
        ConnectionError: the hub cannot be reached.
    """
    path = hub.find(name, revision)
    metadata = load_metadata(path)
    try:
        node, (spec, *_) = metadata["meta_optimizer"], specs(metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path.with_suffix('.json')} does not describe a learned optimizer: {error!r}."
        ) from error
    optimizer = construct.build(node, spec)
    load_theta(path, optimizer)
    return optimizer, metadata


def specs(metadata: dict[str, Any]) -> list[PermutationSpec]:
    """The weight spaces that it was trained on."""
    return [PermutationSpec(**spec) for spec in metadata["specs"].values()]


def fit(
    optimizer: MetaOptimizer,
    metadata: dict[str, Any],
    model: nn.Module,
    example_inputs: Sequence[Tensor] | None,
) -> MetaOptimizer:
    """The optimizer on the weight space of a model.

    Args:
        optimizer: as ``load`` gives it.
        metadata: its metadata.
        model: the model.
        example_inputs: what ``model(*example_inputs)`` accepts, or None.

    Raises:
        ValueError: the spec of the model is needed and cannot be known, or the optimizer cannot move to it.
    """
    if optimizer.separable:
        return optimizer
    params = dict(model.named_parameters())
    known = [spec for spec in specs(metadata) if _describes(spec, params)]
    if example_inputs is not None:
        inferred = infer_permutation_spec(model, *example_inputs)
        same = [spec for spec in known if _renamed(spec) == _renamed(inferred)]
        # one written by hand may split axes otherwise than a trace does, and hold all the same
        same = same or [
            spec
            for spec in known
            if check_spec(model, spec, *example_inputs, candidates=inferred).passed
        ]
        return optimizer.rebind((same or [inferred])[0])
    if not known:
        raise ValueError(
            "this optimizer reads the symmetries of the model: give example_inputs, a tuple of tensors that the model "
            f"accepts. Its parameters are not those of {', '.join(metadata['specs'])}, which it was trained on."
        )
    return optimizer.rebind(known[0])


def save(folder: Path, optimizer: MetaOptimizer, metadata: dict[str, Any]) -> Path:
    """Write theta and its metadata, once its steps are shown to be those of meta-training; returns the folder."""
    check_parity(optimizer)
    folder.mkdir(parents=True, exist_ok=True)
    save_theta(folder, dict(optimizer.named_parameters()), metadata)
    return folder


def push(repo_id: str, optimizer: MetaOptimizer, metadata: dict[str, Any], **options: Any) -> str:
    """``save`` to the hub; returns the address."""
    with tempfile.TemporaryDirectory() as folder:
        return hub.push(save(Path(folder), optimizer, metadata), repo_id, **options)


def _describes(spec: PermutationSpec, params: dict[str, nn.Parameter]) -> bool:
    """Whether these could be the parameters of a spec: same names, and axes of one name equally long."""
    try:
        sizes = spec.sizes(params)
    except ValueError:
        return False
    return all(sizes[name] == size for name, size in spec.fixed_sizes.items())


def _renamed(spec: PermutationSpec) -> tuple[Any, ...]:
    """A spec up to what its permutations are called."""
    number = {name: i for i, name in enumerate(spec.names)}
    axes = {
        parameter: tuple(number[name] for name in names) for parameter, names in spec.axes.items()
    }
    return axes, {number[name] for name in spec.fixed}, dict(spec.views)
