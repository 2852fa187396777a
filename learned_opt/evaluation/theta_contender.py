"""An optimizer to compare, from the files of its theta."""

import hashlib
from pathlib import Path
from typing import Any

from learned_opt.deploy import construct, hub, metadata_schema
from learned_opt.deploy.weights import build_trained, load_metadata, load_theta
from learned_opt.evaluation.setting import Contender
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec

# parts of a theta.json without which no table could name an optimizer and what it has seen
NEEDED = ("optimizer_name", "meta_optimizer", "specs", "tasks", "provenance")
Metadata = dict[str, Any]  # content of a theta.json


def find_theta(source: str | Path) -> tuple[Path, Metadata]:
    """The file that a name stands for, and what its ``theta.json`` says.

    Args:
        source: as ``hub.find`` takes it.

    Raises:
        ValueError: nothing has that name, or the description lacks a part.
        ConnectionError: the hub cannot be reached.
    """
    path = hub.find(source)
    metadata = load_metadata(path)
    metadata_schema.require(metadata, NEEDED, str(path.with_suffix(".json")))
    return path, metadata


def theta_contender(name: str, path: Path, metadata: Metadata, trust: tuple[str, ...]) -> Contender:
    """The learned optimizer of a theta.

    Args:
        name: in tables.
        path: the safetensors file.
        metadata: from ``find_theta``.
        trust: modules of others that the metadata may name.

    Raises:
        ValueError: the files are damaged, or do not belong together.
    """
    # cells are found by this digest, so that another theta of the same name has its own
    theta = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    identity = {"config": metadata["meta_optimizer"], "theta": theta}
    return Contender(name, _TrainedConstructor(path, metadata, trust), identity, metadata)


class _TrainedConstructor:
    """Constructor of a learned optimizer with its theta.

    It refuses weight spaces that theta does not fit. Files may come from anywhere: classes that are
    not of this project are imported only from modules that the user trusts.
    """

    def __init__(self, path: Path, metadata: Metadata, trust: tuple[str, ...]) -> None:
        self.path = path
        self.node = metadata["meta_optimizer"]
        self.trust = trust
        build_trained(path, metadata, trust)  # a damaged file is found before anything is run

    def __call__(self, spec: PermutationSpec) -> MetaOptimizer:
        optimizer = construct.build(self.node, spec, self.trust)
        load_theta(self.path, optimizer)
        return optimizer
