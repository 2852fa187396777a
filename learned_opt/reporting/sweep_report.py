"""The finished runs of a sweep in one table, its means over seeds, a page and a picture."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learned_opt.core.figures import figure
from learned_opt.core.files import write_text
from learned_opt.evaluation import scores
from learned_opt.evaluation.frames import select
from learned_opt.evaluation.intervals import Interval
from learned_opt.evaluation.meta_seed_intervals import two_level_interval
from learned_opt.evaluation.meta_seeds import verdict
from learned_opt.evaluation.results import read_evaluation
from learned_opt.reporting import numbers, plots
from learned_opt.reporting.tables import Table
from learned_opt.runtime import job_lines
from learned_opt.runtime.run_folder import RunFolder

Row = dict[str, Any]
FIGURES = ("mean_loss", "final_loss", "accuracy")
SEED = "seed"  # the override over whose values is averaged
VALUES = "values"  # key of a row: figure -> values that its intervals are made of
COUNT = "meta-seeds"
NOTES = """\
A run's figures are means over its held-out seeds, brackets their 95% intervals. In the
table of groups brackets are 95% intervals over meta-seeds (`seed`) and held-out seeds both.
Baselines are in `sweep.csv`."""


def collect(runs: Mapping[Path, Mapping[str, str]]) -> list[Row]:
    """One row for each run, task and optimizer, its figures as intervals.

    None for a run without ``evaluation.json``.

    Args:
        runs: run folder -> the overrides that set it apart from the others.
    """
    rows = []
    for folder, overrides in runs.items():
        path = RunFolder(folder).evaluation
        if not path.is_file():
            continue

        results = read_evaluation(path)
        of_tasks = select(results.frame, axis="")
        for summary in scores.summarise(of_tasks, results.reference):
            run = {"job": folder.name, "overrides": dict(overrides)}
            run["learned"] = summary["optimizer"] in results.learned
            run[VALUES] = _values(of_tasks, summary)
            rows.append({**run, **summary})

    return rows


def _values(frame: pd.DataFrame, summary: Row) -> dict[str, list[float]]:
    """Figure -> a value for each held-out seed, in the order of the seeds."""
    setting = {name: summary[name] for name in ("task", "horizon", "optimizer")}
    of_row = select(frame, **setting).sort_values("seed")
    values = {}
    for name in FIGURES:
        if name in of_row and bool(of_row[name].notna().all()):
            values[name] = of_row[name].tolist()
    return values


def learned(rows: Iterable[Row]) -> list[Row]:
    """Rows of the learned optimizers."""
    return [row for row in rows if row["learned"]]


def mean_over_seeds(rows: Iterable[Row]) -> list[Row]:
    """Learned optimizers' means over runs that differ in their seed only.

    Intervals are those over meta-seeds and held-out seeds.

    Raises:
        ValueError: runs of one group have other held-out seeds.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in learned(rows):
        if SEED in row["overrides"]:
            key = (*_setting(row).items(), row["task"], row["horizon"], row["optimizer"])
            groups.setdefault(key, []).append(row)

    means = []
    for group in groups.values():
        first = group[0]
        mean = {"overrides": _setting(first), "task": first["task"]}
        by_seed = {name: _by_meta_seed(group, name) for name in FIGURES}
        mean |= {"optimizer": first["optimizer"], COUNT: len(by_seed["final_loss"])}

        for name, values in by_seed.items():
            mean[name] = two_level_interval(values) if values else None
        mean[VALUES] = by_seed
        means.append(mean)

    return means


def _group(row: Row) -> str:
    """What a group is called in a sentence."""
    words = [*map(job_lines.short, _setting(row).values())]
    return ", ".join([*words, row["optimizer"]] if row["optimizer"] not in words else words)


def _setting(row: Row) -> dict[str, str]:
    return {key: value for key, value in row["overrides"].items() if key != SEED}


def _by_meta_seed(group: Sequence[Row], name: str) -> dict[int, list[float]]:
    """Meta-seed -> a value for each held-out seed; empty where the task has no such figure."""
    values = {}
    for row in group:
        if name in row[VALUES]:
            values[int(row["overrides"][SEED])] = row[VALUES][name]
    return values


def verdicts(means: Sequence[Row]) -> list[str]:
    """The best group of each task against every other one, a sentence for each and each loss.

    Args:
        means: from ``mean_over_seeds``.
    """
    by_task: dict[str, list[Row]] = {}
    for row in means:
        by_task.setdefault(row["task"], []).append(row)

    sentences = []
    for task, group in by_task.items():
        for name in ("mean_loss", "final_loss"):
            best = min(group, key=lambda row, name=name: row[name].mean)
            for row in group:
                if row is not best:
                    left = (_group(best), best[VALUES][name])
                    sentence = verdict(name, left, (_group(row), row[VALUES][name]))
                    sentences.append(f"{task}, {sentence}")
    return sentences


