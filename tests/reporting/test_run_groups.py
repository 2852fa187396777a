"""A page of very many runs: groups of those that differ in their seed, as many as can be read."""

import math
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from learned_opt.evaluation.frames import select
from learned_opt.evaluation.generalisation import FAILURE
from learned_opt.reporting import plots, sections
from learned_opt.reporting.comparison_page import comparison_page
from learned_opt.reporting.record import Record
from learned_opt.reporting.run_groups import MANY, best_groups, counted, group_names, table_of_runs
from tests.helpers.run_folders import Page, comparison, results_of


def record_of(rate: float, seed: int) -> Record:
    words = ["+task=mlp", f"outer_optimizer.lr={rate}", f"seed={seed}"]
    metrics = pd.DataFrame({"step": [0, 1], "meta_loss/train": [1.0 + seed, 0.5 + seed]})
    return Record(
        Path(f"sweep/{rate}-{seed}"),
        results_of(comparison("unf", rate, seed=seed)),
        metrics=metrics,
        metadata={"optimizer_name": "unf", "tasks": {"mlp": {"task": "mlp"}}},
        config=f"seed: {seed}\nlr: {rate}\n",
        overrides=words,
        missing=["theta.json is not there"],
    )


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Twenty learning rates with ten seeds each."""
    records = []
    for i in range(20):
        for seed in range(10):
            records.append(record_of(round(0.05 + 0.01 * i, 2), seed))
    return records


def test_a_page_of_200_runs_can_be_read(records) -> None:
    text = comparison_page(records)
    page = Page(text)
    assert page.title == "200 runs of unf on mlp"
    assert "Of 20 groups the 8 of the lowest final loss are compared here" in page.text
    assert len(text) < 1_000_000
    assert page.tags.count("li") < 40

    table = page.table("optimizer")
    assert len(table) == MANY + 2  # with the two baselines
    assert next(iter(table)) == "unf lr=0.24 (10 runs)"
    assert len(page.table("run")) == 200
    assert "200 runs, first unf" in page.text
    assert "unf lr=0.24 (10 runs) is ahead of adam" in page.text


def test_a_group_is_the_mean_of_its_runs_on_each_held_out_seed(records) -> None:
    (label, group), *_ = best_groups(records[-10:]).items()
    assert label == "unf (10 runs)"  # nothing but the seed differs
    rows = select(group.frame, optimizer=label)
    members = [select(record.frame, optimizer="unf") for record in records[-10:]]
    for seed in range(6):
        losses = [float(select(member, seed=seed)["final_loss"].item()) for member in members]
        (mean,) = select(rows, seed=seed)["final_loss"].tolist()
        assert mean == pytest.approx(sum(losses) / 10)

    assert group.metrics["meta_loss/train"].tolist() == pytest.approx([5.5, 5.0])
    assert group.results
    assert group.results.curves["mlp", 30][label].shape == (30, 60)
    assert set(group.frame["optimizer"]) == {label, "sgdm", "adam"}


def test_a_group_of_which_a_run_diverged_diverged_on_that_seed() -> None:
    records = [record_of(0.1, 0), record_of(0.1, 1)]
    assert records[0].results
    frame = records[0].results.frame
    lost = (frame["optimizer"] == "unf") & (frame["seed"] == 3)
    frame.loc[lost, ["mean_loss", "final_loss"]] = math.inf
    frame.loc[lost, "diverged"] = True
    records[0].results.frames = [frame]

    (group,) = best_groups(records).values()
    rows = select(group.frame, optimizer="unf (2 runs)")
    assert rows["diverged"].tolist() == [seed == 3 for seed in range(6)]
    assert rows["final_loss"].map(math.isinf).tolist() == rows["diverged"].tolist()


def test_runs_without_an_evaluation_are_told_apart_from_those_with_one(records) -> None:
    bare = Record(Path("sweep/bare"), overrides=["+task=mlp", "seed=77"])
    table = table_of_runs([records[0], bare], ["mlp"])
    assert table.rows[1][-1] == "-"
    assert len(best_groups([*records[:3], bare])) == 2


def test_names_of_groups_are_short_and_differ() -> None:
    def record(*words: str) -> Record:
        return Record(Path("sweep/1"), metadata={"optimizer_name": "unf"}, overrides=list(words))

    ambiguous = [record("a.lr=1", "b.lr=2"), record("a.lr=2", "b.lr=2")]
    assert group_names(ambiguous) == ["unf a.lr=1", "unf a.lr=2"]
    labels = list(best_groups([record("a=" + 50 * "x" + end) for end in "12"]))
    assert len(set(labels)) == 2
    assert max(map(len, labels)) < 45


def test_what_runs_lack_is_a_line_for_each_sentence() -> None:
    assert counted({"a": ["x", "y"], "b": ["x"]}) == ["a, b: x", "a: y"]


def test_bold_of_markdown_is_not_on_the_page() -> None:
    note = FAILURE.format(reference="adam")
    assert "**first failure**" in sections.markdown("t", {"card": [note]})
    page = sections.page("t", {"card": [note]})
    assert "first failure" in page
    assert "**" not in page


def test_a_curve_of_one_point_can_be_seen() -> None:
    """A signal to noise that was measured once has no line."""
    axes = Figure().subplots()
    plots.outer_panel(axes, {"snr": [(0, 1.5)]}, {}, "", "signal to noise")
    markers = [line.get_marker() for line in axes.lines]
    assert any(marker not in ("None", "", None) for marker in markers)
    plots.outer_panel(axes, {"snr": [(0, 1.5), (1, 2.0)]}, {}, "", "signal to noise")
    assert axes.lines[-1].get_marker() == "None"
