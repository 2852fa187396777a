"""Pages that compare runs: names, shared baselines, what may be compared, and where they are written."""

import sys
from pathlib import Path

import pytest

from learned_opt.commands import report
from learned_opt.reporting.comparison_page import (
    comparison_page,
    labels,
    merged,
    write_comparison_page,
)
from learned_opt.reporting.record import Record, read_record
from learned_opt.reporting.run_page import run_page
from tests.helpers.run_folders import Page, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Three runs as a multirun leaves them; tests read them."""
    sweep = tmp_path_factory.mktemp("sweep")
    rates = {"unf": 0.2, "deep_set": 0.15, "nfn": 0.3}
    return [
        write_run(sweep / str(i), name, rate, (f"meta_optimizer={name}",), seed=i)
        for i, (name, rate) in enumerate(rates.items())
    ]


@pytest.fixture(scope="module")
def page(runs) -> Page:
    return Page(comparison_page([read_record(folder) for folder in runs]))


def test_learned_optimizers_come_first_and_equal_baselines_once(page, runs) -> None:
    assert page.title == "unf, deep_set, nfn on mlp"
    table = page.table("optimizer")
    assert list(table) == ["unf", "deep_set", "nfn", "sgdm", "adam"]
    alone = Page(run_page(read_record(runs[1]))).table("optimizer")
    assert alone == {name: table[name] for name in ("deep_set", "sgdm", "adam")}


def test_every_run_is_judged_against_the_first(page) -> None:
    for sentence in (
        "mean loss: unf is ahead of deep_set, difference -",
        "mean loss: unf is behind nfn, difference +",
        "mean loss: unf is ahead of adam, difference -",
    ):
        assert sentence in page.text


def test_what_differs_is_a_line_for_each_key(page, runs) -> None:
    differing = page.tables[-2]
    assert differing == [
        ["setting", "unf", "deep_set", "nfn"],
        ["note", *(f"<script>{n}</script>" for n in differing[0][1:])],
    ]
    cards = page.tables[-1]
    assert ["run folder", "0", "1", "2"] in cards
    assert cards[0] == differing[0]


def test_a_baseline_that_came_out_otherwise_is_shown_for_each_run(tmp_path) -> None:
    first, other = (read_record(write_run(tmp_path / name, name)) for name in ("unf", "nfn"))
    changed = [
        {**row, "mean_loss": row["mean_loss"] * (1.1 if row["optimizer"] == "adam" else 1)}
        for row in other.rows
    ]
    rows, curves = merged({"unf": first, "nfn": Record(other.folder, changed, other.curves)}, "mlp")
    names = ["unf", "nfn", "sgdm", "adam", "adam of nfn"]
    assert list(dict.fromkeys(row["optimizer"] for row in rows)) == names
    assert list(curves) == names
    assert [row["mean_loss"] for row in rows if row["optimizer"] == "adam of nfn"] == [
        row["mean_loss"] for row in changed if row["optimizer"] == "adam"
    ]


def test_runs_on_other_tasks_are_shown_but_not_compared(tmp_path) -> None:
    records = [
        read_record(write_run(tmp_path / str(h), name, horizon=h))
        for name, h in (("unf", 30), ("nfn", 20))
    ]
    shown = Page(comparison_page(records))
    assert (
        "unf and nfn cannot be compared by their numbers, their runs differ in horizon 30 and 20."
        in shown.text
    )
    assert "ahead of nfn" not in shown.text
    assert list(shown.table("optimizer")) == [
        "unf",
        "nfn",
        "sgdm",
        "adam",
        "sgdm of nfn",
        "adam of nfn",
    ]


def test_missing_files_are_named_by_run(runs, tmp_path) -> None:
    old = write_run(tmp_path / "old", "lstm")
    (old / "curves.csv").unlink()
    shown = Page(comparison_page([read_record(runs[0]), read_record(old)]))
    assert "lstm: curves.csv is not there" in shown.text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("unf", "a"), ("nfn", "b")], ["unf", "nfn"]),
        ([("unf", "seed=0"), ("unf", "seed=1")], ["unf seed=0", "unf seed=1"]),
        ([("unf", "meta_optimizer=unf"), ("unf", "meta_optimizer=unf")], ["unf (0)", "unf (1)"]),
        ([("unf", "a=" + 60 * "x"), ("unf", "b=1")], ["unf (0)", "unf (1)"]),
    ],
)
def test_labels_are_short_and_tell_runs_apart(given, expected) -> None:
    records = [
        Record(Path(f"sweep/{i}"), metadata={"optimizer_name": name}, overrides=["+task=mlp", word])
        for i, (name, word) in enumerate(given)
    ]
    assert labels(records) == expected


def test_the_page_lies_beside_the_runs_and_a_multirun_is_all_its_jobs(
    runs, monkeypatch, capsys, tmp_path
) -> None:
    monkeypatch.setattr(sys, "argv", ["report", str(runs[0].parent)])
    report.main()
    beside = runs[0].parent / "comparison.html"
    assert Page(beside.read_text()).title == "unf, deep_set, nfn on mlp"
    assert capsys.readouterr().out.startswith("written to ")
    out = tmp_path / "elsewhere.html"
    assert write_comparison_page(runs[:2], out) == out
    assert Page(out.read_text()).title == "unf, deep_set on mlp"
    with pytest.raises(ValueError, match=r"runs must differ, but .*0 is given 2 times\."):
        write_comparison_page([runs[0], runs[0]])
