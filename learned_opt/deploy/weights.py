"""A trained theta on disk: numbers in ``theta.safetensors``, how to use them in ``theta.json``."""

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
from learned_opt.deploy.construct import with_current_names
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.symmetry.spec import PermutationSpec

FORMAT = 2  # version of the pair of files; raised when an older reader would misread it


def save_theta(folder: Path, theta: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Write ``theta.safetensors`` and then ``theta.json``.

    A kill at any moment leaves no theta beside the description of another one: that description is
    removed first, so that a theta without one is left, which ``load_metadata`` refuses. Where theta
    stays as it is, only its description is replaced, in one move.

    Args:
        folder: of the run, or of an export; made where it is missing.
        theta: meta-parameters by name.
        metadata: JSON-serialisable: the config of the ``MetaOptimizer``, specs, provenance,
            evaluation.

    Returns:
        Path: the safetensors file.
    """
    files = RunFolder(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in theta.items()}
    content = save(tensors)
    # a config may hold infinity (a limit that is off), which the strict write_json would refuse
    text = json.dumps({"format": FORMAT, **metadata}, indent=1) + "\n"

    if not (files.theta.is_file() and files.theta.read_bytes() == content):
        files.theta_metadata.unlink(missing_ok=True)
    write_whole(files.theta, content)
    write_text(files.theta_metadata, text)
    return files.theta


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
        specs = {task: metadata["spec"]}
        metadata = {**metadata, "specs": specs, "tasks": {task: metadata["task"]}}
    elif metadata.get("format") != FORMAT:
        raise ValueError(
            f"{beside} has format {metadata.get('format')!r}, this version reads {FORMAT}."
        )

    # here, so that those who build it through Hydra see the names of today, too
    if "meta_optimizer" in metadata:
        metadata["meta_optimizer"] = with_current_names(metadata["meta_optimizer"])
    return metadata


def load_theta(path: Path, optimizer: MetaOptimizer) -> None:
    """Load a theta file into an optimizer.

    Args:
        path: the safetensors file, with its JSON beside it.
        optimizer: built for a weight space that theta was trained on, or that it can move to.

    Raises:
        ValueError: the file is damaged or of another architecture; names the keys or shapes that
            differ.
    """
    _check_weight_space(path, optimizer)

    try:
        theta = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"checkpoint {path} is damaged: {error}.") from error

    check_theta(optimizer, theta, str(path))
    with torch.no_grad():
        for name, parameter in optimizer.named_parameters():
            parameter.copy_(theta[name])


def _check_weight_space(path: Path, optimizer: MetaOptimizer) -> None:
    """Check that theta was trained on the optimizer's weight space, or can move between both."""
    specs = [PermutationSpec(**spec) for spec in load_metadata(path)["specs"].values()]
    expected = list(optimizer.spec.axes)
    differences = [tree.difference(expected, list(spec.axes)) for spec in specs]
    if not all(differences):
        return

    try:
        optimizer.rebind(specs[0])
    except ValueError as error:
        raise ValueError(
            f"checkpoint {path} is of another network, its parameters differ: {differences[0]}."
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
        raise ValueError(f"checkpoint {source} is of another architecture: {keys}.")

    for name, parameter in parameters.items():
        if parameter.shape != theta[name].shape:
            shapes = f"{tuple(theta[name].shape)}, the optimizer needs {tuple(parameter.shape)}"
            raise ValueError(
                f"checkpoint {source} is of another architecture: {name} has shape {shapes}."
            )
