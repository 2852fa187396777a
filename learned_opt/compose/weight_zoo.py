"""From a composed config to what a zoo of networks and its predictors are made of."""

import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from learned_opt.compose.inner_problems import parametrised
from learned_opt.compose.resolve import task_values
from learned_opt.core.device import resolve_device
from learned_opt.core.tree import Tree
from learned_opt.evaluation.prediction.fit import Settings
from learned_opt.evaluation.prediction.populate import Recipe
from learned_opt.evaluation.prediction.probe import probe_gradients
from learned_opt.evaluation.prediction.trials import Predictor
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.inner.unroll import Unroll
from learned_opt.runtime.memory import keep_freed_memory


def build_zoo(cfg: DictConfig) -> tuple[Recipe, Callable[[int], Unroll], dict[str, Any]]:
    """What a zoo is made of.

    Returns:
        tuple: the recipe, the inner loop for each batch size, and the settings that ``zoo.json``
        holds.

    Raises:
        ValueError: a value is out of its range.
    """
    keep_freed_memory()
    device = resolve_device(cfg.device)
    recipe = instantiate(cfg.recipe)
    family = parametrised(cfg, instantiate(task_values(cfg)))
    _, spec = symmetry_of(family)
    optimizer = instantiate(cfg.optimizer)

    @cache
    def unroll_of(batch_size: int) -> Unroll:
        resized = parametrised(cfg, instantiate(task_values(cfg), batch_size=batch_size))
        return Unroll(resized, optimizer(spec).to(device), cfg.compile, device)

    task = dict(family.describe())
    # each shard draws a batch size of its own
    task.pop("batch_size", None)
    return recipe, unroll_of, {"task": task, "recipe": recipe.as_dict(), "spec": spec.as_dict()}


def build_probe(cfg: DictConfig, task: Mapping[str, Any]) -> Callable[[Tree], Tree] | None:
    """What takes gradients of the networks of a zoo on a batch of ``probe`` examples.

    Args:
        cfg: composed config.
        task: of the zoo, as ``zoo.json`` holds it.

    Returns:
        Callable[[Tree], Tree] | None: weights -> gradients, leaves ``(M, *shape)``; None where
        ``probe`` is 0.

    Raises:
        ValueError: ``probe`` is negative, or the task that is composed is not that of the zoo.
    """
    if cfg.probe < 0:
        raise ValueError(f"probe must be at least 0, got {cfg.probe}.")
    if cfg.probe == 0:
        return None

    family = parametrised(cfg, instantiate(task_values(cfg), batch_size=cfg.probe))
    composed = json.loads(json.dumps(family.describe()))  # as the file has it: tuples are lists
    composed.pop("batch_size", None)
    different = [key for key in composed if composed[key] != task.get(key)]
    if different:
        raise ValueError(
            f"the task that is composed is not that of the zoo: {', '.join(different)} differ."
        )
    return partial(probe_gradients, family, seed=cfg.seed)


def train_sizes(cfg: DictConfig) -> list[int | None]:
    """How many networks predictors are trained on, from few to many; None for all there are.

    Raises:
        ValueError: ``train_sizes`` is no list of whole numbers.
    """
    sizes = cfg.train_sizes
    is_list = isinstance(sizes, ListConfig)
    if not is_list or any(not isinstance(size, int) or size is True for size in sizes):
        raise ValueError(f"train_sizes must be a list of whole numbers, got {sizes!r:.60}.")
    return sorted(set(sizes)) or [None]


def build_predictors(cfg: DictConfig) -> tuple[list[Predictor], Settings]:
    """The predictors, and how they are trained."""
    keep_freed_memory()
    predictors = []
    for name, config in cfg.predictors.items():
        plain: Any = OmegaConf.to_container(config, resolve=True)
        predictors.append(Predictor(str(name), instantiate(config), plain))
    return predictors, instantiate(cfg.fit)
