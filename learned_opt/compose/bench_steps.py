"""From a config of the bench to its measurements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from typing import Any

import torch
from omegaconf import DictConfig
from torch._inductor import config as inductor
from torch._inductor.utils import fresh_cache

from learned_opt.compose import hydra_job, inner_problems, meta_training, resolve
from learned_opt.compose.command_line import command
from learned_opt.compose.overlay import lay_over, nested
from learned_opt.core import device, errors
from learned_opt.core.errors import UsageError
from learned_opt.evaluation.cost import breakdown
from learned_opt.evaluation.cost.floor import Floor
from learned_opt.evaluation.cost.scaling import fit_exponent
from learned_opt.evaluation.cost.timing import OuterStep, Times, interleave
from learned_opt.reporting import cost_table
from learned_opt.reporting.cost_table import Key
from learned_opt.runtime.machine import describe_machine
from learned_opt.runtime.provenance import git_revision

SCALING_NOTES = """\
Exponents of power laws, 1 is linear: least squares on logarithms, standard errors from the scatter
around the line. Time of an inner step of all chains; peak bytes of one outer step, all chains;
first call, compilation included."""
SCALING_HEADINGS = ("grows", "optimizer", "sizes", "time", "peak bytes", "first call")
VERBS = ("table", "scaling")
MODES = ("eager", "compiled")
Progress = Callable[[str], None]  # takes a line about what is being measured


def configs_of_tasks(cfg: DictConfig) -> dict[str, DictConfig]:
    """The config of each task: the one on the command line, or all that the bench lists.

    Args:
        cfg: the composed config of the bench.
    """
    task = hydra_job.choice("task")
    if task:
        return {task: cfg}

    configs = {}
    for name in cfg.tasks:
        composed = hydra_job.recompose("bench", [*hydra_job.overrides(), f"+task={name}"])
        configs[name] = resolve.final(composed)
    return configs


def check(cfg: DictConfig) -> None:
    """Refuse what cannot be measured.

    Raises:
        UsageError: names the value.
    """
    if cfg.verb not in VERBS:
        raise UsageError(f"verb must be {' or '.join(VERBS)}, got {cfg.verb!r}.")

    counts = {
        "repeats": cfg.repeats,
        "scaling.repeats": cfg.scaling.repeats,
        "floor_steps": cfg.floor_steps,
    }
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name} must be at least 1, got {count}.")

    check_names("only", cfg.only, cfg.cases)
    check_names("scaling.only", cfg.scaling.only, cfg.cases)
    if unknown := sorted(set(cfg.modes) - set(MODES)):
        raise UsageError(f"modes must be eager or compiled, got {', '.join(unknown)}.")


def check_names(key: str, names: Any, known: Any, kind: str = "cases") -> None:
    """Refuse a list with names of which there are none.

    Args:
        key: of the list in the config.
        names: the list; None and an empty one stand for all.
        known: the names that there are.
        kind: what they are names of.

    Raises:
        UsageError: names the unknown ones, and those that there are.
    """
    if unknown := sorted(set(names or ()) - set(known)):
        raise UsageError(
            f"{key} must hold names of {kind} ({', '.join(known)}), got {', '.join(unknown)}."
        )


def facts(cfg: DictConfig) -> dict[str, Any]:
    """What a reader of the numbers needs beside them.

    Raises:
        ValueError: an unknown device.
    """
    return {
        "command": command(),
        "git": git_revision(),
        "date": date.today().isoformat(),
        "compile_cache": cfg.compile_cache,
        "machine": describe_machine(torch.device(device.resolve_device(cfg.device))),
    }


@contextmanager
def compiler(cfg: DictConfig) -> Iterator[None]:
    """Settings of the compiler while something is measured; forgets at the end what it compiled."""
    # an empty cache: the first call is timed with the compilation that a new machine needs
    cache = nullcontext() if cfg.compile_cache else fresh_cache()
    with cache, inductor.patch({"cpp.enable_kernel_profile": bool(cfg.profile)}):
        yield
    # what is compiled for one case neither helps nor hinders the next
    torch._dynamo.reset()


class TaskTable:
    """All cases of one task; ``rows`` is valid at any time, with what has been measured by then.

    Args:
        cfg: composed config, with the task.
        task: its name.
    """

    def __init__(self, cfg: DictConfig, task: str) -> None:
        self.cfg = cfg
        self.calls: dict[Key, OuterStep] = {}
        self.floors: dict[Key, Floor] = {}
        self.times: dict[Any, Times] = {}
        self.peaks: dict[Key, int] = {}
        self.shares: list[dict[str, Any]] = []

        for name in cfg.only or cfg.cases:
            for mode in cfg.modes:
                call = _outer_step(cfg, name, mode == "compiled")
                self.calls[Key(task, name, mode)] = call

            # one floor for all modes: its work is that of the shapes alone
            call = self.calls[Key(task, name, cfg.modes[0])]
            floor = Floor(call.unroll, call.theta, call.num_chains, cfg.floor_steps)
            self.floors[Key(task, name, "floor")] = floor

    def measure(self, progress: Progress) -> None:
        """Time everything, then measure the peaks, then the profile where it is asked for."""
        with compiler(self.cfg):
            interleave(self.floors | self.calls, self.cfg.repeats, self.times, progress)
            # after all timing, as the records of the allocator slow the calls down
            for key, call in self.calls.items():
                progress(f"peak memory: {key}")
                self.peaks[key] = call.peak_bytes()

            for key, call in self.calls.items():
                if self.cfg.profile and key.mode == "compiled":
                    progress(f"profile: {key}")
                    seconds = breakdown.breakdown(lambda call=call: call(0))
                    self.shares.append(breakdown.row(key.optimizer, seconds))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each case that has been timed."""
        rows = []
        for key, call in self.calls.items():
            if key in self.times and self.times[key].later:
                peak = self.peaks.get(key)
                steps, references = self.cfg.floor_steps, self.cfg.references
                rows.append(cost_table.make_row(key, call, self.times, peak, steps, references))
        return rows


