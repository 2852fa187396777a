"""Weight-space prediction: ``zoo build`` trains a zoo, ``zoo predict`` predicts success from it.

``zoo forecast`` predicts later weights, from a zoo of trajectories.
"""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files, trained_theta
from learned_opt.core.errors import UsageError

NETWORK = "network.safetensors"  # that a Nowcaster takes as its weights
VERBS = ("build", "predict", "forecast")


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="zoo")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Build the zoo in its folder, or go on building it; or train the predictors on it."""
    from rich.console import Console

    from learned_opt.compose import config_tree, resolve
    from learned_opt.core.errors import usage_errors

    trained_theta.refuse(cfg, "theta", "checkpoint")
    cfg = resolve.final(cfg)
    config_tree.print_if_asked(cfg, Console())
    act = {"build": _build, "predict": _predict, "forecast": _forecast}[cfg.verb]
    with usage_errors():
        act(cfg, Path(cfg.folder), Console())


def _build(cfg: DictConfig, folder: Path, console: Any) -> None:
    from learned_opt.compose import weight_zoo
    from learned_opt.evaluation.prediction.populate import populate
    from learned_opt.evaluation.prediction.zoo import read_zoo, settle
    from learned_opt.reporting.screens import plain_line

    print_line = plain_line(console)
    recipe, unroll_of, settings = weight_zoo.build_zoo(cfg)
    settle(folder, settings)
    print_line(f"zoo of {recipe.num_models} networks in {folder}")
    populate(folder, recipe, unroll_of, print_line)

    success = read_zoo(folder).table.success
    print_line(
        f"the zoo is complete: {len(success)} networks, {recipe.success} {success.min():.3f} to "
        f"{success.max():.3f}, median {success.median():.3f}"
    )


def _predict(cfg: DictConfig, folder: Path, console: Any) -> None:
    from learned_opt.compose import weight_zoo
    from learned_opt.evaluation.prediction.fit import prepare
    from learned_opt.evaluation.prediction.trials import run_trials
    from learned_opt.evaluation.prediction.zoo import read_settings, read_zoo
    from learned_opt.reporting import prediction_report
    from learned_opt.reporting.screens import plain_line
    from learned_opt.symmetry.spec import PermutationSpec

    if cfg.num_seeds < 1:
        raise ValueError(f"num_seeds must be at least 1, got {cfg.num_seeds}.")

    settings = read_settings(folder)
    if settings["recipe"].get("snapshot_every"):
        raise ValueError(f"{folder} holds trajectories: zoo forecast reads them.")
    zoo = read_zoo(folder)
    predictors, fit_settings = weight_zoo.build_predictors(cfg)

    for sentence in zoo.broken:
        console.print(f"left out: {sentence}", style="yellow", soft_wrap=True)

    spec = PermutationSpec(**settings["spec"])
    if {name: len(axes) for name, axes in spec.axes.items()} != zoo.num_axes:
        raise ValueError(f"spec in {folder / 'zoo.json'} is not that of the weights beside it.")
    gradients_of = weight_zoo.build_probe(cfg, settings["task"])
    # all sizes before the first training, so that a wrong one costs nothing
    train_sizes = weight_zoo.train_sizes(cfg)
    splits = [prepare(zoo, gradients_of, size) for size in train_sizes]
    sizes = {split: len(success) for split, (_, success) in splits[-1].items()}
    print_line = plain_line(console)
    print_line(f"{folder}: {len(zoo.table)} networks, {sizes}")

    probe = {"probe": cfg.probe, "seed": cfg.seed} if cfg.probe else {}
    trials = run_trials(
        folder,
        predictors,
        spec,
        splits,
        fit_settings,
        num_seeds=cfg.num_seeds,
        origin={"shards": sorted(set(zoo.table.sha256))} | probe,
        print_line=print_line,
    )

    facts = settings["task"] | settings["recipe"] | sizes
    facts |= {"seeds": cfg.num_seeds, "left out": len(zoo.broken), "probe": cfg.probe}
    success = splits[0]["test"][1]
    for table in prediction_report.write_report(folder, trials, facts, success):
        console.print(table)


def _forecast(cfg: DictConfig, folder: Path, console: Any) -> None:
    from hydra.utils import instantiate

    from learned_opt.core.files import write_json
    from learned_opt.deploy.nowcast_files import save_network
    from learned_opt.evaluation.prediction import forecast
    from learned_opt.evaluation.prediction.zoo import read_settings, read_zoo
    from learned_opt.reporting.tables import table_of

    settings = read_settings(folder)
    if not settings["recipe"].get("snapshot_every"):
        raise ValueError(f"{folder} holds no trajectories; zoo=trajectories builds them.")
    zoo = read_zoo(folder)
    for sentence in zoo.broken:
        console.print(f"left out: {sentence}", style="yellow", soft_wrap=True)

    network = forecast.train(zoo, instantiate(cfg.forecast))
    rows = forecast.heldout_errors(zoo, network)
    save_network(folder / NETWORK, network)
    write_json(folder / "forecast.json", rows)

    shown = []
    for row in rows:
        shown.append({name: f"{value:.4g}" for name, value in row.items()})
    console.print(table_of(list(rows[0]), shown))
    console.print("mean L1 of scaled weights on networks held out, by snapshots ahead")
    console.print(f"written to {folder}: {NETWORK}, forecast.json", highlight=False)


def main() -> None:
    """Entry point of the verb: the first word says what to do."""
    sys.argv[1:] = cli.answer(_with_keys, sys.argv[1:])
    cli.entry_point(run, needs_task=False)


def _with_keys(words: list[str]) -> list[str]:
    """The words with a key of the config in place of the verb.

    Raises:
        UsageError: no verb, or an unknown one.
    """
    # questions about the program need no verb
    if set(words) & set(cli.QUERIES):
        return words
    if not words or words[0] not in VERBS:
        raise UsageError(
            f"say what to do: python -m learned_opt zoo {', '.join(VERBS[:-1])} or {VERBS[-1]}, "
            "then KEY=VALUE as you like."
        )
    return [f"verb={words[0]}", *words[1:]]
