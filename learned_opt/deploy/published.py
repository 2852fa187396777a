"""Trained thetas in their authors' files: Celo, Celo-Adam and VeLO, as flax has written them.

The file alone tells which it is, by its arrays. What else is known of each stands in
``published_thetas/NAME.json``, laid out as a ``theta.json``.
"""

import hashlib
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from learned_opt.core import tree
from learned_opt.deploy import construct, plain_data
from learned_opt.deploy import published_layout as layouts
from learned_opt.deploy.flax_msgpack import Keys, read_arrays
from learned_opt.deploy.published_layout import Layout
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec

FOLDER = Path(__file__).with_name("published_thetas")
SUFFIX = ".state"
FILE = f"theta{SUFFIX}"  # what the authors call it
CHECKPOINT = "params"  # what VeLO's authors call it: theta is one of its members

log = logging.getLogger(__name__)


class Published(NamedTuple):
    """A theta from its authors' file.

    Args:
        theta: by the names of our meta-parameters.
        metadata: as of a ``theta.json``.
        num_numbers: in the file, those that never act included.
    """

    theta: dict[str, Tensor]
    metadata: dict[str, Any]
    num_numbers: int


def names() -> list[str]:
    """The optimizers whose authors' files are read."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def is_published(path: Path) -> bool:
    """Whether a file is read here, by its name."""
    return path.suffix == SUFFIX or path.name == CHECKPOINT


def read(path: Path) -> Published:
    """Read a theta, and see which optimizer it is of.

    Args:
        path: the file.

    Raises:
        ValueError: it is damaged, or of none of the optimizers.
    """
    arrays = read_arrays(path)
    if all(keys[0] == CHECKPOINT for keys in arrays):
        arrays = {keys[1:]: array for keys, array in arrays.items()}

    name, settings, layout = _recognised(arrays, path)
    _check(arrays, layout, f"{name} file {path}")
    arrays = {keys: array.float() for keys, array in arrays.items()}

    metadata = plain_data.read_json(FOLDER / f"{name}.json")
    metadata["meta_optimizer"] |= settings
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    metadata["provenance"] |= {"file": path.name, "sha256": digest}
    if digest not in metadata.pop("sha256"):
        _warn_of_unknown(path, name, digest)
        metadata["provenance"]["source"] = "not known"
    num_numbers = sum(array.numel() for array in arrays.values())
    return Published(_theta(arrays, name), metadata, num_numbers)


def load(name: str, path: Path) -> tuple[MetaOptimizer, dict[str, Any]]:
    """The optimizer of an authors' file, and its metadata.

    Args:
        name: of the optimizer.
        path: its file.

    Raises:
        ValueError: the name is not known here, or the file is missing, damaged or of another
            optimizer.
    """
    if name not in names():
        raise ValueError(
            f"weights are files of {', '.join(names())}; {name!r} brings its theta itself."
        )
    if not path.is_file():
        raise ValueError(f"weights must be a file of {name}, but there is none at {path}.")
    theta, metadata, _ = read(path)
    if name != metadata["optimizer_name"]:
        raise ValueError(
            f"weights {path} must be of {name!r}, they are of {metadata['optimizer_name']!r}."
        )

    spec, *_ = metadata["specs"].values()
    optimizer = construct.build(metadata["meta_optimizer"], PermutationSpec(**spec))
    optimizer.load_state_dict(theta)
    return optimizer, metadata


@cache
def _warn_of_unknown(path: Path, name: str, digest: str) -> None:
    """Say once that a file may be anybody's."""
    log.warning("%s is no %s file that is known: its sha256 is %s", path, name, digest)


def _recognised(arrays: Mapping[Keys, Tensor], path: Path) -> tuple[str, dict[str, int], Layout]:
    """Name, sizes where they may vary, and all that the file must hold."""
    parts = {keys[0] for keys in arrays}
    if parts == {layouts.LSTM, "lstm_init_state"}:
        return "celo_adam", {}, layouts.scheduler_layout(layouts.STAGE_INPUTS, 64, None)

    inputs = arrays.get((layouts.LSTM, "linear_1", "w"))
    bank = arrays.get((*layouts.MLP, "b0"))
    if inputs is None or bank is None or inputs.ndim != 2 or bank.ndim != 2:
        raise ValueError(
            f"{path} must hold the theta of {', '.join(names())}, it holds "
            f"{', '.join(sorted(parts)) or 'no arrays'}."
        )

    num_inputs, hidden_size = inputs.shape
    if num_inputs == layouts.STAGE_INPUTS:
        layout = layouts.scheduler_layout(num_inputs, 64, 1) | layouts.bank_layout(1)
        return "celo", {}, layout
    bank_size = len(bank)
    layout = layouts.scheduler_layout(30, hidden_size, bank_size) | layouts.bank_layout(bank_size)
    return "velo", {"lstm_size": hidden_size, "bank_size": bank_size}, layout


def _check(arrays: Mapping[Keys, Tensor], layout: Layout, source: str) -> None:
    expected = [" ".join(keys) for keys in layout]
    if keys := tree.difference(expected, [" ".join(keys) for keys in arrays]):
        raise ValueError(f"{source} must hold other arrays: {keys}.")
    for keys, shape in layout.items():
        if arrays[keys].shape != shape:
            label = " ".join(keys)
            raise ValueError(
                f"{label} of {source} must have shape {shape}, got {tuple(arrays[keys].shape)}."
            )


def _theta(arrays: Mapping[Keys, Tensor], name: str) -> dict[str, Tensor]:
    theta = layouts.scheduler_theta(arrays)
    if name == "celo":
        theta |= layouts.function_theta(arrays)
    elif name == "velo":
        theta |= layouts.controls_theta(arrays) | layouts.bank_theta(arrays)
    return {key: tensor.contiguous() for key, tensor in theta.items()}
