"""From the recipe of an unroll that was not finite to the problem that it belongs to."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from learned_opt.compose.inner_problems import Problem, build_problem
from learned_opt.core.errors import usage_errors
from learned_opt.deploy.foreign_classes import AllowedClasses

NODES = ("task", "augment", "meta_optimizer", "benchmark")  # all that is built from a recipe
PACKAGES = (
    "tasks.",
    "learned_opt.optimizers.",
    "learned_opt.unf.",
    "learned_opt.evaluation.benchmark.",
)
# loaders of data are functions, and so are a schedule and what makes a ``ModuleTask``
FUNCTIONS = (
    "tasks.data.",
    "tasks.subleq.task.",
    "tasks.regression.",
    "tasks.unsupervised",  # the tasks and, in a module beside them, their losses
    "learned_opt.optimizers.schedule.",
)
NEEDED = ("task", "meta_optimizer", "benchmark", "seed", "device", "compile", "precision")


def build_replayed(
    config: dict[str, Any], words: Sequence[str], trust: tuple[str, ...] = ()
) -> Problem:
    """The problem of a recipe, which may come from anywhere: it can name classes of ours alone.

    Args:
        config: of the recipe; plain values, see ``load_recipe``.
        words: changes of it, such as ``device=cpu``.
        trust: modules of others whose classes the recipe may name.

    Raises:
        OmegaConfBaseException: a word names an unknown key.
        UsageError: the recipe names something else, lacks a part, and what ``build_problem``
            raises.
    """
    allowed = AllowedClasses(PACKAGES, object, FUNCTIONS, trust)
    with usage_errors():
        for key in NEEDED:
            if key not in config:
                raise ValueError(f"the config of the recipe lacks {key}.")
        for key in NODES:
            allowed.check(config.get(key), key)

    cfg = OmegaConf.create(config)
    # so that a misspelt key is refused and not added
    OmegaConf.set_struct(cfg, True)
    cfg.merge_with_dotlist(list(words))
    OmegaConf.set_readonly(cfg, True)
    return build_problem(cfg, cfg.meta_optimizer, "replayed")
