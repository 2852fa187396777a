"""The results table is made of files alone."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from learned_opt.evaluation.results import COLUMNS, Results, write_evaluation
from learned_opt.reporting.results_table import table
from learned_opt.runtime.run_folder import RunFolder


def suite(path: Path, losses: dict[str, list[float]], task: str = "mlp", axis: str = "") -> Path:
    rows = []
    for name, values in losses.items():
        for seed, loss in enumerate(values):
            row = {"task": task, "axis": axis, "horizon": 200, "optimizer": name, "seed": seed}
            rows.append({**row, "final_loss": loss, "diverged": math.isinf(loss)})
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    results = Results(frames=[frame], described={task: {"data": "digits"}})
    write_evaluation(RunFolder(path).evaluation, results)
    return path


def cells(text: str, row: int) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[row].strip("|").split("|")]


def test_optimizers_by_settings_with_the_best_marked(tmp_path) -> None:
    one = suite(
        tmp_path / "one",
        {"unf": [1.0, 1.2, 1.1, 1.1], "adam": [2.0, 2.2, 2.1, 2.1], "sgdm": [0.9, 1.4, 1.2, 1.1]},
    )
    two = suite(tmp_path / "two", {"adam": [3.0, 3.0], "lion": [4.0, math.inf]}, task="cnn")
    text = table([one, two])
    assert cells(text, 0) == [
        "optimizer",
        "mlp, digits, 200 steps, 4 seeds",
        "cnn, digits, 200 steps, 2 seeds",
    ]
    lines = {cells(text, row)[0]: cells(text, row) for row in range(2, 6)}
    assert list(lines) == ["unf", "adam", "sgdm", "lion"]
    unf = lines["unf"]
    adam = lines["adam"]
    sgdm = lines["sgdm"]
    lion = lines["lion"]
    assert unf[1].startswith("**1.1000 [")
    assert adam[1].startswith("2.1000 [")  # behind, with an interval that says so
    assert sgdm[1].startswith("_1.1500 [")  # its difference from the best can be 0
    assert lion[1] == unf[2] == "-"
    assert (adam[2], lion[2]) == ("**3.0000 [3.0000, 3.0000]**", "diverged 1/2")
    assert table([one, two, one]) == text
    short = table([one, two], ["unf"])
    assert [cells(short, row)[0] for row in (2, 3)] == ["unf", "best other"]
    assert cells(short, 2)[1] == unf[1]
    assert cells(short, 3)[1:] == [f"{sgdm[1]} sgdm", f"{adam[2]} adam"]
    with pytest.raises(ValueError, match="rows must be among unf, adam, sgdm, lion, got mlp"):
        table([one, two], ["unf", "mlp"])


def test_points_of_a_card_are_no_settings(tmp_path) -> None:
    with pytest.raises(ValueError, match="hold no results of a task"):
        table([suite(tmp_path / "one", {"adam": [1.0]}, axis="wider")])


def test_the_folder_of_an_earlier_training_counts_too(tmp_path) -> None:
    row = {"task": "mlp", "horizon": 200, "optimizer": "unf", "mean_loss": 1.0, "ms_per_step": 1}
    rows = [row | {"seed": 0, "final_loss": 1.5}, row | {"seed": 1, "final_loss": None}]
    (tmp_path / "evaluation.json").write_text(json.dumps(rows))
    assert cells(table([tmp_path]), 2) == ["unf", "diverged 1/2"]


def test_what_cannot_be_a_table_is_refused(tmp_path) -> None:
    one = suite(tmp_path / "one", {"adam": [1.0, 2.0]})
    two = suite(tmp_path / "two", {"adam": [1.0, 2.5]})
    message = r"one and .*two disagree on adam on mlp, digits, 200 steps, seed 1; leave one"
    with pytest.raises(ValueError, match=message):
        table([one, two])
    with pytest.raises(ValueError, match="holds no results of an evaluation"):
        table([tmp_path])
    with pytest.raises(ValueError, match="name at least one run folder"):
        table([])
    (one / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        table([one])
    (tmp_path / "results.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is of a version before 0\.2"):
        table([tmp_path])
