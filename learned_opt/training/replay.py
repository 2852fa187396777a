"""Recipes of unrolls that were not finite: written while meta-training runs, run again by ``replay=FILE``.

A recipe is a YAML file with a safetensors file beside it, and needs nothing else of its run.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.func import grad

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.estimators.base import GradientEstimator
from learned_opt.estimators.population import Launch
from learned_opt.inner.unroll import Chains, Unroll

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """One chain's unroll.

    Args:
        outer_step: in which it ran.
        task: number of the task among those of the estimate, all processes together.
        copy: number of the chain among those of the task; in antithetic pairs 0 has theta + eps, 1 has theta - eps.
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


class Recorder:
    """Writes ``step{n}_task{i}.yaml`` for every task that was not finite, until there are enough.

    Args:
        folder: where to; made when needed.
        estimator: whose unrolls they are.
        config: of the run, resolved.
        max_recipes: files that the folder may hold; the log says how many more there would have been.

    Raises:
        ValueError: the number is negative.
    """

    def __init__(
        self, folder: Path, estimator: GradientEstimator, config: dict[str, Any], max_recipes: int
    ) -> None:
        if max_recipes < 0:
            raise ValueError(f"max_replays must not be negative, got {max_recipes}.")
        self.folder, self.estimator, self.config, self.max_recipes = (
            folder,
            estimator,
            config,
            max_recipes,
        )
        self.num_left_out = 0

    def record(self, launch: Launch, finite: Tensor, outer_step: int) -> None:
        """Write what did not stay finite.

        Args:
            launch: what the unroll started from.
            finite: ``(R, N)`` bool.
            outer_step: its number.
        """
        for place in (~finite.all(0)).nonzero().flatten().tolist():
            if len(list(self.folder.glob("*.yaml"))) >= self.max_recipes:
                self.num_left_out += 1
                continue
            task, copy = launch.tasks[place], int(finite[:, place].int().argmin())
            path = self._write(launch, outer_step, task, copy, copy * finite.shape[1] + place)
            log.warning(
                "outer step %d: task %d is not finite; replay=%s shows where",
                outer_step,
                task,
                path,
            )

    def summarise(self) -> None:
        """Say how many recipes were not written."""
        if self.num_left_out:
            log.warning(
                "%d more unrolls were not finite and have no recipe in %s",
                self.num_left_out,
                self.folder,
            )

    def _write(self, launch: Launch, outer_step: int, task: int, copy: int, chain: int) -> Path:
        population = self.estimator.population
        recipe = Recipe(
            outer_step,
            task,
            copy,
            launch.root,
            population.unroll_length,
            population.meta_loss.split,
            self.estimator.backpropagates,
            self.config,
        )
        start = {"theta": launch.theta, "chain": launch.state["chains"]}
        own = {
            name: leaf[chain].detach().cpu().contiguous()
            for name, leaf in tree.flatten(start).items()
        }
        path = self.folder / f"step{outer_step}_task{task}.yaml"
        self.folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".safetensors").write_bytes(save(own))
        path.write_text(yaml.safe_dump(asdict(recipe), sort_keys=False))
        return path


def load_recipe(path: Path) -> tuple[Recipe, dict[str, Tensor]]:
    """Read a recipe and its tensors.

    Raises:
        ValueError: a file is missing, damaged, or not a recipe.
    """
    beside = path.with_suffix(".safetensors")
    for file in (path, beside):
        if not file.is_file():
            raise ValueError(
                f"replay must be a recipe with its tensors beside it, but there is no file {file}."
            )
    try:
        return Recipe(**yaml.safe_load(path.read_text())), load_file(beside)
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{path} is no recipe of an unroll.") from error
    except SafetensorError as error:
        raise ValueError(f"{beside} is damaged: {error}.") from error


def replay(
    unroll: Unroll, recipe: Recipe, tensors: dict[str, Tensor], show: Callable[[int, float], None]
) -> str:
    """Run the unroll of a recipe up to the first value that is not finite.

    Args:
        unroll: the inner loop of the recipe's config.
        recipe: which unroll.
        tensors: what it starts from.
        show: is called with the number and the loss of every inner step.

    Returns:
        str: where which tensor was not finite; empty if all stayed finite.

    Raises:
        ValueError: the tensors do not fit the config.
    """
    chains, keys = unroll.start([("replay",)]), [(recipe.root, recipe.task)]
    like = {
        "theta": {name: p[None] for name, p in unroll.optimizer.named_parameters()},
        "chain": chains,
    }
    given = {name: leaf[None].to(unroll.device) for name, leaf in tensors.items()}
    if differing := tree.difference(list(tree.flatten(like)), list(given)):
        raise ValueError(f"the recipe's tensors do not fit its config: {differing}.")
    start = tree.unflatten(given, like)
    streams = [unroll.batches(keys, chains, recipe.unroll_length)]
    if recipe.split != "train":
        streams.append(unroll.batches(keys, chains, recipe.unroll_length, recipe.split))
    found = _replay_forward(unroll, start["theta"], start["chain"], streams, show)
    if found or not recipe.backpropagates:
        return found
    return _replay_backward(unroll, start["theta"], start["chain"], streams)


@torch.no_grad()
def _replay_forward(
    unroll: Unroll,
    theta: Tree,
    chains: Chains,
    streams: list[Tree],
    show: Callable[[int, float], None],
) -> str:
    for k in range(len(tree.leaves(streams[0])[0])):
        now = [tree.tree_map(lambda leaf, k=k: leaf[k : k + 1], stream) for stream in streams]
        losses, after = unroll.run(theta, chains, now[0], measured=now[1] if now[1:] else None)
        show(k, losses.item())
        if not losses.isfinite().all():
            return f"loss in inner step {k}"
        if _first_nonfinite(after["params"]):
            params, batch, task = (
                tree.tree_map(_one, part) for part in (chains["params"], now[0], chains["task"])
            )
            gradient = grad(unroll.family.loss)(params, batch, task)
            causes = {
                "gradient": gradient,
                "opt_state": after["opt_state"],
                "params": after["params"],
            }
            return f"{_first_nonfinite(causes)} in inner step {k}"
        chains = after
    return ""


def _replay_backward(unroll: Unroll, theta: Tree, chains: Chains, streams: list[Tree]) -> str:
    own = tree.tree_map(lambda leaf: leaf.clone().requires_grad_(), theta)
    losses, _ = unroll.run(own, chains, streams[0], True, streams[1] if streams[1:] else None)
    gradients = torch.autograd.grad(
        losses.sum(), tree.leaves(own), allow_unused=True, materialize_grads=True
    )
    name = _first_nonfinite(dict(zip(own, gradients, strict=True)))
    return f"gradient of the summed losses by theta's {name}" if name else ""


def _one(leaf: Tensor) -> Tensor:
    return leaf[0]


def _first_nonfinite(values: Tree) -> str:
    return next(
        (name for name, leaf in tree.flatten(values).items() if not leaf.isfinite().all()), ""
    )
