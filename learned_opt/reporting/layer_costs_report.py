"""The tables and the page of what layers cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learned_opt.core.files import write_json, write_text
from learned_opt.evaluation.cost.layer_costs import COSTS, COUNTS, FIGURES, RIVALS, growth
from learned_opt.reporting.tables import table_of

COST_HEADINGS = tuple(f"{cost}{over}" for cost in COSTS for over in ("", " / P", " / A"))
HEADINGS = ("case", "size", *COUNTS, *COST_HEADINGS)
SCREEN = ("case", "size", "parameters", *HEADINGS[-6:])  # what fits a terminal
GROWTH_HEADINGS = ("case", "grows", *FIGURES)
NOTES = """\
eval: a forward pass without gradients. train: a forward pass, and the gradients of inputs and
parameters. Medians of interleaved rounds; KiB is the most that the tensors made in train held
at once. / P and / A: over the same of a plain linear layer on the same inputs that has as
many parameters, or takes as many multiply-adds. Active parameters and multiply-adds are those
of one example. Growth: exponents of power laws of the size, 1 is linear."""


def cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``layer_costs.measure`` as text, with the headings as keys."""
    texts = {"case": row["case"], "size": f"{row['grows']} {row['value']}"}
    for name in COUNTS:
        texts[name] = f"{row[name]:,}"

    for cost in COSTS:
        value = row[cost]
        texts[cost] = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

        for rival in RIVALS:
            texts[f"{cost} / {rival}"] = f"{value / row[f'{cost} of {rival}']:.2f}"

    return texts


def write(folder: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write ``networks.json`` and ``networks.md``.

    Args:
        folder: run folder.
        rows: of ``layer_costs.measure``.
        facts: what a reader needs to repeat it.
    """
    exponents = growth(rows)
    write_json(folder / "networks.json", {**facts, "rows": rows, "growth": exponents})

    page = table_of(HEADINGS, map(cells, rows)).markdown
    grown = table_of(GROWTH_HEADINGS, exponents).markdown
    lines = "\n".join(f"{name}: {value}  " for name, value in facts.items())
    text = f"# Cost of layers\n\n{page}\n\n## Growth\n\n{grown}\n\n{NOTES}\n\n{lines}\n"
    write_text(folder / "networks.md", text)
