"""Recipe files: everything that it takes to run one unroll again.

A recipe is a YAML file with a safetensors file beside it, and needs nothing else of its run.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from learned_opt.core.files import write_text, write_whole
from learned_opt.deploy.plain_data import read_yaml, refuse_references, shown

FORMAT = 2  # 1 had no number, and its configs name classes where they are no more

MAX_NUMBER = 2**31  # of steps, tasks and chains
KINDS = {
    "outer_step": int,
    "task": int,
    "copy": int,
    "root": int,
    "unroll_length": int,
    "split": str,
    "backpropagates": bool,
    "config": dict,
}


@dataclass(frozen=True)
class Recipe:
    """One chain's unroll.

    Args:
        outer_step: in which it ran, from 0.
        task: number of the task among those of the estimate, all processes together.
        copy: number of the chain among those of the task; in antithetic pairs 0 has theta + eps,
            1 has theta - eps.
        root: key of the draws; the batches are those of ``(root, task)``.
        unroll_length: inner steps.
        split: batches on which the losses are taken.
        backpropagates: whether the estimator takes gradients through the unroll.
        config: of the run, resolved.
    """

    outer_step: int
    task: int
    copy: int
    root: int
    unroll_length: int
    split: str
    backpropagates: bool
    config: dict[str, Any]


def recipe_path(folder: Path, outer_step: int, task: int) -> Path:
    """The name of the recipe of a task's unroll."""
    return folder / f"step{outer_step}_task{task}.yaml"


def recipe_files(folder: Path) -> list[Path]:
    """The recipes that a folder holds."""
    return sorted(folder.glob("step*_task*.yaml"))


def write_recipe(folder: Path, recipe: Recipe, tensors: dict[str, Tensor]) -> Path:
    """Write a recipe; returns its file.

    Args:
        folder: where to; made when needed.
        recipe: which unroll.
        tensors: theta and the chain before the unroll, as ``load_recipe`` returns them.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    path = recipe_path(folder, recipe.outer_step, recipe.task)
    on_cpu = {name: leaf.detach().cpu().contiguous() for name, leaf in tensors.items()}

    # the recipe comes last, so that where there is one there are tensors
    write_whole(path.with_suffix(".safetensors"), save(on_cpu))
    write_text(path, yaml.safe_dump({"format": FORMAT, **asdict(recipe)}, sort_keys=False))
    return path


def load_recipe(path: Path) -> tuple[Recipe, dict[str, Tensor]]:
    """Read a recipe and its tensors.

    Raises:
        ValueError: a file is missing, damaged, not a recipe, or of another format.
    """
    beside = path.with_suffix(".safetensors")
    for file in (path, beside):
        if not file.is_file():
            raise ValueError(f"a recipe has its tensors beside it, but there is no file {file}.")

    try:
        values = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"{path} is no recipe of an unroll: {error}") from error
    recipe = _checked(values, path)

    try:
        tensors = load(beside.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{beside} is damaged: {error}.") from error
    return recipe, tensors


def _checked(values: Any, path: Path) -> Recipe:
    names = {field.name for field in fields(Recipe)}
    if not isinstance(values, dict) or set(values) - {"format"} != names:
        raise ValueError(f"{path} is no recipe of an unroll.")

    settings = dict(values)
    version = settings.pop("format", 1)
    if not isinstance(version, int):
        raise ValueError(f"format of recipe {path} must be a whole number, got {shown(version)}.")
    if version != FORMAT:
        raise ValueError(
            f"recipe {path} has format {version}, this version reads {FORMAT}; replay it with "
            "the version that wrote it."
        )

    for key, kind in KINDS.items():
        value = settings[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(
                f"{key} of recipe {path} must be of type {kind.__name__}, got {shown(value)}."
            )
        # a root is a key of random draws and may be any number
        if kind is int and key != "root" and not 0 <= value <= MAX_NUMBER:
            raise ValueError(
                f"{key} of recipe {path} must lie between 0 and {MAX_NUMBER}, got {shown(value)}."
            )
    refuse_references(settings["config"], f"config of recipe {path}")
    return Recipe(**settings)
