"""From a config of the bench to its measurements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch._inductor import config as inductor
from torch._inductor.utils import fresh_cache

from learned_opt.compose import inner_problems, meta_training
from learned_opt.compose.command_line import command
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
Exponents of power laws, 1 is linear: least squares on logarithms, standard errors from the scatter around the line.
Time of an inner step of all chains; peak bytes of one outer step, all chains; first call, compilation included."""
SCALING_HEADINGS = ("grows", "optimizer", "sizes", "time", "peak bytes", "first call")
Say = Callable[[str], None]


def check(cfg: DictConfig) -> None:
    """Refuse what cannot be measured.

    Raises:
        UsageError: names the value.
    """
    for name, count in (
        ("repeats", cfg.repeats),
        ("scaling.repeats", cfg.scaling.repeats),
        ("floor_steps", cfg.floor_steps),
    ):
        if count < 1:
            raise UsageError(f"{name} must be at least 1, got {count}.")
    for name, only in (("only", cfg.only), ("scaling.only", cfg.scaling.only)):
        if unknown := sorted(set(only or ()) - set(cfg.cases)):
            raise UsageError(
                f"{name} must hold names of cases ({', '.join(cfg.cases)}), got {', '.join(unknown)}."
            )
    if unknown := sorted(set(cfg.modes) - {"eager", "compiled"}):
        raise UsageError(f"modes must be eager or compiled, got {', '.join(unknown)}.")


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
    """Settings of the compiler while something is measured; what was compiled is forgotten at the end."""
    cache = nullcontext() if cfg.compile_cache else fresh_cache()
    with cache, inductor.patch({"cpp.enable_kernel_profile": bool(cfg.profile)}):
        yield
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
            own = {
                Key(task, name, mode): _outer_step(cfg, name, mode == "compiled")
                for mode in cfg.modes
            }
            self.calls |= own
            call = next(iter(own.values()))
            self.floors[Key(task, name, "floor")] = Floor(
                call.unroll, call.theta, call.num_chains, cfg.floor_steps
            )

    def measure(self, say: Say) -> None:
        """Time everything, then measure the peaks, then the profile where it is asked for."""
        with compiler(self.cfg):
            interleave(self.floors | self.calls, self.cfg.repeats, self.times, say)
            for key, call in self.calls.items():
                say(f"peak memory: {key}")
                self.peaks[key] = call.peak_bytes()
            for key, call in self.calls.items():
                if self.cfg.profile and key.mode == "compiled":
                    say(f"profile: {key}")
                    self.shares.append(
                        breakdown.row(key.optimizer, breakdown.breakdown(lambda call=call: call(0)))
                    )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each case that has been timed."""
        return [
            cost_table.make_row(
                key,
                call,
                self.times,
                self.peaks.get(key),
                self.cfg.floor_steps,
                self.cfg.references,
            )
            for key, call in self.calls.items()
            if key in self.times and self.times[key].later
        ]


def scaling(cfg: DictConfig, say: Say) -> Iterator[dict[str, Any]]:
    """Exponents of time, memory and compilation, for each axis and case.

    Yields:
        dict: the axis, the optimizer, sizes and measurements, and the three exponents with their errors.

    Raises:
        UsageError: a size or value that does not fit.
    """
    for axis, node in cfg.scaling.axes.items():
        for name in cfg.scaling.only or cfg.cases:
            calls = {}
            if len(node["sizes"]) != len(node["values"]):
                raise UsageError(f"scaling.axes.{axis} must have one size for each value.")
            for size, value in zip(node["sizes"], node["values"], strict=True):
                own = cfg.copy()
                own.estimator.unroll_length = cfg.scaling.unroll_length
                OmegaConf.update(own, node.key, value)
                calls[size] = _outer_step(own, name, compile=cfg.compile)
            times: dict[Any, Times] = {}
            with compiler(cfg):
                interleave(
                    calls,
                    cfg.scaling.repeats,
                    times,
                    lambda text, axis=axis, name=name: say(f"{axis}, {name}, {text}"),
                )
                peaks = [call.peak_bytes() for call in calls.values()]
            measured = {
                "time": [times[size].typical for size in calls],
                "peak bytes": peaks,
                "first call": [times[size].first for size in calls],
            }
            with errors.usage_errors():
                exponents = {
                    figure: fit_exponent(list(calls), costs) for figure, costs in measured.items()
                }
            yield {
                "grows": axis,
                "optimizer": name,
                "sizes": " ".join(map(str, calls)),
                "measured": measured,
                **exponents,
            }


def _outer_step(cfg: DictConfig, case: str, compile: bool) -> OuterStep:
    """An outer step of one case, ready to be timed."""
    own = cfg.copy()
    own.compile = compile
    problem = inner_problems.build_problem(own, cfg.cases[case], case)
    with errors.usage_errors():
        estimator = meta_training.build_estimator(own, own.estimator, problem.unroll)
    return OuterStep(estimator, problem.unroll)
