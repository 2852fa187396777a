"""Pages that compare runs: names, shared baselines, what may be compared, where they lie."""

import sys
from pathlib import Path

import pytest

from learned_opt.commands import report
from learned_opt.evaluation.frames import distinct, select
from learned_opt.evaluation.results import Results
from learned_opt.reporting.comparison_page import (
    comparison_page,
    labels,
    write_comparison_page,
)
from learned_opt.reporting.merged_runs import merged
from learned_opt.reporting.record import Record, read_record
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


def test_equal_baselines_are_there_once(page, runs) -> None:
    assert page.title == "unf, deep_set, nfn on mlp"
    table = page.table("optimizer")
    assert list(table) == ["nfn", "unf", "deep_set", "adam", "sgdm"]  # best final loss first
    alone = Page((runs[1] / "report.html").read_text()).table("optimizer")
    assert alone == {name: table[name] for name in ("deep_set", "adam", "sgdm")}


def test_the_page_opens_with_the_lowest_losses(page) -> None:
    table = page.table("optimizer")
    lowest = f"lowest final loss of the runs {table['nfn']['final loss']} (nfn), "
    assert lowest + f"of the baselines {table['adam']['final loss']} (adam)" in page.text
    assert page.text.index("In short") < page.text.index("Result: mlp")


def test_runs_that_differ_in_their_seed_are_one_row_above_all(tmp_path) -> None:
    folders = []
    for name, rate in {"unf": 0.2, "deep_set": 0.15}.items():
        for seed in range(3):
            words = (f"meta_optimizer={name}", f"seed={seed}")
            folders.append(write_run(tmp_path / f"{name}{seed}", name, rate, words, seed=seed))

    page = Page(comparison_page([read_record(folder) for folder in folders]))
    (rows,) = [rows for rows in page.tables if "meta-seeds" in rows[0]]
    assert [row[:2] for row in rows[1:]] == [["unf", "3"], ["deep_set", "3"]]
    sentence = "mean loss: unf is better than deep_set, difference -"
    assert page.text.index("In short") < page.text.index(sentence)
    assert page.text.index(sentence) < page.text.index("lowest final loss of the runs")
    assert "is ahead of" in page.text  # single runs, below


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
    first = read_record(write_run(tmp_path / "unf", "unf"))
    other = read_record(write_run(tmp_path / "nfn", "nfn"))
    assert other.results
    changed = other.results.frame
    is_adam = changed["optimizer"] == "adam"
    changed.loc[is_adam, "mean_loss"] *= 1.1
    results = Results("adam", ["nfn"], frames=[changed], curves=other.results.curves)

    frame, curves = merged({"unf": first, "nfn": Record(other.folder, results)}, "mlp")
    names = ["unf", "nfn", "sgdm", "adam", "adam of nfn"]
    assert distinct(frame, "optimizer") == names
    assert list(curves["mlp", 30]) == names
    shown = select(frame, optimizer="adam of nfn")["mean_loss"].tolist()
    assert shown == select(changed, optimizer="adam")["mean_loss"].tolist()


def test_runs_on_other_tasks_are_shown_but_not_compared(tmp_path) -> None:
    longer = read_record(write_run(tmp_path / "30", "unf", horizon=30))
    shorter = read_record(write_run(tmp_path / "20", "nfn", horizon=20))
    shown = Page(comparison_page([longer, shorter]))
    assert (
        "unf and nfn cannot be compared by their numbers, their runs differ in horizon 30 and 20."
        in shown.text
    )
    assert "ahead of nfn" not in shown.text
    first, second = [table for table in shown.tables if "mean loss" in table[0]]
    assert sorted(row[0] for row in first[1:]) == ["adam", "sgdm", "unf"]
    assert sorted(row[0] for row in second[1:]) == ["adam of nfn", "nfn", "sgdm of nfn"]


def test_missing_files_are_named_by_run(runs, tmp_path) -> None:
    old = write_run(tmp_path / "old", "lstm")
    (old / "curves.parquet").unlink()
    shown = Page(comparison_page([read_record(runs[0]), read_record(old)]))
    assert "lstm: curves.parquet is not there" in shown.text


@pytest.mark.parametrize(
    ("runs_of", "expected"),
    [
        ([("unf", "a"), ("nfn", "b")], ["unf", "nfn"]),
        ([("unf", "seed=0"), ("unf", "seed=1")], ["unf seed=0", "unf seed=1"]),
        ([("unf", "meta_optimizer=unf"), ("unf", "meta_optimizer=unf")], ["unf (0)", "unf (1)"]),
        ([("unf", "a=" + 60 * "x"), ("unf", "b=1")], ["unf (0)", "unf (1)"]),
    ],
)
def test_labels_are_short_and_tell_runs_apart(runs_of, expected) -> None:
    records = [
        Record(Path(f"sweep/{i}"), metadata={"optimizer_name": name}, overrides=["+task=mlp", word])
        for i, (name, word) in enumerate(runs_of)
    ]
    assert labels(records) == expected


def test_the_page_lies_beside_the_runs_and_a_multirun_is_all_its_jobs(
    runs, monkeypatch, capsys, tmp_path
) -> None:
    monkeypatch.setattr(sys, "argv", ["report", str(runs[0].parent)])
    report.main()
    beside = runs[0].parent / "comparison.html"
    assert Page(beside.read_text()).title == "unf, deep_set, nfn on mlp"
    assert capsys.readouterr().out.startswith("written: ")
    out = tmp_path / "elsewhere.html"
    assert write_comparison_page(runs[:2], out) == out
    assert Page(out.read_text()).title == "unf, deep_set on mlp"
    with pytest.raises(ValueError, match=r"runs must differ, but .*0 is given 2 times\."):
        write_comparison_page([runs[0], runs[0]])