def scaling(cfg: DictConfig, progress: Progress) -> Iterator[dict[str, Any]]:
    """Exponents of time, memory and compilation, for each axis and case.

    Args:
        cfg: composed config, with the task.
        progress: takes a line about what is being measured.

    Yields:
        dict: the axis, the optimizer, sizes and measurements, and the three exponents with their
        errors.

    Raises:
        UsageError: a size or value that does not fit.
    """
    for axis, node in cfg.scaling.axes.items():
        if len(node["sizes"]) != len(node["values"]):
            raise UsageError(f"scaling.axes.{axis} must have one size for each value.")
        for name in cfg.scaling.only or cfg.cases:
            measured = _measure_growth(cfg, str(axis), name, progress)
            exponents = {}
            with errors.usage_errors():
                for figure, costs in measured.items():
                    exponents[figure] = fit_exponent(list(node["sizes"]), costs)

            yield {
                "grows": axis,
                "optimizer": name,
                "sizes": " ".join(map(str, node["sizes"])),
                "measured": measured,
                **exponents,
            }


def _measure_growth(
    cfg: DictConfig, axis: str, case: str, progress: Progress
) -> dict[str, list[Any]]:
    """The three figures of one case at every size of an axis."""
    node = cfg.scaling.axes[axis]
    calls = {}
    for size, value in zip(node["sizes"], node["values"], strict=True):
        # short unrolls: growth is that of an inner step, and large sizes take long
        short = lay_over(cfg, nested("estimator.unroll_length", cfg.scaling.unroll_length))
        grown = lay_over(short, nested(node.key, value), new_keys=True)
        calls[size] = _outer_step(grown, case, compile=cfg.compile)

    times: dict[Any, Times] = {}
    with compiler(cfg):
        repeats = cfg.scaling.repeats
        interleave(calls, repeats, times, lambda text: progress(f"{axis}, {case}, {text}"))
        peaks = [call.peak_bytes() for call in calls.values()]

    return {
        "time": [times[size].typical for size in calls],
        "peak bytes": peaks,
        "first call": [times[size].first for size in calls],
    }


def _outer_step(cfg: DictConfig, case: str, compile: bool) -> OuterStep:
    """An outer step of one case, ready to be timed."""
    case_config = lay_over(cfg, {"compile": compile})
    problem = inner_problems.build_problem(case_config, case_config.cases[case], case)
    with errors.usage_errors():
        estimator = meta_training.build_estimator(
            case_config, case_config.estimator, problem.unroll
        )
    return OuterStep(estimator, problem.unroll)
