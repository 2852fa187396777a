"""From the recipe of an unroll that was not finite to the problem that it belongs to."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from learned_opt.compose.inner_problems import Problem, build_problem


def build_replayed(config: dict[str, Any], words: Sequence[str]) -> Problem:
    """The problem of a recipe.

    Args:
        config: of the recipe.
        words: changes of it, such as ``device=cpu``.

    Raises:
        OmegaConfBaseException: a word names an unknown key.
        UsageError: what ``build_problem`` raises.
    """
    cfg = OmegaConf.create(config)
    # so that a misspelt key is refused and not added
    OmegaConf.set_struct(cfg, True)
    cfg.merge_with_dotlist(list(words))
    OmegaConf.set_readonly(cfg, True)
    return build_problem(cfg, cfg.meta_optimizer, "replayed")
