"""Run again an unroll that was not finite. ``python -m learned_opt replay=runs/.../replay/step12_task3.yaml``."""

import sys
from pathlib import Path

from learned_opt.commands import cli


def requested(arguments: list[str]) -> bool:
    """Whether a command line asks for a replay."""
    return any(word.startswith("replay=") for word in arguments)


def run() -> None:
    """Print the losses up to the first value that is not finite, and exit with 0 if there is one, else with 1.

    Further arguments change the recipe's config, e.g. ``compile=false device=cpu``.
    """
    from omegaconf import OmegaConf

    from learned_opt.compose import inner_problems
    from learned_opt.core import errors
    from learned_opt.training.recipe import load_recipe
    from learned_opt.training.replay import replay

    words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    with errors.usage_errors():
        recipe, tensors = load_recipe(Path(words.pop("replay")))
    cfg = OmegaConf.create(recipe.config)
    OmegaConf.set_struct(cfg, True)
    cfg.merge_with_dotlist([f"{key}={value}" for key, value in words.items()])
    problem = inner_problems.build_problem(cfg, cfg.meta_optimizer, "replayed")
    print(
        f"outer step {recipe.outer_step}, task {recipe.task}, copy {recipe.copy}: {recipe.unroll_length} inner steps"
    )
    with errors.usage_errors():
        found = replay(
            problem.unroll, recipe, tensors, lambda step, loss: print(f"{step:5d}  loss {loss:.6g}")
        )
    print(f"first not finite: {found}" if found else "not reproduced: every value stayed finite")
    sys.exit(0 if found else 1)


def main() -> None:
    """Entry point of ``python -m learned_opt replay=FILE``."""
    cli.entry_point(run, needs_task=False, hydra=False)
