"""Trained optimizers: find, check, build, and fit to a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learned_opt.deploy import hub, published
from learned_opt.deploy.model_symmetries import Symmetries
from learned_opt.deploy.weight_space import free_spec
from learned_opt.deploy.weights import build_trained, load_metadata, specs
from learned_opt.optimizers.base import MetaOptimizer
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


def packaged(spec: PermutationSpec, name: str) -> MetaOptimizer:
    """The meta-optimizer of a packaged name on a weight space; configs name it as a constructor.

    Args:
        spec: of the weight space.
        name: of a folder of ``deploy/pretrained``.

    Raises:
        ValueError: nothing has that name.
    """
    optimizer, _ = load(name)
    return optimizer.rebind(spec)


def fit(
    optimizer: MetaOptimizer, metadata: Mapping[str, Any], symmetries: Symmetries
) -> MetaOptimizer:
    """The optimizer on the weight space of a model.

    Args:
        optimizer: as ``load`` gives it.
        metadata: its metadata.
        symmetries: how those of the model are told.

    Raises:
        ValueError: the spec of the model is needed and cannot be known, or the optimizer cannot
            move to it.
    """
    if optimizer.separable:
        return optimizer
    if not optimizer.reads_spec:
        shapes = {name: param.shape for name, param in symmetries.model.named_parameters()}
        return optimizer.rebind(free_spec(shapes))

    spec = symmetries.spec(specs(metadata))
    if spec is None and optimizer.simplified().separable:
        spec = symmetries.kinds()
    if spec is None:
        raise ValueError(
            "this optimizer reads the symmetries of the model: give example_inputs, a tensor, "
            "tuple or dict that the model accepts. Its parameters are not those of "
            f"{', '.join(metadata['specs'])}, which it was trained on."
        )
    return optimizer.rebind(spec)
