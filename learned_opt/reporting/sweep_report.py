"""The finished runs of a sweep in one table, its means over seeds, a page and a picture."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from learned_opt.evaluation.intervals import Interval
from learned_opt.reporting import tables
from learned_opt.reporting.plots import COLOURS

Row = dict[str, Any]
FIGURES = ("mean_loss", "final_loss", "accuracy")
SEED = "seed"  # the override over whose values is averaged
NOTES = """\
A run's figures are means over its held-out seeds, brackets their 95% bootstrap intervals. In the table of groups
brackets hold the lowest and the highest run; `seed` is that of meta-training. Baselines are in `sweep.csv`."""


def collect(runs: Mapping[Path, Mapping[str, str]]) -> list[Row]:
    """One row for each run, task and optimizer, its figures as intervals; none for a run without ``evaluation.json``.

    Args:
        runs: run folder -> the overrides that set it apart from the others.
    """
    rows = []
    for folder, overrides in runs.items():
        path = folder / "evaluation.json"
        evaluation = json.loads(path.read_text()) if path.is_file() else []
        for task in dict.fromkeys(row["task"] for row in evaluation):
            for summary in tables.summarise([row for row in evaluation if row["task"] == task]):
                rows.append(
                    {"job": folder.name, "overrides": dict(overrides), "task": task, **summary}
                )
    return rows


def learned(rows: Iterable[Row]) -> list[Row]:
    """Those of learned optimizers, which have no learning rate."""
    return [row for row in rows if row["learning_rate"] is None]


def mean_over_seeds(rows: Iterable[Row]) -> list[Row]:
    """Learned optimizers' means over runs that differ in their seed only; intervals are the lowest and highest run."""
    groups: dict[tuple, list[Row]] = {}
    for row in learned(rows):
        if SEED in row["overrides"]:
            groups.setdefault((*_setting(row).items(), row["task"], row["optimizer"]), []).append(
                row
            )
    means = []
    for own in groups.values():
        first = own[0]
        figures = {figure: _mean_and_range([row[figure] for row in own]) for figure in FIGURES}
        names = {
            "overrides": _setting(first),
            "task": first["task"],
            "optimizer": first["optimizer"],
        }
        means.append({**names, "runs": len(own), **figures})
    return means


def _setting(row: Row) -> dict[str, str]:
    return {key: value for key, value in row["overrides"].items() if key != SEED}


def _mean_and_range(intervals: Sequence[Interval | None]) -> Interval | None:
    means = [
        interval.mean for interval in intervals if interval is not None
    ]  # not every task has an accuracy
    return Interval(sum(means) / len(means), min(means), max(means)) if means else None


def shown(rows: Iterable[Row], brief: bool = False) -> list[dict[str, str]]:
    """Rows as people read them; ``brief`` gives half widths in place of intervals."""
    kept = ("job", "task", "optimizer", "runs")
    return [
        {
            **{key: _short(value) for key, value in row["overrides"].items()},
            **{key: str(row[key]) for key in kept if key in row},
            **{figure.replace("_", " "): _say(row[figure], brief) for figure in FIGURES},
        }
        for row in rows
    ]


def _say(interval: Interval | None, brief: bool) -> str:
    if interval is None:
        return "-"
    mean, low, high = interval
    if not math.isfinite(mean):
        return "diverged"
    return f"{mean:.4f} ±{(high - low) / 2:.4f}" if brief else f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def _short(value: str) -> str:
    """An override's value, with three digits where a sampler drew seventeen."""
    try:
        return f"{float(value):.3g}" if len(value) > 8 else value
    except ValueError:
        return value


def count(states: Sequence[Mapping[str, str]]) -> str:
    """How many jobs are in which state."""
    names = [state["state"] for state in states]
    return f"{len(states)} jobs: " + ", ".join(
        f"{names.count(name)} {name}" for name in dict.fromkeys(names)
    )