def table(rows: Sequence[Row], brief: bool = False) -> Table | None:
    """Rows as people read them; None of no rows.

    Args:
        rows: from ``collect`` or ``mean_over_seeds``.
        brief: half widths in place of intervals.
    """
    if not rows:
        return None

    kept = [name for name in ("job", "task", "optimizer", COUNT) if name in rows[0]]
    headings = [*rows[0]["overrides"], *kept, *(figure(name).label for name in FIGURES)]

    lines = []
    for row in rows:
        overrides = [job_lines.short(value) for value in row["overrides"].values()]
        names = [str(row[name]) for name in kept]
        lines.append([*overrides, *names, *(_figure(row, name, brief) for name in FIGURES)])
    return Table(headings, lines)


def _figure(row: Row, name: str, brief: bool) -> str:
    return numbers.interval(row[name], brief=brief)


def _sentence(state: Mapping[str, str]) -> str:
    """What has become of one job."""
    hidden = ("job", "state", "why")
    setting = {key: value for key, value in state.items() if key not in hidden}
    return job_lines.line(state["job"], setting, state["state"], state["why"])


def write(
    folder: Path, rows: list[Row], states: Sequence[Mapping[str, str]], again: str
) -> list[str]:
    """Write ``sweep.csv``, ``sweep.md`` and ``sweep.png`` into the folder.

    Args:
        folder: of the sweep.
        rows: from ``collect``.
        states: job, state, why and overrides of all jobs.
        again: the command that runs again what is not whole.

    Returns:
        list[str]: names of what there is.
    """
    counts = job_lines.count([state["state"] for state in states])
    page = [f"# Sweep {folder.name}", counts]
    names = ["sweep.md"]

    means = mean_over_seeds(rows)
    for shown in (table(means), table(learned(rows))):
        if shown:
            page.append(shown.markdown)
    page.append("\n".join(f"- {sentence}" for sentence in verdicts(means)))

    failures = [f"- {_sentence(state)}" for state in states if state["why"]]
    page.append("\n".join(failures))

    if again:
        page.append(f"To run just those again:\n\n    {again}")

    if rows:
        page += [NOTES, "![losses of all runs](sweep.png)"]
        names += ["sweep.csv", "sweep.png"]
        write_text(folder / "sweep.csv", _csv(rows))
        plots.save(sweep_figure(rows), folder / "sweep.png")

    write_text(folder / "sweep.md", "\n\n".join(part for part in page if part) + "\n")
    return names


def _csv(rows: list[Row]) -> str:
    hidden = ("overrides", VALUES, "heldout", "axis", "point", "learned")
    flat = []
    for row in rows:
        values = dict(row["overrides"])
        for key, value in row.items():
            if key in hidden:
                continue
            if key in FIGURES or isinstance(value, Interval):
                # a figure that is lacking has its three columns too
                mean, low, high = value or (None, None, None)
                values |= {key: mean, f"{key}_low": low, f"{key}_high": high}
            else:
                values[key] = value

        flat.append(values)

    return pd.DataFrame(flat).to_csv(index=False)


def sweep_figure(rows: list[Row]) -> Figure:
    """A dot with its 95% interval for each run, a line for runs that differ in their seed only.

    Each task has a row of panels.
    """
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = list(dict.fromkeys(_line(row) for row in learned(rows)))
    size = (11, len(tasks) * (1.6 + 0.35 * len(lines)))
    drawing = Figure(figsize=size, layout="constrained")
    grid = drawing.subplots(len(tasks), 2, squeeze=False, sharey=True)

    for panels, task in zip(grid, tasks, strict=True):
        of_task = [row for row in rows if row["task"] == task]
        for axes, name in zip(panels, FIGURES[:2], strict=True):
            _panel(axes, of_task, name, lines)
            label = f"{figure(name).label} on {task}"
            axes.set(yticks=range(len(lines)), yticklabels=lines, xlabel=label)

    grid[0][0].set_ylim(len(lines) - 0.5, -0.5)  # the first on top
    return drawing


def _line(row: Row) -> str:
    return ", ".join(map(job_lines.short, _setting(row).values())) or row["optimizer"]


def _panel(axes: Axes, rows: Sequence[Row], name: str, lines: Sequence[str]) -> None:
    finite = [row for row in rows if math.isfinite(row[name].mean)]
    for y, line in enumerate(lines):
        runs = []
        for row in learned(finite):
            if _line(row) == line:
                runs.append(row[name])

        colour = plots.COLOURS[y % len(plots.COLOURS)]
        for i, (mean, low, high) in enumerate(runs):
            height = y + 0.5 * ((i + 1) / (len(runs) + 1) - 0.5)
            ends = [[mean - low], [high - mean]]
            axes.errorbar(mean, height, xerr=ends, fmt="o", markersize=4, color=colour)

    # of the baselines only the best is drawn: the line to beat
    means_of: dict[str, list[float]] = {}
    for row in finite:
        if not row["learned"]:
            means_of.setdefault(row["optimizer"], []).append(row[name].mean)

    means = {optimizer: sum(values) / len(values) for optimizer, values in means_of.items()}
    if means:
        best = min(means, key=lambda optimizer: means[optimizer])
        axes.axvline(means[best], color="0.5", linestyle="--", label=f"{best}, tuned")
        axes.legend(frameon=False, fontsize=9)

    axes.grid(alpha=0.3, linewidth=0.5)
