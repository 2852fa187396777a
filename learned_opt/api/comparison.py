"""What ``compare`` came to: rows, tables as text, paired differences, a report."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from learned_opt.evaluation import scores
from learned_opt.evaluation.curves import write_curves
from learned_opt.evaluation.frames import distinct, groups, select
from learned_opt.evaluation.results import LOSSES, SETTING, Results, write_evaluation
from learned_opt.reporting import result_tables
from learned_opt.reporting.results_screen import show_tables
from learned_opt.reporting.run_report import write_run_report
from learned_opt.runtime.run_folder import RunFolder

WIDTH = 100  # columns of the text


class Comparison:
    """Optimizers that trained the same networks on the same held-out seeds.

    Printed, it is a table for each task, sentences that tell who is ahead, and what a reader must
    know of the numbers.

    Args:
        results: of the evaluation.
    """

    def __init__(self, results: Results) -> None:
        self.results = results

    @property
    def frame(self) -> pd.DataFrame:
        """One row for each task, optimizer and seed."""
        return self.results.frame

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers must know."""
        return list(self.results.warnings)

    @property
    def differences(self) -> pd.DataFrame:
        """Each learned optimizer against each other one: difference in loss, paired over seeds.

        ``low`` and ``high`` are the ends of a 95% interval; below 0 the optimizer is ahead.
        """
        rows = []
        for (task, horizon), group in groups(self.frame, ["task", "horizon"]):
            names = distinct(group, "optimizer")
            for name in self.results.learned:
                for rival in names:
                    if name != rival and name in names:
                        setting = {"task": task, "horizon": horizon}
                        rows += [{**setting, **row} for row in _differences(group, name, rival)]
        return pd.DataFrame(rows)

    def table(self, width: int = WIDTH) -> str:
        """All tables, verdicts and notes as plain text.

        Args:
            width: columns of the text.
        """
        console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
        show_tables(self.results, console)
        assert isinstance(console.file, io.StringIO)
        lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
        return "\n".join(lines).strip()

    def report(self, folder: str | Path) -> Path:
        """Write the rows, the learning curves and a page with pictures.

        Args:
            folder: made where it is missing.

        Returns:
            Path: the page, which needs no other file.

        Raises:
            OSError: the folder cannot be written to.
        """
        files = RunFolder(Path(folder))
        write_evaluation(files.evaluation, self.results)
        write_curves(files.curves, self.results.curves)
        write_run_report(files.path)
        return files.report

    def __repr__(self) -> str:
        return self.table()

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        by_setting: dict[tuple[object, ...], list[dict[str, Any]]] = {}
        for row in scores.summarise(self.frame, self.results.reference):
            setting = tuple(row[key] for key in SETTING)
            by_setting.setdefault(setting, []).append(row)

        parts = []
        for setting, group in by_setting.items():
            table = result_tables.comparison_table(group, result_tables.TERMINAL)
            parts.append(f"**{setting[0]}, horizon {setting[1]}**\n\n{table.markdown}")
        notes = [f"- {sentence}" for sentence in self.notes]
        return "\n\n".join([*parts, "\n".join(notes)]).strip()


def _differences(group: pd.DataFrame, name: str, rival: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for figure in LOSSES:
        left = select(group, optimizer=name)[figure].tolist()
        right = select(group, optimizer=rival)[figure].tolist()
        interval = scores.paired_or_diverged(left, right)
        row = {"optimizer": name, "rival": rival, "figure": figure}
        rows.append(
            {**row, "difference": interval.mean, "low": interval.low, "high": interval.high}
        )
    return rows
