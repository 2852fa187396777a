"""Time-to-target scores: AlgoPerf's formula by hand, workloads, intervals, any set of folders."""

import math

import numpy as np
import pandas as pd
import pytest

from learned_opt.evaluation.aggregate import profile
from learned_opt.evaluation.benchmark import Benchmark
from learned_opt.evaluation.results import COLUMNS, Results, write_evaluation
from learned_opt.evaluation.scores import rows as rows_of
from learned_opt.evaluation.scores import summarise
from learned_opt.evaluation.time_to_target import benchmark_scores, score_optimizers
from learned_opt.evaluation.tuning import tune
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_adam
from learned_opt.reporting import pooled_scores
from learned_opt.reporting.score_tables import score_table
from learned_opt.runtime.run_folder import RunFolder
from tests.cases import FAMILIES, spec_of
from tests.evaluation.test_test_losses import cell

TIMES = [[100.0, 50.0, math.inf], [150.0, 200.0, 30.0], [400.0, 49.0, 120.1]]  # of AlgoPerf's code
SCORES = [0.664399, 0.611111, 0.333333]


def rows(times: dict[str, list[list[float]]], seconds: float = 0.01) -> pd.DataFrame:
    """A frame: optimizer -> workload -> steps on each seed."""
    parts = []
    for name, workloads in times.items():
        for workload, steps in enumerate(workloads):
            for seed, step in enumerate(steps):
                row = {"task": f"task{workload}", "horizon": 400, "axis": "", "optimizer": name}
                row |= {"seed": seed, "steps_to_target": step, "target_loss": 1.0}
                row |= {"seconds_to_target": step * seconds, "ms_per_step": 1e3 * seconds}
                parts.append({**row, "final_loss": 1.0, "diverged": False})
    return pd.DataFrame(parts)


def test_the_score_is_the_area_below_the_profile_up_to_four() -> None:
    assert benchmark_scores(np.array(TIMES)).tolist() == pytest.approx(SCORES, abs=5e-7)
    ratios = np.linspace(1, 4, 30_001)
    shares = profile(dict(zip("abc", TIMES, strict=True)), ratios)
    for values, score in zip(shares.values(), SCORES, strict=True):
        assert np.trapezoid(values, ratios) / 3 == pytest.approx(score, abs=1e-4)
    nobody = benchmark_scores(np.array([[10.0, math.inf], [20.0, math.inf]]))
    assert nobody.tolist() == pytest.approx([1 / 2, 1 / 3])


def test_a_workload_takes_the_median_of_its_seeds() -> None:
    times = {"a": [[90, 100, 300]], "b": [[50, 200, math.inf]], "c": [[1, math.inf, math.inf]]}
    by_name = {row.optimizer: row for row in score_optimizers(rows(times), "steps_to_target")}
    assert [by_name[name].score.mean for name in "abc"] == pytest.approx([1.0, 2 / 3, 0.0])
    assert [by_name[name].reached for name in "abc"] == [1, 1, 0]


def test_intervals_cover_and_paired_seeds_cancel() -> None:
    source = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        noise = source.lognormal(0, 0.3, (2, 9))
        times = {"a": [list(100 * noise[0])], "b": [list(200 * noise[1])]}
        score = score_optimizers(rows(times), "steps_to_target")[1].score
        covered += score.low <= 2 / 3 <= score.high
    assert covered >= 90
    common = source.lognormal(0, 0.5, 9)
    times = {"a": [list(100 * common)], "b": [list(200 * common)]}
    paired = score_optimizers(rows(times), "steps_to_target")[1].score
    assert list(paired) == pytest.approx([2 / 3] * 3)


def test_what_was_not_run_or_had_no_target() -> None:
    times = {"a": [[10.0, 10.0], [math.nan, 20.0]], "b": [[20.0, 20.0]]}
    a, b = score_optimizers(rows(times), "steps_to_target")
    assert (a.score.mean, a.reached, a.workloads) == (1.0, 2, 2)
    assert (b.score.mean, b.reached) == (pytest.approx(1 / 3), 1)
    assert score_optimizers(rows({"a": [[math.nan]], "b": [[math.nan]]}), "steps_to_target") == []
    assert score_table(rows({"a": [[10.0]]})) is None


