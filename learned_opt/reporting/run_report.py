"""THE report of a run, from the files of its folder alone: a page, Markdown and pictures."""

from pathlib import Path
from typing import Any

from learned_opt.core.figures import figure
from learned_opt.core.files import write_text
from learned_opt.evaluation.frames import distinct, select
from learned_opt.reporting import numbers, plots, sections, update_plots
from learned_opt.reporting.comparison_sections import comparison_sections
from learned_opt.reporting.in_short import in_short
from learned_opt.reporting.plots import Points
from learned_opt.reporting.record import Record, points, read_record
from learned_opt.reporting.sections import Drawing, Drawings, Folded, Part, Rows, Sentences
from learned_opt.reporting.tables import Table
from learned_opt.runtime.run_folder import RunFolder

OUTER = ("meta_grad_norm", "meta_grad_snr")  # drawn over outer steps beside the meta-loss
MISSING = "What is missing"  # heading
FEW = 6  # optimizers in a title
SUMMED_UP = {  # column of metrics.csv -> how it is summed up over the training
    "inner_steps_per_second": "median",
    "nonfinite_pairs": "sum",
    "restarts": "sum",
    "peak_memory/process": "max",
    "peak_memory/cuda": "max",
}


def write_run_report(path: Path, out: Path | None = None) -> list[str]:
    """Write the report of a run.

    Args:
        path: run folder.
        out: a file for the page alone; None for ``report.html``, ``report.md`` and the pictures, in
            the run folder.

    Returns:
        list[str]: what was written.

    Raises:
        ValueError: it is no run folder, or a file in it is damaged.
    """
    record = read_record(path)
    parts = report_sections(record)
    subtitle = provenance_of(record).get("command", "")
    page = sections.page(title_of(record), parts, subtitle)
    if out:
        write_text(out, page)
        return [str(out)]

    folder = RunFolder(path)
    write_text(folder.report, page)
    write_text(folder.report_markdown, sections.markdown(title_of(record), parts))
    pictures = sections.save_drawings(path, parts)

    return [folder.report.name, folder.report_markdown.name, *pictures]


def title_of(record: Record) -> str:
    """What the run is about; several meta-trainings of one optimizer are named once."""
    names = [record.learned]
    if record.results and record.results.learned and not record.metadata:  # of no training
        trainings = record.results.meta_trainings
        rows = record.results.learned
        names = list(dict.fromkeys(trainings[n].optimizer if n in trainings else n for n in rows))

    listed = ", ".join(names[:FEW])
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{listed}{more} on {', '.join(record.tasks) or record.folder.name}"


def report_sections(record: Record) -> dict[str, list[Part]]:
    """In short, comparison, meta-training, layers, configuration, reproducibility."""
    parts: dict[str, list[Part]] = {}
    if record.missing:
        parts[MISSING] = [Sentences(record.missing, stands_out=True)]

    if record.results:
        outer = {task: record.metric("meta_loss/train", task) for task in record.tasks}
        parts |= comparison_sections(record.results, outer=outer)

    parts |= _meta_training(record)
    for task in update_plots.tasks(record.diagnostics):
        parts[f"Layers: {task}"] = _layers(record, task)

    configuration = _configuration(record)
    if configuration:
        parts["Configuration"] = configuration

    parts["Reproducibility"] = [sections.facts("fact", facts_of(record))]
    return {**in_short(record, descriptions_of(record), provenance_of(record)), **parts}


