"""The W&B workspace and report of a project, as wandb-workspaces' objects and as JSON.

That library offers no way to write a workspace to a file; its private ``_to_model`` and
``_from_model`` are used for it here and nowhere else, which is why its version is pinned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wandb_workspaces import expr
from wandb_workspaces import workspaces as ws
from wandb_workspaces.reports.v2 import interface as wr
from wandb_workspaces.workspaces import internal

from learned_opt.core.figures import UPDATES, figure
from learned_opt.evaluation.frames import distinct, groups, select
from learned_opt.evaluation.results import Results, heldout_figures

STEP = "trainer/global_step"  # outer steps; W&B's own step starts again when a run resumes
LOSSES = ("mean_loss", "final_loss")  # that every task has on held-out seeds


@dataclass(frozen=True)
class Scope:
    """What a dashboard is about.

    Args:
        entity: user or team that the project belongs to.
        project: W&B project.
        runs: ``("Group", name)`` for those of a sweep, ``("ID", id)`` for one; None for all.
        figures: task -> figures that the runs have logged of it on held-out seeds.
        baselines: hand-designed optimizers that they were compared with.
    """

    entity: str
    project: str
    runs: tuple[str, str] | None
    figures: Mapping[str, Sequence[str]]
    baselines: Sequence[str]

    @property
    def title(self) -> str:
        """Name of the dashboard, after its sweep, run or project."""
        return f"Learned optimizers: {self.runs[1] if self.runs else self.project}"

    @property
    def filters(self) -> Any:
        """W&B's filter that picks the runs; empty for all of them."""
        return expr.And(expr.Metric(self.runs[0]) == self.runs[1]) if self.runs else ""


def scope_of(
    entity: str, project: str, runs: tuple[str, str] | None, evaluations: Sequence[Results]
) -> Scope:
    """What the evaluations of some runs have logged.

    Args:
        entity: user or team that the project belongs to.
        project: W&B project.
        runs: see ``Scope``.
        evaluations: of the runs; none where nothing is known of them.
    """
    figures: dict[str, list[str]] = {}
    baselines: dict[str, None] = {}
    for results in evaluations:
        frame = results.frame
        for (task,), rows in groups(select(frame, axis=""), ["task"]):
            measured = heldout_figures(rows)
            names = [*LOSSES, *(name for name in ("accuracy",) if name in measured)]
            figures[str(task)] = list(dict.fromkeys([*figures.get(str(task), []), *names]))

        for name in distinct(frame, "optimizer"):
            if name not in results.learned:
                baselines[name] = None

    return Scope(entity, project, runs, figures, list(baselines))


def workspace(scope: Scope) -> ws.Workspace:
    """The workspace: meta-training, held-out comparison, layers, system."""
    sections = []
    for name, panels in _sections(scope).items():
        section = ws.Section(
            name=name,
            panels=panels,
            is_open=True,
            layout_settings=ws.SectionLayoutSettings(columns=3, rows=3),
            panel_settings=ws.SectionPanelSettings(x_axis=STEP),
        )
        sections.append(section)

    return ws.Workspace(
        entity=scope.entity,
        project=scope.project,
        name=scope.title,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=STEP, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            filters=scope.filters, groupby=[ws.Config("optimizer_name")]
        ),
        auto_generate_panels=True,  # histograms of theta, and what a later version logs
    )


def report(scope: Scope) -> wr.Report:
    """The same panels as a report. To save or dump it needs an account."""
    runs = wr.Runset(
        entity=scope.entity,
        project=scope.project,
        name=scope.title,
        filters=scope.filters,
        groupby=["config.optimizer_name"],
    )
    blocks: list[Any] = [wr.TableOfContents()]
    for name, panels in _sections(scope).items():
        blocks += [wr.H2(text=name), wr.PanelGrid(runsets=[runs], panels=panels)]

    return wr.Report(
        entity=scope.entity, project=scope.project, title=scope.title, width="fluid", blocks=blocks
    )


def dump(view: ws.Workspace) -> dict[str, Any]:
    """A workspace as JSON, in the layout that W&B's server stores."""
    return view._to_model().model_dump(by_alias=True, exclude_none=True, mode="json")


def load(spec: dict[str, Any]) -> ws.Workspace:
    """The workspace of such a JSON; the library's schema refuses what does not fit."""
    return ws.Workspace._from_model(internal.View.model_validate(spec))


def _sections(scope: Scope) -> dict[str, list[Any]]:
    return {
        "Meta-training": _meta_training(),
        "Held-out comparison over tasks": _comparison(scope),
        "Layers: what the updates do": _layers(),
        "System": _system(),
    }


def _line(title: str, *metrics: str, **options: Any) -> wr.LinePlot:
    return wr.LinePlot(title=title, x=STEP, y=list(metrics), title_x="outer step", **options)


def _meta_training() -> list[Any]:
    smooth: dict[str, Any] = {
        "smoothing_type": "exponentialTimeWeighted",
        "smoothing_factor": 0.9,
        "smoothing_show_original": True,
    }
    return [
        _of_tasks("meta_loss/train", **smooth),
        _of_tasks("meta_loss/valid"),
        _of_tasks("final_loss/valid"),
        _line(figure("meta_grad_norm").label, "meta_grad_norm", log_y=True, **smooth),
        _line(figure("meta_grad_snr").label, "meta_grad_snr", **smooth),
        _line(figure("nonfinite_pairs").label, "nonfinite_pairs"),
        _line(figure("restarts").label, "restarts"),
    ]


def _of_tasks(name: str, **options: Any) -> wr.LinePlot:
    """A figure that a mix logs once for each task."""
    return _line(figure(name).label, metric_regex=f"^{name}", **options)


def _comparison(scope: Scope) -> list[Any]:
    by_optimizer = {
        "groupby": wr.Config("optimizer_name"),
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stderr",
    }
    panels: list[Any] = []
    for task, names in scope.figures.items():
        for name in names:
            key = f"{name}/heldout/{task}"
            keys: list[Any] = [key, *(f"{key}/{baseline}" for baseline in scope.baselines)]
            title = f"{task}: {figure(name).label}, held-out seeds"
            panels.append(wr.BarPlot(title=title, metrics=keys, **by_optimizer))

    return [
        *panels,
        wr.MediaBrowser(
            title="inner and outer loss curves", media_keys=["pictures/curves"], num_columns=1
        ),
        wr.WeavePanelSummaryTable(table_name="evaluation"),
        wr.WeavePanelSummaryTable(table_name="curves"),
        wr.RunComparer(diff_only="split"),
    ]


def _layers() -> list[Any]:
    lines = []
    for quantity in UPDATES:
        title = f"{quantity.label}, mean over inner time"
        regex = f"^{quantity.name}/"
        lines.append(_line(title, metric_regex=regex, log_y=quantity.logarithmic or None))

    return [
        *lines,
        wr.MediaBrowser(title="over inner time", media_keys=["pictures/behaviour"], num_columns=1),
        wr.WeavePanelSummaryTable(table_name="diagnostics"),
    ]


def _system() -> list[Any]:
    time: dict[str, Any] = {"x": "RelativeTime(Process)", "title_x": "time"}
    memory = ("peak_memory/process", "peak_memory/cuda")
    return [
        _line(figure("inner_steps_per_second").label, "inner_steps_per_second"),
        _line("peak memory, MiB", *memory),
        wr.LinePlot(title="CPU, %", y=["system/cpu"], **time),
        wr.LinePlot(title="GPU, %", metric_regex=r"^system/gpu\.\d+\.gpu$", **time),
    ]
