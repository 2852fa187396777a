"""The W&B workspace and report of a project: what they show, as wandb-workspaces' objects and as JSON.

That library offers no way to write a workspace to a file; its private ``_to_model`` and ``_from_model`` are used for it
here and nowhere else, which is why its version is pinned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wandb_workspaces import expr
from wandb_workspaces import workspaces as ws
from wandb_workspaces.reports.v2 import interface as wr
from wandb_workspaces.workspaces import internal

from learned_opt.evaluation.behaviour import QUANTITIES
from learned_opt.reporting.behaviour_plot import LABELS, LOGARITHMIC

STEP = "trainer/global_step"  # outer steps; W&B's own step starts again when a run resumes
HELDOUT = ("mean_loss", "final_loss", "accuracy")


@dataclass(frozen=True)
class Scope:
    """What a dashboard is about.

    Args:
        entity: user or team that the project belongs to.
        project: W&B project.
        runs: ``("Group", name)`` for those of a sweep, ``("ID", id)`` for one; None for all.
        tasks: that the runs were made on.
        baselines: hand-designed optimizers that they were compared with.
    """

    entity: str
    project: str
    runs: tuple[str, str] | None
    tasks: Sequence[str]
    baselines: Sequence[str]

    @property
    def title(self) -> str:
        """Name of the dashboard."""
        return f"Learned optimizers: {self.runs[1] if self.runs else self.project}"

    @property
    def filters(self) -> Any:
        """What picks the runs."""
        return expr.And(expr.Metric(self.runs[0]) == self.runs[1]) if self.runs else ""


def workspace(scope: Scope) -> ws.Workspace:
    """The workspace: meta-training, held-out comparison, layers, system."""
    sections = [
        ws.Section(
            name=name,
            panels=panels,
            is_open=True,
            layout_settings=ws.SectionLayoutSettings(columns=3, rows=3),
            panel_settings=ws.SectionPanelSettings(x_axis=STEP),
        )
        for name, panels in _sections(scope).items()
    ]
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
        _line("meta-loss, training", metric_regex="^meta_loss/train", **smooth),
        _line("meta-loss of theta itself, validation seeds", metric_regex="^meta_loss/valid"),
        _line("final loss, validation seeds", metric_regex="^final_loss/valid"),
        _line("norm of the meta-gradient", "meta_grad_norm", log_y=True, **smooth),
        _line("signal to noise of one estimate", "meta_grad_snr", **smooth),
        _line("tasks left out, not finite", "nonfinite_pairs"),
        _line("restarts", "restarts"),
    ]


def _comparison(scope: Scope) -> list[Any]:
    by_optimizer = {
        "groupby": wr.Config("optimizer_name"),
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stderr",
    }
    panels: list[Any] = []
    for task in scope.tasks:
        for figure in HELDOUT:
            keys: list[Any] = [
                f"{figure}/heldout/{task}",
                *(f"{figure}/heldout/{task}/{name}" for name in scope.baselines),
            ]
            panels.append(
                wr.BarPlot(
                    title=f"{task}: {figure.replace('_', ' ')}, held-out seeds",
                    metrics=keys,
                    **by_optimizer,
                )
            )
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
    lines = [
        _line(
            f"{LABELS[name]}, mean over inner time",
            metric_regex=f"^{name}/",
            log_y=name in LOGARITHMIC or None,
        )
        for name in QUANTITIES
    ]
    return [
        *lines,
        wr.MediaBrowser(title="over inner time", media_keys=["pictures/behaviour"], num_columns=1),
        wr.WeavePanelSummaryTable(table_name="diagnostics"),
    ]


def _system() -> list[Any]:
    time: dict[str, Any] = {"x": "RelativeTime(Process)", "title_x": "time"}
    return [
        _line("inner steps per second", "inner_steps_per_second"),
        _line("peak memory, MiB", "peak_memory/process", "peak_memory/cuda"),
        wr.LinePlot(title="CPU, %", y=["system/cpu"], **time),
        wr.LinePlot(title="GPU, %", metric_regex=r"^system/gpu\.\d+\.gpu$", **time),
    ]
