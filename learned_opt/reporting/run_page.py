"""The page of one run, from its record alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from learned_opt.reporting import html, layers, plots, tables
from learned_opt.reporting.plots import Curve
from learned_opt.reporting.record import Record, points, read_record
from learned_opt.reporting.run_files import NOTES

FILE = "report.html"
OUTER = {
    "meta_grad_norm": "norm of the meta-gradient",
    "meta_grad_snr": "signal to noise of one estimate",
}
SUMS = {  # column of metrics.csv -> words, and how it is summed up
    "inner_steps_per_second": ("inner steps per second, median", "median"),
    "nonfinite_pairs": ("tasks not finite", "sum"),
    "restarts": ("restarts", "sum"),
    "peak_memory/process": ("peak memory of the process, MiB", "max"),
    "peak_memory/cuda": ("peak memory of the GPU, MiB", "max"),
}


def write_run_page(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a run.

    Args:
        folder: run folder.
        out: the file; ``report.html`` in the run folder by default.

    Raises:
        ValueError: it is no run folder, or a file in it is damaged.
    """
    out = out or folder / FILE
    out.write_text(run_page(read_record(folder)), encoding="utf-8")
    return out


def run_page(record: Record) -> str:
    """The page: comparison, meta-training, layers, configuration, reproducibility."""
    sections = [
        *(
            [html.Section("What is missing", [html.sentences(record.missing, "missing")])]
            if record.missing
            else []
        ),
        *(_of_task(record, task) for task in record.tasks if record.rows_of(task)),
        *_meta_training(record),
        *(_layers(record, task) for task in layers.tasks(record.diagnostics)),
        *([html.Section("Configuration", parts)] if (parts := configuration(record)) else []),
        html.Section("Reproducibility", [html.facts(("fact", "value"), card(record).items())]),
    ]
    title = f"{record.learned} on {', '.join(record.tasks) or record.folder.name}"
    return html.page(title, sections, record.metadata.get("provenance", {}).get("command", ""))


def _of_task(record: Record, task: str) -> html.Section:
    rows = record.rows_of(task)
    remarks = record.metadata.get("warnings", {}).get(task, [])
    verdicts = [*tables.verdicts(rows, record.learned), *remarks]
    return html.Section(
        f"Result: {task}", result(task, rows, record.curves.get(task, {}), verdicts)
    )


def result(
    task: str, rows: list[dict[str, Any]], curves: Mapping[str, Curve], verdicts: Sequence[str]
) -> list[Markup]:
    """What optimizers came to on one task: sentences, tables and pictures.

    Args:
        task: its name.
        rows: of ``evaluation.json``, of this task.
        curves: optimizer -> held-out training losses; may lack some.
        verdicts: sentences on top.
    """
    summaries = tables.summarise(rows)
    caption = f"{task}: {summaries[0]['num_seeds']} held-out seeds, horizon {summaries[0]['horizon']} inner steps"
    parts = [
        html.sentences(verdicts),
        html.table(tables.HEADINGS, map(tables.cells, summaries), caption),
    ]
    if heldout := tables.heldout_table(rows):
        parts.append(
            html.table(
                heldout[0],
                (row.values() for row in heldout),
                "on held-out data, after the last step",
            )
        )
    return [*parts, html.pictures(_pictures(task, summaries, curves)), html.note(NOTES)]


def _pictures(
    task: str, summaries: list[dict[str, Any]], curves: Mapping[str, Curve]
) -> list[html.Picture]:
    pictures, names = [], ", ".join(curves)
    if curves:
        figure, axes = plots.panel()
        plots.inner_panel(axes, curves, task)
        pictures.append(
            html.picture(
                figure, f"Training loss over inner steps of {names} on held-out seeds of {task}."
            )
        )
    merits = {
        name.replace("_", " "): {
            own["optimizer"]: own[name] for own in summaries if own[name] is not None
        }
        for name in ("mean_loss", "final_loss", "accuracy")
        if any(own[name] is not None for own in summaries)
    }
    figure = plots.interval_figure(merits)
    words = f"{', '.join(merits)} of every optimizer on {task}: means with 95% intervals."
    return [
        *pictures,
        html.picture(
            figure, words[0].upper() + words[1:], "Means over held-out seeds, 95% intervals."
        ),
    ]


