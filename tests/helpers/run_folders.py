"""Run folders as runs leave them, made from given losses; and a reader of pages."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learned_opt.core.files import write_text
from learned_opt.deploy.weights import save_theta
from learned_opt.evaluation import scores
from learned_opt.evaluation.cells import Cell, runs_table
from learned_opt.evaluation.curves import write_curves
from learned_opt.evaluation.results import Results, write_evaluation
from learned_opt.evaluation.seeded_runs import Runs
from learned_opt.reporting.run_report import write_run_report
from learned_opt.runtime.run_folder import RunFolder

NUM_SEEDS = 6
HORIZON = 30
TASKS = {"mlp": {"task": "mlp", "data": "digits", "fingerprint": "dd82963602a00ec7"}}
FACTS = {
    "command": "python -m learned_opt +task=mlp",
    "seed": "0",
    "git": "278af7e",
    "torch": "2.13.0",
}


def cell_of(losses: torch.Tensor, learning_rate: float | None = None, **heldout: Any) -> Cell:
    """A cell with these training losses ``(T, M)`` and figures on held-out data ``(M,)``."""
    table = runs_table(
        Runs(losses.double(), heldout, {}), ["same"] * losses.shape[1], range(losses.shape[1])
    )
    tuning = None if learning_rate is None else {"learning_rate": learning_rate}
    return Cell(table, tuning, {})


def comparison(learned: str, rate: float, horizon: int = HORIZON, seed: int = 0) -> dict[str, Cell]:
    """Losses that fall at a rate of their own, and two baselines that are always the same."""
    cells = {}
    optimizers = ((learned, rate, None), ("sgdm", 0.05, 0.1), ("adam", 0.08, 0.01))
    for i, (name, decay, learning_rate) in enumerate(optimizers):
        source = np.random.default_rng([seed if learning_rate is None else 0, i])
        noise = source.random((horizon, NUM_SEEDS))
        losses = torch.as_tensor(np.exp(-decay * np.arange(horizon))[:, None] * (2 + noise))
        accuracy = torch.linspace(0.8, 0.9, NUM_SEEDS)
        test_loss = losses[-1] + 0.1
        cells[name] = cell_of(losses, learning_rate, accuracy=accuracy, test_loss=test_loss)
    return cells


def results_of(
    cells: dict[str, Cell], task: str = "mlp", learned: tuple[str, ...] = (), **setting: Any
) -> Results:
    """What an evaluation with these cells came to; the first optimizer is the learned one."""
    columns = {"task": task, "axis": "", "point": ""} | setting
    horizon = len(next(iter(cells.values())).runs.losses)
    times = {name: 0.1 * (i + 1) for i, name in enumerate(cells)}
    reference = scores.reference_row(list(cells), "adam")
    frame = scores.rows({"horizon": horizon, **columns}, cells, reference, times)
    curves = {name: cell.runs.losses.numpy() for name, cell in cells.items()}
    return Results(
        reference="adam" if reference else "",
        learned=list(learned) or [next(iter(cells))],
        facts=FACTS,
        frames=[frame],
        curves={(task, horizon): curves},
        described={task: TASKS["mlp"] | {"task": task}},
    )


def write_run(
    path: Path,
    learned: str = "unf",
    rate: float = 0.2,
    overrides: tuple[str, ...] = (),
    **settings: Any,
) -> Path:
    """What ``python -m learned_opt`` leaves in its folder, the checkpoint aside."""
    folder = RunFolder(path)
    results = results_of(comparison(learned, rate, **settings))
    results.warnings = [f"a warning about {learned}"]
    write_evaluation(folder.evaluation, results)
    write_curves(folder.curves, results.curves)

    lines = ["step,meta_loss/train,meta_loss/valid,inner_steps_per_second"]
    for step in range(5):
        valid = 0.5 if step > 1 else ""
        rate_of_step = "" if step == 0 else 1000
        lines.append(f"{step},{1 / (step + 1)},{valid},{rate_of_step}")
    write_text(folder.metrics, "\n".join(lines) + "\n")

    metadata = {"optimizer_name": learned, "specs": {}, "tasks": TASKS, "provenance": FACTS}
    save_theta(path, {"w": torch.zeros(2)}, metadata)
    words = ["+task=mlp", *overrides]
    write_text(folder.overrides, "".join(f"- {word}\n" for word in words))
    write_text(folder.config, f"seed: 0\nhorizon: 30\nnote: <script>{learned}</script>\n")
    write_run_report(path)
    return path


class Page(HTMLParser):
    """Title, tables as lists of rows of cells, addresses, tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.title = ""
        self.open = ""  # tag
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a table, a row or a cell; note addresses."""
        self.tags.append(tag)
        self.open = tag
        self.addresses += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "srcset", "action", "data")
        ]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Text behind a cell is of no cell."""
        self.open = ""

    def handle_data(self, data: str) -> None:
        """Text of the open tag."""
        if self.open in ("th", "td"):
            self.tables[-1][-1][-1] += data
        if self.open == "title":
            self.title += data
        if self.open not in ("style", "script"):
            self.text += data

    def table(self, heading: str) -> dict[str, dict[str, str]]:
        """The first table that begins with a heading: first cell -> heading -> cell."""
        first = next(table for table in self.tables if table[0][0] == heading)
        return {row[0]: dict(zip(first[0], row, strict=True)) for row in first[1:]}
