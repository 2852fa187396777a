"""Throughput of meta-training, eager and compiled. ``python -m learned_opt.bench``."""

import sys
import time
from pathlib import Path
from statistics import median

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from learned_opt import cli

HEADINGS = ("optimizer", "theta", "eager", "compiled", "compiled / eager", "floor", "compiled / floor", "first call")
UNITS = (
    "Inner steps per second, median of {repeats} interleaved outer steps; first call in seconds, compilation included."
)


@hydra.main(version_base="1.3", config_path=cli.config_dir(), config_name="bench")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Time every case in both modes, in turn."""
    from rich.console import Console

    from learned_opt.evaluation import tables

    console, folder = Console(), Path(HydraConfig.get().runtime.output_dir)
    if cfg.repeats < 1:
        cli.fail(f"repeats must be at least 1, got {cfg.repeats}.")
    runners = {(name, mode): _Runner(cfg, name, mode) for name in cfg.cases for mode in ("eager", "compiled")}
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in runners}
    first = {}
    for repeat in range(cfg.repeats + 1):  # the first round compiles and warms up
        console.print(f"round {repeat} of {cfg.repeats}")
        for key, runner in runners.items():
            start = time.perf_counter()
            steps = runner(repeat)
            seconds = time.perf_counter() - start
            first.setdefault(key, seconds)
            rates[key].append(steps / seconds)
    medians = {key: median(values[1:]) for key, values in rates.items()}
    rows = [_row(name, cfg.floor[name], medians, first, runners) for name in cfg.cases]
    tables.write_json(folder / "bench.json", rows)
    page = tables.markdown_table(HEADINGS, ([str(row[heading]) for heading in HEADINGS] for row in rows))
    units = UNITS.format(repeats=cfg.repeats)
    (folder / "bench.md").write_text(f"{page}\n\n{units}\n")
    console.print(tables.plain_table(HEADINGS, rows))
    console.print(units, highlight=False)


class _Runner:
    """One optimizer in one mode: call it with a step number to run one outer step; returns the inner steps it took."""

    def __init__(self, cfg: DictConfig, name: str, mode: str) -> None:
        from learned_opt import build

        own = cfg.copy()
        own.compile = mode == "compiled"
        self.problem = build.build_problem(own, cfg.cases[name], name)
        self.estimator = build.build_estimator(own, own.estimator, self.problem.unroll)
        self.theta = {k: p.detach() for k, p in self.problem.optimizer.named_parameters()}
        self.state = None

    def __call__(self, step: int) -> int:
        from learned_opt.rng import generator

        if self.state is None:
            self.state = self.estimator.init_state(self.theta, generator("bench"))
        estimate, self.state = self.estimator.estimate(self.theta, self.state, generator("bench", step))
        estimate.meta_loss.item()  # waits for the device
        return estimate.num_inner_steps


def _row(name: str, floor: float, medians: dict, first: dict, runners: dict) -> dict[str, object]:
    eager, compiled = medians[name, "eager"], medians[name, "compiled"]
    values = (
        name,
        runners[name, "eager"].problem.num_theta,
        round(eager),
        round(compiled),
        round(compiled / eager, 2),
        floor,
        round(compiled / floor, 2),
        round(first[name, "compiled"], 1),
    )
    return dict(zip(HEADINGS, values, strict=True))


def main() -> None:
    """Entry point of ``python -m learned_opt.bench``; the MLP task unless another is given."""
    if not any(argument.startswith("+task=") for argument in sys.argv):
        sys.argv.append("+task=mlp")
    cli.entry_point(run)


if __name__ == "__main__":
    main()
