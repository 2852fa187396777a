"""Writes recipes of unrolls that were not finite, which ``replay`` runs again."""

import logging
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from learned_opt.estimators.chain_estimator import ChainEstimator
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.inner_problem import InnerProblem
from learned_opt.training.nonfinite import NonfiniteUnrolls
from learned_opt.training.recipe import Recipe, recipe_files, write_recipe
from learned_opt.training.trainer import meta_trainer

log = logging.getLogger(__name__)


class ReplayRecipes(Callback):
    """Writes ``replay/step{n}_task{i}.yaml`` for tasks that were not finite, up to a number.

    In a mix, each task has a folder of its own below ``replay``. Every rank writes those of its
    own tasks.

    Args:
        max_recipes: files that such a folder may hold; the log tells how many more there would
            have been.

    Raises:
        ValueError: it is negative.
    """

    def __init__(self, max_recipes: int) -> None:
        if max_recipes < 0:
            raise ValueError(f"max_recipes must not be negative, got {max_recipes}.")
        self.max_recipes = max_recipes
        self.num_left_out: dict[Path, int] = {}

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        module = meta_trainer(pl_module)
        folder = RunFolder(Path(trainer.default_root_dir)).replays
        for label, unrolls in module.nonfinite.items():
            problem = module.problems.get(label)
            if problem is None or not isinstance(problem.estimator, ChainEstimator):
                continue  # nothing from which a replay could build the task, or run its unroll
            self.record(folder / label, problem, unrolls, trainer.global_step - 1)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for folder, count in self.num_left_out.items():
            log.warning("%d more unrolls were not finite and have no recipe in %s", count, folder)

    def record(
        self, folder: Path, problem: InnerProblem, unrolls: NonfiniteUnrolls, outer_step: int
    ) -> None:
        """Write the recipes of an outer step.

        Args:
            folder: where to; made when needed.
            problem: whose unrolls they are.
            unrolls: what did not stay finite.
            outer_step: its number, from 0.

        Raises:
            OSError: the disk is full, or the folder cannot be written to.
        """
        for row, task in enumerate(unrolls.tasks):
            if len(recipe_files(folder)) >= self.max_recipes:
                self.num_left_out[folder] = self.num_left_out.get(folder, 0) + 1
                continue

            recipe = _recipe(problem, unrolls, row, outer_step)
            tensors = {name: leaf[row] for name, leaf in unrolls.tensors.items()}
            path = write_recipe(folder, recipe, tensors)
            log.warning(
                "outer step %d: task %d is not finite; python -m learned_opt replay %s tells more",
                outer_step,
                task,
                path,
            )


def _recipe(problem: InnerProblem, unrolls: NonfiniteUnrolls, row: int, outer_step: int) -> Recipe:
    estimator = problem.estimator
    assert isinstance(estimator, ChainEstimator), "others have no unrolls to be replayed"
    return Recipe(
        outer_step=outer_step,
        task=unrolls.tasks[row],
        copy=unrolls.copies[row],
        root=unrolls.root,
        unroll_length=estimator.unroll_length,
        split=estimator.population.meta_loss.split,
        backpropagates=estimator.backpropagates,
        config=problem.config,
    )