def _meta_training(record: Record) -> list[html.Section]:
    """Figures over outer steps; none where nothing was trained."""
    pictures, rows = [], []
    for task in record.tasks or [record.learned]:  # a run that was killed tells its name in no file
        train, valid = (record.metric(f"meta_loss/{split}", task) for split in ("train", "valid"))
        if train:
            figure, axes = plots.panel()
            plots.outer_panel(axes, {task: train}, {task: valid}, f"{task}, meta-training")
            pictures.append(
                html.picture(
                    figure, f"Meta-loss on {task} over outer steps, in training and validation."
                )
            )
            ends = (f"{own[-1][1]:.4f}" if own else "-" for own in (train, valid))
            rows.append((task, str(train[-1][0] + 1), *ends))
    if not rows:
        return []
    for name, label in OUTER.items():
        if own := points(record.metrics, name):
            figure, axes = plots.panel()
            plots.outer_panel(axes, {name: own}, {}, "", label)
            pictures.append(html.picture(figure, f"{label} over outer steps.".capitalize()))
    logged = {name: record.metrics[name].dropna() for name in SUMS if name in record.metrics}
    figures = (
        (SUMS[name][0], f"{own.agg(SUMS[name][1]):,.5g}")
        for name, own in logged.items()
        if len(own)
    )
    parts = [
        html.table(("task", "outer steps", "last meta-loss", "last validation"), rows),
        html.pictures(pictures),
        html.table(("of the whole training", "value"), figures),
    ]
    return [html.Section("Meta-training", parts)]


def _layers(record: Record, task: str) -> html.Section:
    measured = layers.last_measured(record.diagnostics, task)
    pictures, last = [], {}
    for quantity in dict.fromkeys(measured["quantity"]):
        figure, axes = plots.panel()
        layers.layer_panel(axes, measured, quantity)
        label = layers.LABELS.get(quantity, quantity)
        pictures.append(
            html.picture(figure, f"{label} of every tensor over inner steps.".capitalize())
        )
        last[label] = layers.layer_table(measured, quantity).iloc[-1]
    tensors = dict.fromkeys(measured["tensor"])
    rows = ([str(t), *(f"{values[t]:.3g}" for values in last.values())] for t in tensors)
    caption = f"at outer step {measured['outer_step'].max()}, after inner step {measured['inner_step'].max()}"
    return html.Section(
        f"Layers: {task}", [html.pictures(pictures), html.table(("tensor", *last), rows, caption)]
    )


def configuration(record: Record) -> list[Markup]:
    """What was asked for on the command line, the tasks, and the composed config, folded away."""
    parts = (
        [html.facts(("override",), ([word] for word in record.overrides))]
        if record.overrides
        else []
    )
    for task, described in record.metadata.get("tasks", {}).items():
        rows = ((key, str(value)) for key, value in described.items())
        parts.append(html.facts((f"task {task}", "value"), rows))
    return (
        [*parts, html.details("composed configuration", record.config)] if record.config else parts
    )


def card(record: Record) -> dict[str, str]:
    """What a reader needs to run the same thing again: command, versions, machine, data, seeds."""
    metadata = record.metadata
    found = {"run folder": record.folder.name, **metadata.get("provenance", {})}
    for task, described in metadata.get("tasks", {}).items():
        found[f"data of {task}"] = (
            f"{described.get('data', '-')}, fingerprint {described.get('fingerprint', '-')}"
        )
    for task in record.tasks:
        if rows := record.rows_of(task):
            seeds = [row["seed"] for row in rows]
            found[f"held-out seeds of {task}"] = f"{min(seeds)} to {max(seeds)}"
    trained = metadata.get("trained_by", {})
    return {**found, **{f"trained with: {key}": value for key, value in trained.items()}}
