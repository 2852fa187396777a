"""A trained theta on disk: ``theta.safetensors`` for the numbers, ``theta.json`` for everything needed to use them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from learned_opt.core import tree
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec

FORMAT = 2  # version of the pair of files; raised when an older reader would misread it


def save_theta(folder: Path, theta: dict[str, Tensor], metadata: dict[str, Any]) -> Path:
    """Write ``theta.safetensors`` and ``theta.json``.

    Args:
        folder: existing folder.
        theta: meta-parameters by name.
        metadata: JSON-serialisable; see ``MetaOptimizer`` constructor config, spec, provenance, evaluation.

    Returns:
        Path: the safetensors file.
    """
    path = folder / "theta.safetensors"
    path.write_bytes(
        save({name: tensor.detach().cpu().contiguous() for name, tensor in theta.items()})
    )
    text = json.dumps({"format": FORMAT, **metadata}, indent=1)
    path.with_suffix(".json").write_text(text + "\n")
    return path


def load_metadata(path: Path) -> dict[str, Any]:
    """Read the JSON beside a theta file.

    Returns:
        dict[str, Any]: ``specs`` and ``tasks`` by the name of the task, among others; format 1 had one of each.

    Raises:
        ValueError: there is none, it is not ours, or it is of another format.
    """
    beside = path.with_suffix(".json")
    if not path.is_file():
        raise ValueError(
            f"checkpoint must be a theta.safetensors file, but there is none at {path}."
        )
    if not beside.is_file():
        raise ValueError(
            f"checkpoint {path} lacks its {beside.name}, which says what optimizer it is of."
        )
    try:
        metadata = json.loads(beside.read_text())
    except ValueError as error:  # of the text's encoding, too
        raise ValueError(f"{beside} is not valid JSON: {error}.") from error
    if not isinstance(metadata, dict):
        raise ValueError(
            f"{beside} does not describe a learned optimizer, it holds a {type(metadata).__name__}."
        )
    if metadata.get("format") == 1:
        task = metadata["task"]["task"]
        return {**metadata, "specs": {task: metadata["spec"]}, "tasks": {task: metadata["task"]}}
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{beside} has format {metadata.get('format')!r}, this version reads {FORMAT}."
        )
    return metadata


def load_theta(path: Path, optimizer: MetaOptimizer) -> None:
    """Load a theta file into an optimizer built for a weight space that it was trained on, or that it can move to.

    Raises:
        ValueError: the file is damaged or of another architecture; names the keys or shapes that differ.
    """
    specs = [PermutationSpec(**spec) for spec in load_metadata(path)["specs"].values()]
    keys = [tree.difference(list(optimizer.spec.axes), list(spec.axes)) for spec in specs]
    if all(keys):
        try:
            optimizer.rebind(specs[0])
        except ValueError as error:
            raise ValueError(
                f"checkpoint {path} is of another network, its parameters differ: {keys[0]}."
            ) from error
    try:
        theta = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"checkpoint {path} is damaged: {error}.") from error
    check_theta(optimizer, theta, str(path))
    with torch.no_grad():
        for name, parameter in optimizer.named_parameters():
            parameter.copy_(theta[name])


def check_theta(optimizer: MetaOptimizer, theta: dict[str, Tensor], source: str) -> None:
    """Check that ``theta`` has the names and shapes of the optimizer's parameters.

    Raises:
        ValueError: names the keys that differ, or the first shape that does.
    """
    own = dict(optimizer.named_parameters())
    keys = tree.difference(list(own), list(theta))
    if keys:
        raise ValueError(f"checkpoint {source} is of another architecture: {keys}.")
    for name, parameter in own.items():
        if parameter.shape != theta[name].shape:
            shapes = f"{tuple(theta[name].shape)}, the optimizer needs {tuple(parameter.shape)}"
            raise ValueError(
                f"checkpoint {source} is of another architecture: {name} has shape {shapes}."
            )