def sentence(state: Mapping[str, str]) -> str:
    """What has become of one job."""
    setting = ", ".join(
        f"{key}={value}" for key, value in state.items() if key not in ("job", "state", "why")
    )
    return f"job {state['job']} ({setting}) {state['state']}: {state['why']}"


def write(
    folder: Path, rows: list[Row], states: Sequence[Mapping[str, str]], again: str
) -> list[str]:
    """Write ``sweep.csv``, ``sweep.md`` and ``sweep.png`` into the folder; returns the names of what there is.

    Args:
        folder: of the sweep.
        rows: from ``collect``.
        states: job, state, why and overrides of all jobs.
        again: the command that runs again what is not whole.
    """
    page, names = [f"# Sweep {folder.name}", count(states)], ["sweep.md"]
    for table in (shown(mean_over_seeds(rows)), shown(learned(rows))):
        if table:
            page.append(tables.markdown_table(table[0], (row.values() for row in table)))
    page.append("\n".join(f"- {sentence(state)}" for state in states if state["why"]))
    page += [f"To run just those again:\n\n    {again}"] if again else []
    if rows:
        page += [NOTES, "![losses of all runs](sweep.png)"]
        names += ["sweep.csv", "sweep.png"]
        _write_csv(folder / "sweep.csv", rows)
        plot(folder / "sweep.png", rows)
    (folder / "sweep.md").write_text("\n\n".join(part for part in page if part) + "\n")
    return names


def _write_csv(path: Path, rows: list[Row]) -> None:
    flat = []
    for row in rows:
        values = {key: value for key, value in row.items() if key not in ("overrides", *FIGURES)}
        for figure in FIGURES:
            ends = row[figure] or (None, None, None)
            values |= dict(zip((figure, f"{figure}_low", f"{figure}_high"), ends, strict=True))
        flat.append(row["overrides"] | values)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, flat[0])
        writer.writeheader()
        writer.writerows(flat)


def plot(path: Path, rows: list[Row]) -> None:
    """A dot with its 95% interval for each run, a line for runs that differ in their seed only, a row for each task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = list(dict.fromkeys(_line(row) for row in learned(rows)))
    size = (11, len(tasks) * (1.6 + 0.35 * len(lines)))
    figure = Figure(figsize=size)
    axes = figure.subplots(len(tasks), 2, squeeze=False, sharey=True)
    for panels, task in zip(axes, tasks, strict=True):
        for panel, name in zip(panels, FIGURES[:2], strict=True):
            _panel(panel, [row for row in rows if row["task"] == task], name, lines)
            panel.set(
                yticks=range(len(lines)),
                yticklabels=lines,
                xlabel=f"{name.replace('_', ' ')} on {task}",
            )
    axes[0][0].set_ylim(len(lines) - 0.5, -0.5)  # the first on top
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def _line(row: Row) -> str:
    return ", ".join(map(_short, _setting(row).values())) or row["optimizer"]


def _panel(panel: Axes, rows: Sequence[Row], name: str, lines: Sequence[str]) -> None:
    finite = [row for row in rows if math.isfinite(row[name].mean)]
    for y, line in enumerate(lines):
        runs = [row[name] for row in learned(finite) if _line(row) == line]
        for i, (mean, low, high) in enumerate(runs):
            height = y + 0.5 * ((i + 1) / (len(runs) + 1) - 0.5)
            ends = [[mean - low], [high - mean]]
            panel.errorbar(
                mean, height, xerr=ends, fmt="o", markersize=4, color=COLOURS[y % len(COLOURS)]
            )
    baselines: dict[str, list[float]] = {}
    for row in finite:
        if row["learning_rate"] is not None:
            baselines.setdefault(row["optimizer"], []).append(row[name].mean)
    means = {optimizer: sum(own) / len(own) for optimizer, own in baselines.items()}
    if means:
        best = min(means, key=lambda optimizer: means[optimizer])
        panel.axvline(means[best], color="0.5", linestyle="--", label=f"{best}, tuned")
        panel.legend(frameon=False, fontsize=9)
    panel.grid(alpha=0.3, linewidth=0.5)
