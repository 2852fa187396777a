"""The lines that people read of the jobs of a sweep, the same under every launcher.

One as a job starts, one as it ends, and the end of the whole sweep.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from learned_opt.runtime import job_file
from learned_opt.runtime.sweep_jobs import Job

STARTS = "starts"


def line(name: str, setting: Mapping[str, str], state: str, text: str = "") -> str:
    """A job in one line.

    Args:
        name: of its folder, which is its number in the sweep.
        setting: overrides that set it apart from the others, key -> value.
        state: what has become of it.
        text: what belongs to the state, such as why it failed.

    >>> line("2", {"seed": "0"}, "failed", "sigma must be positive.")
    'job 2 (seed=0) failed: sigma must be positive.'
    """
    words = ", ".join(f"{key}={short(value)}" for key, value in setting.items())
    which = f"job {name} ({words})" if words else f"job {name}"
    return f"{which} {state}: {text}" if text else f"{which} {state}"


def short(value: str) -> str:
    """An override's value, with three digits where a sampler drew seventeen.

    >>> [short("0.012520653814999465"), short("2000")]
    ['0.0125', '2000']
    """
    try:
        return f"{float(value):.3g}" if len(value) > 8 else value
    except ValueError:
        return value


def start(name: str, setting: Mapping[str, str], folder: Path) -> str:
    """The line of a job that starts in its folder.

    >>> start("2", {"seed": "0"}, Path("s/2"))
    'job 2 (seed=0) starts in s/2'
    """
    return line(name, setting, f"{STARTS} in {folder}")


def end(
    name: str, setting: Mapping[str, str], folder: Path, record: job_file.Record, why: str = ""
) -> str:
    """The line of a job that has ended.

    Args:
        name: of its folder.
        setting: overrides that set it apart.
        folder: of the run.
        record: its ``job.json``; empty where it has never begun.
        why: it has no end of its own, if the launcher knows that.

    >>> end("2", {}, Path("s/2"), {"state": "finished", "value": 0.25})
    'job 2 finished in s/2: validation loss 0.25'
    """
    state = record.get("state", "killed")
    text = why or record.get("error") or ""
    if state == "finished":
        text = _value(record.get("value"))
    elif state in ("running", "submitted"):
        state = "killed"
    return line(name, setting, f"{state} in {folder}", text)


def _value(value: float | None) -> str:
    """The result that a sweeper minimises; empty where the job has none."""
    if value is None:
        return ""
    return f"validation loss {value:.4g}" if math.isfinite(value) else "validation loss diverged"


def count(states: Sequence[str]) -> str:
    """How many jobs are in which state.

    >>> count(["finished", "failed", "finished"])
    '3 jobs: 2 finished, 1 failed'
    """
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    noun = "job" if len(states) == 1 else "jobs"
    return f"{len(states)} {noun}: {', '.join(counts) or 'none has begun'}"


def summary(jobs: Sequence[Job], again: str) -> list[str]:
    """How a sweep stands: counts, why jobs are not whole, and how to run those again.

    Args:
        jobs: of the sweep.
        again: the command that does, from ``rerun_command``; empty where all is whole.
    """
    settings = job_file.varying([job.overrides for job in jobs])
    lines = [count([job.state for job in jobs])]
    for job, setting in zip(jobs, settings, strict=True):
        if job.why:
            lines.append(line(job.name, setting, job.state, job.why))
    if again:
        lines += ["to run just those again:", f"  {again}"]
    return lines
