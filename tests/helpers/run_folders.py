"""Run folders as runs leave them, made from given losses; and a reader of pages."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learned_opt.deploy.weights import save_theta
from learned_opt.evaluation.compare import Comparison
from learned_opt.evaluation.seeded_runs import Runs
from learned_opt.reporting.curves import write_curves
from learned_opt.reporting.run_files import write_report
from learned_opt.reporting.tables import Entry

NUM_SEEDS, HORIZON = 6, 30


def comparison(learned: str, rate: float, horizon: int = HORIZON, seed: int = 0) -> Comparison:
    """Losses that fall at a rate of their own, and two baselines that are always the same."""
    entries = {}
    for i, (name, own, lr) in enumerate(
        ((learned, rate, None), ("sgdm", 0.05, 0.1), ("adam", 0.08, 0.01))
    ):
        noise = np.random.default_rng([seed if lr is None else 0, i]).random((horizon, NUM_SEEDS))
        losses = torch.as_tensor(np.exp(-own * np.arange(horizon))[:, None] * (2 + noise))
        heldout = {"accuracy": torch.linspace(0.8, 0.9, NUM_SEEDS), "test_loss": losses[-1] + 0.1}
        entries[name] = Entry(Runs(losses, heldout, {}), 0.1 * (i + 1), lr)
    return Comparison(entries, [f"a warning about {learned}"])


def write_run(
    folder: Path,
    learned: str = "unf",
    rate: float = 0.2,
    overrides: tuple[str, ...] = (),
    **settings: Any,
) -> Path:
    """What ``python -m learned_opt`` leaves in its folder, the checkpoint aside."""
    (folder / ".hydra").mkdir(parents=True)
    comparisons = {"mlp": comparison(learned, rate, **settings)}
    tasks = {"mlp": {"task": "mlp", "data": "digits", "fingerprint": "dd82963602a00ec7"}}
    facts = {
        "command": "python -m learned_opt +task=mlp",
        "seed": "0",
        "git": "278af7e",
        "torch": "2.13.0",
    }
    rows = [
        f"{step},{1 / (step + 1)},{0.5 if step > 1 else ''},{'' if step == 0 else 1000}"
        for step in range(5)
    ]
    (folder / "metrics.csv").write_text(
        "step,meta_loss/train,meta_loss/valid,inner_steps_per_second\n" + "\n".join(rows) + "\n"
    )
    write_report(folder, tasks, comparisons, learned, facts)
    write_curves(folder / "curves.csv", comparisons)
    metadata = {"optimizer_name": learned, "specs": {}, "tasks": tasks, "provenance": facts}
    save_theta(
        folder,
        {"w": torch.zeros(2)},
        {**metadata, "warnings": {"mlp": comparisons["mlp"].warnings}},
    )
    words = ["+task=mlp", *overrides]
    (folder / ".hydra/overrides.yaml").write_text("".join(f"- {word}\n" for word in words))
    (folder / ".hydra/config.yaml").write_text(
        f"seed: 0\nhorizon: 30\nnote: <script>{learned}</script>\n"
    )
    return folder


class Page(HTMLParser):
    """Title, tables as lists of rows of cells, addresses, tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text, self.title, self.open = "", "", ""
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
        own = next(table for table in self.tables if table[0][0] == heading)
        return {row[0]: dict(zip(own[0], row, strict=True)) for row in own[1:]}
