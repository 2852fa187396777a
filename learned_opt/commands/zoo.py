"""Weight-space prediction. ``python -m learned_opt zoo build`` trains a zoo, ``... predict`` predicts from it."""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files
from learned_opt.core import errors

VERBS = ("build", "predict")


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="zoo")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Build the zoo in its folder, or go on building it; or train the predictors on it."""
    from rich.console import Console

    from learned_opt.core import errors

    console, folder = Console(), Path(cfg.folder)
    with errors.usage_errors():
        (_build if cfg.verb == "build" else _predict)(cfg, folder, console)


def _build(cfg: DictConfig, folder: Path, console: Any) -> None:
    from learned_opt.compose import weight_zoo
    from learned_opt.evaluation.prediction.populate import populate
    from learned_opt.evaluation.prediction.zoo import read_zoo, settle

    recipe, unroll_of, settings = weight_zoo.build_zoo(cfg)
    settle(folder, settings)
    console.print(f"zoo of {recipe.num_models} networks in {folder}", highlight=False)
    populate(folder, recipe, unroll_of, lambda line: console.print(line, highlight=False))
    success = read_zoo(folder).table.success
    console.print(
        f"the zoo is complete: {len(success)} networks, {recipe.success} {success.min():.3f} to {success.max():.3f}, "
        f"median {success.median():.3f}",
        highlight=False,
    )


def _predict(cfg: DictConfig, folder: Path, console: Any) -> None:
    from time import perf_counter

    from learned_opt.compose import weight_zoo
    from learned_opt.core import tree
    from learned_opt.evaluation.prediction.fit import fit, prepare
    from learned_opt.evaluation.prediction.zoo import read_settings, read_zoo
    from learned_opt.reporting import prediction_report
    from learned_opt.reporting.tables import plain_table
    from learned_opt.symmetry.spec import PermutationSpec

    if cfg.num_seeds < 1:
        raise ValueError(f"num_seeds must be at least 1, got {cfg.num_seeds}.")
    made_of, zoo = read_settings(folder), read_zoo(folder)
    predictors, settings = weight_zoo.build_predictors(cfg)
    for sentence in zoo.broken:
        console.print(f"left out: {sentence}", style="yellow", soft_wrap=True)
    spec, data = PermutationSpec(**made_of.pop("spec")), prepare(zoo)
    sizes = {split: len(success) for split, (_, success) in data.items()}
    console.print(f"{folder}: {len(zoo.table)} networks, {sizes}", highlight=False)
    rows, predicted = [], {}
    for name, constructor in predictors.items():
        start = perf_counter()
        predictions = []
        for seed in range(cfg.num_seeds):
            predictions.append(fit(constructor, spec, data, settings, seed))
            console.print(f"{name}, seed {seed}: tau {predictions[-1].tau:.4f}", highlight=False)
        num_parameters = tree.num_elements(dict(constructor(spec).named_parameters()))
        rows.append(
            prediction_report.summarise(name, num_parameters, predictions, perf_counter() - start)
        )
        predicted[name] = predictions[0].predicted
    facts = {
        **made_of["task"],
        **made_of["recipe"],
        **sizes,
        "seeds": cfg.num_seeds,
        "left out": len(zoo.broken),
    }
    prediction_report.write_report(folder, rows, facts, data["test"][1], predicted)
    console.print(plain_table(prediction_report.HEADINGS, rows))


def main() -> None:
    """Entry point of ``python -m learned_opt zoo``: the first argument is the verb."""
    flags = [argument for argument in sys.argv[1:] if argument in cli.QUERIES]
    if not flags and (len(sys.argv) < 2 or sys.argv[1] not in VERBS):
        errors.fail(
            f"say what to do: python -m learned_opt zoo {' or '.join(VERBS)}, then KEY=VALUE as you like."
        )
    sys.argv[1:2] = sys.argv[1:2] if flags else [f"verb={sys.argv[1]}"]
    cli.entry_point(run, needs_task=False)


if __name__ == "__main__":
    main()
