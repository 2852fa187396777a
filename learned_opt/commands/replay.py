"""Run again an unroll that was not finite."""

import sys
from pathlib import Path

from learned_opt.commands import cli

DESCRIPTION = """\
Prints the losses of an unroll that was not finite, up to the first such value, and where that is.
The exit code is 0 where there is one, 1 where every value stays finite.

The recipe may come from anywhere: it can name classes of this project alone, and those of modules
that trust=MODULE,MODULE names."""


def run() -> None:
    """Replay the recipe that the command line names, and exit with what came of it."""
    parser = cli.Parser("replay", DESCRIPTION)
    parser.add_argument("file", metavar="FILE", type=Path, help="a recipe, replay/*.yaml of a run")
    parser.add_argument(
        "changes", metavar="KEY=VALUE", nargs="*", help="changes of the config in the recipe"
    )

    arguments = parser.parse_args()
    for word in arguments.changes:
        if "=" not in word:
            parser.error(f"changes must look like KEY=VALUE, got {word!r}")

    from learned_opt.compose.replayed import build_replayed
    from learned_opt.core.errors import usage_errors
    from learned_opt.deploy.foreign_classes import trusted_modules
    from learned_opt.training.recipe import load_recipe
    from learned_opt.training.replay import replay

    changes = []
    modules = []
    for word in arguments.changes:
        key, _, value = word.partition("=")
        if key == "trust":  # the user says it here, and no file can
            modules.extend(value.strip("[]").split(","))
        else:
            changes.append(word)

    with usage_errors():
        trust = trusted_modules(modules)
        recipe, tensors = load_recipe(arguments.file)

    problem = build_replayed(recipe.config, changes, trust)
    unroll = f"{recipe.unroll_length} inner steps"
    print(f"outer step {recipe.outer_step}, task {recipe.task}, copy {recipe.copy}: {unroll}")

    with usage_errors():
        cause = replay(problem.unroll, recipe, tensors, _print_loss)

    print(f"first not finite: {cause}" if cause else "not reproduced: every value stayed finite")
    sys.exit(0 if cause else 1)


def _print_loss(step: int, loss: float) -> None:
    print(f"{step:5d}  loss {loss:.6g}")


def main() -> None:
    """Entry point of the verb."""
    cli.entry_point(run, needs_task=False, hydra=False)
