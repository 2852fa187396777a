"""A trained theta on disk: numbers in ``theta.safetensors``, how to use them in ``theta.json``.

The authors' files of other optimizers, see ``published``, are read as such a pair.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.files import write_text, write_whole
from learned_opt.deploy import construct, metadata_schema, plain_data, published
from learned_opt.deploy.metadata_schema import FORMAT
from learned_opt.deploy.theta_header import build_on_meta, read_header
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.symmetry.spec import PermutationSpec


def save_theta(folder: Path, theta: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write ``theta.safetensors`` and then ``theta.json``, see ``write_theta``.

    Args:
        folder: of the run, or of an export; made where it is missing.
        theta: meta-parameters by name.
        metadata: JSON-serialisable: the config of the ``MetaOptimizer``, specs, provenance,
            evaluation.

    Returns:
        Path: the safetensors file.
    """
    return write_theta(RunFolder(folder).theta, theta, metadata)


def write_theta(path: Path, theta: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write a theta, and then its description beside it.

    A kill at any moment leaves no theta beside the description of another one: that description is
    removed first, so that a theta without one is left, which ``load_metadata`` refuses. Where theta
    stays as it is, only its description is replaced, in one move.

    Args:
        path: the safetensors file; the description has its name, and the suffix ``.json``.
        theta: meta-parameters by name.
        metadata: as of ``save_theta``.

    Returns:
        Path: the safetensors file.
    """
    beside = path.with_suffix(".json")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in theta.items()}
    content = save(tensors)
    # a config may hold infinity (a limit that is off), which the strict write_json would refuse
    text = json.dumps({"format": FORMAT, **metadata}, indent=1) + "\n"

    if not (path.is_file() and path.read_bytes() == content):
        beside.unlink(missing_ok=True)
    write_whole(path, content)
    write_text(beside, text)
    return path


def load_metadata(path: Path) -> dict[str, Any]:
    """Read the JSON beside a theta file.

    Args:
        path: the safetensors file.

    Returns:
        dict[str, Any]: ``specs`` and ``tasks`` by the name of the task, among others; format 1 had
        one of each. Classes in ``meta_optimizer`` have the names of today.

    Raises:
        ValueError: there is none, it is not ours, or it is of another format.
    """
    beside = path.with_suffix(".json")
    if not path.is_file():
        raise ValueError(f"theta must be a theta.safetensors file, but there is none at {path}.")
    if published.is_published(path):
        described = published.read(path).metadata
    elif beside.is_file():
        described = plain_data.read_json(beside)
    else:
        raise ValueError(
            f"theta {path} lacks its {beside.name}, which says what optimizer it is of."
        )
    metadata = metadata_schema.checked(described, str(beside))

    # here, so that those who build it through Hydra see the names of today, too
    if "meta_optimizer" in metadata:
        metadata["meta_optimizer"] = construct.with_current_names(metadata["meta_optimizer"])
    return metadata


def specs(metadata: Mapping[str, Any]) -> list[PermutationSpec]:
    """The weight spaces that an optimizer was trained on."""
    return [PermutationSpec(**spec) for spec in metadata["specs"].values()]


def build_trained(
    path: Path, metadata: Mapping[str, Any], trust: tuple[str, ...] = ()
) -> MetaOptimizer:
    """The optimizer of a theta file on the first weight space that it was trained on.

    The header of the file says how large it may be: an optimizer of another size is refused before
    it takes memory. Those of other people's classes, which the user trusts, may need real tensors.

    Args:
        path: the safetensors file.
        metadata: what ``load_metadata`` gives.
        trust: modules of others that the metadata may name.

    Raises:
        ValueError: the files are damaged, do not belong together, or name a class that is not ours
            and not trusted.
    """
    metadata_schema.require(metadata, ("meta_optimizer", "specs"), str(path.with_suffix(".json")))
    node = metadata["meta_optimizer"]
    first_spec, *_ = specs(metadata)
    header = _header(path)

    def build() -> MetaOptimizer:
        return construct.build(node, first_spec, trust)

    if construct.names_only_ours(node):
        without_numbers = build_on_meta(build, header, str(path))
        check_theta(without_numbers, header, str(path))

    optimizer = build()
    load_theta(path, optimizer)
    return optimizer


def load_theta(path: Path, optimizer: MetaOptimizer) -> None:
    """Load a theta file into an optimizer.

    Args:
        path: the safetensors file, with its JSON beside it.
        optimizer: built for a weight space that theta was trained on, or that it can move to.

    Raises:
        ValueError: the file is damaged or of another architecture, or a number of it is not
            finite; names the keys or shapes that differ.
    """
    _check_weight_space(path, optimizer)
    # before the numbers are read
    check_theta(optimizer, _header(path), str(path))

    theta = _numbers(path)
    _check_finite(optimizer, theta, str(path))
    with torch.no_grad():
        for name, parameter in optimizer.named_parameters():
            parameter.copy_(theta[name])


def _header(path: Path) -> dict[str, Tensor]:
    """The tensors of a theta file on the meta device."""
    if not published.is_published(path):
        return read_header(path)
    return {name: leaf.to("meta") for name, leaf in _numbers(path).items()}


def _numbers(path: Path) -> dict[str, Tensor]:
    """The tensors of a theta file."""
    if published.is_published(path):
        return published.read(path).theta
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"theta {path} is damaged: {error}.") from error


def _check_weight_space(path: Path, optimizer: MetaOptimizer) -> None:
    """Check that theta was trained on the optimizer's weight space, or can move between both."""
    metadata = load_metadata(path)
    metadata_schema.require(metadata, ("specs",), str(path.with_suffix(".json")))
    trained_on = specs(metadata)
    expected = list(optimizer.spec.parameters)
    differences = [tree.difference(expected, list(spec.parameters)) for spec in trained_on]
    if not all(differences):
        return

    try:
        optimizer.rebind(trained_on[0])
    except ValueError as error:
        raise ValueError(
            f"theta {path} is of another network, its parameters differ: {differences[0]}."
        ) from error


def check_theta(optimizer: MetaOptimizer, theta: Mapping[str, Tensor], source: str) -> None:
    """Check that ``theta`` has the names and shapes of the optimizer's parameters.

    Args:
        optimizer: the optimizer that theta is for.
        theta: meta-parameters by name.
        source: where theta comes from, for the message.

    Raises:
        ValueError: names the keys that differ, or the first shape that does.
    """
    parameters = dict(optimizer.named_parameters())
    keys = tree.difference(list(parameters), list(theta))
    if keys:
        raise ValueError(f"theta {source} is of another architecture: {keys}.")

    for name, parameter in parameters.items():
        if parameter.shape != theta[name].shape:
            shapes = f"{tuple(theta[name].shape)}, the optimizer needs {tuple(parameter.shape)}"
            raise ValueError(
                f"theta {source} is of another architecture: {name} has shape {shapes}."
            )


def _check_finite(optimizer: MetaOptimizer, theta: Mapping[str, Tensor], source: str) -> None:
    """Check that theta holds finite numbers, but where the optimizer starts from infinity."""
    for name, parameter in optimizer.named_parameters():
        leaf = theta[name]
        start = parameter.detach().to(leaf.device)
        # the logarithm of a weight of 0, which leaves a part out for good
        is_off = torch.isneginf(start) & torch.isneginf(leaf)
        bad = ~(leaf.isfinite() | is_off)
        if bad.any():
            raise ValueError(
                f"{name!r} of theta {source} must hold finite numbers, "
                f"got {leaf[bad].flatten()[0].item()}."
            )