def _meta_training(record: Record) -> dict[str, list[Part]]:
    """Figures over outer steps; none where nothing was trained."""
    drawings = []
    rows = []
    for task in record.trained_tasks or [record.learned]:  # a killed run tells its name in no file
        train = record.metric("meta_loss/train", task)
        valid = record.metric("meta_loss/valid", task)
        if train:
            drawing, axes = plots.panel()
            plots.outer_panel(axes, {task: train}, {task: valid}, f"{task}, meta-training")
            alt = f"Meta-loss on {task} over outer steps, in training and validation."
            drawings.append(Drawing(drawing, alt))
            rows.append([task, str(train[-1][0] + 1), _last(train), _last(valid)])

    if not rows:
        return {}

    for name in OUTER:
        values = points(record.metrics, name)
        if values:
            label = figure(name).label
            drawing, axes = plots.panel()
            plots.outer_panel(axes, {name: values}, {}, "", label)
            drawings.append(Drawing(drawing, f"{label} over outer steps.".capitalize()))

    ends = Table(["task", "outer steps", "last meta-loss", "last validation"], rows)
    return {"Meta-training": [Rows(ends), Drawings(drawings), Rows(_summed_up(record))]}


def _last(values: Points) -> str:
    return numbers.number(values[-1][1]) if values else numbers.ABSENT


def _summed_up(record: Record) -> Table:
    rows = []
    for name, how in SUMMED_UP.items():
        if name not in record.metrics:
            continue
        values = record.metrics[name].dropna()
        if len(values):
            label = figure(name).with_unit
            label = f"{label}, median" if how == "median" else label
            rows.append([label, f"{values.agg(how):,.5g}"])

    return Table(["of the whole training", "value"], rows)


def _layers(record: Record, task: str) -> list[Part]:
    measured = update_plots.last_measured(record.diagnostics, task)
    drawings = []
    last: dict[str, Any] = {}
    for quantity in dict.fromkeys(measured["quantity"]):
        drawing, axes = plots.panel()
        update_plots.update_panel(axes, measured, quantity)
        label = figure(quantity).label
        alt = f"{label} of every tensor over inner steps.".capitalize()
        drawings.append(Drawing(drawing, alt))
        last[label] = update_plots.update_table(measured, quantity).iloc[-1]

    rows = []
    for tensor in dict.fromkeys(measured["tensor"]):
        rows.append([str(tensor), *(f"{values[tensor]:.3g}" for values in last.values())])

    outer_step = measured["outer_step"].max()
    caption = f"at outer step {outer_step}, after inner step {measured['inner_step'].max()}"
    return [Drawings(drawings), Rows(Table(["tensor", *last], rows), caption)]


def _configuration(record: Record) -> list[Part]:
    """The command line's words, the tasks, and the composed config, folded away."""
    parts: list[Part] = []
    if record.overrides:
        parts.append(Rows(Table(["override"], [[word] for word in record.overrides]), words=True))
    for task, description in descriptions_of(record).items():
        parts.append(sections.facts(f"task {task}", description))
    if record.config:
        parts.append(Folded("composed configuration", record.config))
    return parts


def descriptions_of(record: Record) -> dict[str, dict[str, Any]]:
    """Task -> what identifies it."""
    evaluated = record.results.described if record.results else {}
    return {**record.metadata.get("tasks", {}), **evaluated}


def provenance_of(record: Record) -> dict[str, str]:
    """Command, versions and machine of the run."""
    if record.results and record.results.facts:
        return record.results.facts
    return record.metadata.get("provenance", {})


def facts_of(record: Record) -> dict[str, str]:
    """What a reader needs to run the same again: command, versions, machine, data, seeds."""
    facts = {"run folder": record.folder.name, **provenance_of(record)}
    for task, description in descriptions_of(record).items():
        data = description.get("data", numbers.ABSENT)
        fingerprint = description.get("fingerprint", numbers.ABSENT)
        facts[f"data of {task}"] = f"{data}, fingerprint {fingerprint}"

    frame = record.frame
    for task in record.tasks:
        seeds = distinct(select(frame, task=task), "seed")
        if seeds:
            facts[f"held-out seeds of {task}"] = f"{min(seeds)} to {max(seeds)}"

    trained_by = record.metadata.get("trained_by", {})
    return {**facts, **{f"trained with: {key}": value for key, value in trained_by.items()}}