def test_speedups_to_the_best_test_loss_by_hand() -> None:
    cells = {
        "adam": cell([[3.0, 2.0, 2.5], [3.0, 3.0, 1.0], [math.nan] * 3]),
        "unf": cell([[2.0, 1.0, 1.0], [2.0, 2.0, 1.5], [1.0, 1.0, 1.0]]),
    }
    setting = {"task": "mlp", "horizon": 6, "axis": "", "point": ""}
    frame = rows_of(setting, cells, "adam", {}).assign(diverged=False, min_loss=1.0, mean_loss=1.0)
    speedups = {name: part["test_speedup"].tolist() for name, part in frame.groupby("optimizer")}
    assert speedups["adam"][:2] == [1.0, 1.0]
    assert speedups["unf"][:2] == [2.0, 0.0]
    assert math.isnan(speedups["unf"][2])
    by_name = {row["optimizer"]: row for row in summarise(frame, "adam")}
    assert by_name["unf"]["test_speedup"].mean == 1.0


def test_a_fixed_target_stands_in_for_the_references_loss() -> None:
    cells = {"adam": cell([[3.0]] * 2), "unf": cell([[3.0]] * 2)}
    for name, losses in {"adam": [2.0, 0.5], "unf": [0.5, 0.5]}.items():
        cells[name].table["losses"] = [[loss] * 2 for loss in losses]
        cells[name].table["final_loss"] = losses
    setting = {"task": "mlp", "horizon": 2, "axis": "", "point": ""}
    frame = rows_of(setting, cells, "adam", {}, 1.0)
    assert frame["target_loss"].tolist() == [1.0] * 4
    assert frame["steps_to_target"].tolist() == [math.inf, 2.0, 2.0, 2.0]
    # nobody is so many times as fast as what never gets there
    assert frame["speedup"].isna().tolist() == [True, False, True, False]


def test_tuning_for_the_best_test_loss_and_evenly_spaced_rates(tmp_path) -> None:
    rates = Benchmark(
        20, 2, 2, {}, 5e-4, 1e-2, 20, 1, spacing="linear", tuned_for=["test_loss"], heldout_every=10
    ).learning_rates
    assert rates == pytest.approx([0.0005 * j for j in range(1, 21)], rel=1e-12)
    task = FAMILIES["mlp"]()
    unroll = Unroll(task, make_adam(spec_of(task)), compile=False)
    # the last rate is too high: its best test loss is that of its first steps
    rates = [1e-4, 1e-2, 3.0]
    plain = tune(unroll, make_adam, rates, 1, 20, 3, tmp_path)
    measured = tune(unroll, make_adam, rates, 1, 20, 3, tmp_path, heldout_every=10)
    assert set(measured.scores) == {*plain.scores, "test_loss"}
    assert measured.best("test_loss") == 1e-2
    again = tune(unroll, make_adam, rates, 1, 20, 3, tmp_path, heldout_every=10)
    assert again.num_reused == 3
    assert again.scores["test_loss"].equal(measured.scores["test_loss"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"spacing": "cubic"}, "spacing must be among log, linear, got 'cubic'"),
        ({"tuned_for": ["test_loss"]}, "tuned_for test_loss needs heldout_every"),
    ],
)
def test_what_cannot_be_tuned_is_refused(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        Benchmark(20, 2, 2, {}, 5e-4, 1e-2, 20, 1, **values)


def folder(path, frame: pd.DataFrame):
    results = Results(reference="adam", frames=[frame.reindex(columns=COLUMNS)])
    write_evaluation(RunFolder(path).evaluation, results)
    return path


def test_folders_are_one_pool_whose_times_are_in_steps_of_the_reference(tmp_path) -> None:
    adam = [[100.0, 100.0]]
    one = folder(tmp_path / "one", rows({"adam": adam, "unf": [[50.0, 50.0]]}))
    # twice as busy a machine
    two = folder(tmp_path / "two", rows({"adam": adam, "lion": [[150.0, 150.0, 7.0]]}, 0.02))
    text = pooled_scores.text([one, two])
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    cells = []
    for line in lines:
        means = [cell.split(" ")[0] for cell in line.strip("| ").split(" | ")]
        cells.append(means)
    assert cells == [
        ["unf", "1.000", "1.000", "1/1"],
        ["adam", "0.667", "0.667", "1/1"],
        ["lion", "0.333", "0.333", "1/1"],
    ]
    assert "multiples of the reference's step" in text
    assert "unf" not in pooled_scores.text([one, two], ["adam", "lion"])

    other = rows({"adam": adam}).assign(target_loss=2.0, optimizer="sgd")
    text = pooled_scores.text([one, folder(tmp_path / "other", other)])
    assert text.startswith("No time-to-target scores: ")
    assert "one and " in text
    assert "have different targets on task0, 400 steps, seed 0" in text
