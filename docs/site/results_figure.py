"""Draws the first picture of the README from the table of docs/results/index.md."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
from boxes import save

DOCS = Path(__file__).parents[1]
TABLE = DOCS / "results" / "index.md"
PICTURE = DOCS / "learned_against_tuned.png"
ROWS = {  # row of the table -> its colour: learned ones are warm, tuned ones cold
    "unf_muon": "#b5460f",
    "unf": "#f28e2b",
    "best other": "#1f5a8a",
    "muon_cosine": "#6fa8d6",
    "adamw": "#a9b4bd",
}
LABELS = {
    "unf_muon": "UNF on Muon's steps (learned)",
    "unf": "UNF (learned)",
    "muon_cosine": "Muon, tuned and annealed",
    "adamw": "AdamW, tuned",
}
CELL = re.compile(r"([\d.]+) \[([\d.]+), ([\d.]+)\](?: (\w+))?")


def read_table() -> tuple[list[str], dict[str, list[re.Match | None]]]:
    """Titles of the columns, and the cells of each row that is drawn."""
    text = TABLE.read_text().split("## The UNF paper's four settings")[1]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    cells = {row[0]: [CELL.search(text) for text in row[1:]] for row in split if row[0] in ROWS}
    return split[0][1:], cells


def draw() -> plt.Figure:
    """A panel for each task; lower is better."""
    titles, cells = read_table()
    figure, panels = plt.subplots(1, len(titles), figsize=(10, 3.0), layout="constrained")
    for column, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        names = []
        for position, (row, color) in enumerate(ROWS.items()):
            match = cells[row][column]
            assert match is not None, (row, title)
            mean, low, high = (float(number) for number in match.groups()[:3])
            around = [[mean - low], [high - mean]]
            style = {"fmt": "o", "color": color, "capsize": 3, "markersize": 6}
            panel.errorbar(mean, -position, xerr=around, **style)
            other = (
                str(match[4])
                .replace("_cosine", ", annealed")
                .replace("soap", "SOAP")
                .replace("muon", "Muon")
            )
            names.append(LABELS.get(row, other))

        panel.set_title(title.replace(", ", "\n", 1), fontsize=9)
        panel.tick_params(labelsize=8)
        panel.set_yticks([-position for position in range(len(names))])
        panel.set_ylim(-len(names) + 0.4, 0.6)
        panel.grid(axis="x", color="#e3e3e3")
        panel.annotate(names[2], (0.98, 0.53), xycoords="axes fraction", ha="right", fontsize=8)
        names[2] = "best other, tuned"
        panel.set_yticklabels(names if column == 0 else [""] * len(names), fontsize=9)
    figure.supxlabel("training loss after 200 steps, 16 held-out seeds, 95% intervals", fontsize=9)
    return figure


if __name__ == "__main__":
    save(draw(), PICTURE)
