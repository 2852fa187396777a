"""The evaluation suite: cells, resuming, pairing, divergence."""

import json
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest

from learned_opt.evaluation import cells, scores
from learned_opt.evaluation.benchmark import Benchmark
from learned_opt.evaluation.cells import Cell, Contender, Setting
from learned_opt.evaluation.suite import run_suite
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.reporting import suite_report
from tasks.quadratic import Quadratic
from tests.cases import FAMILIES, spec_of

TIMES = ["ms_per_step", "seconds_to_target", "time_speedup"]
TRAINED = {"tasks": {"other": {"task": "other"}}, "draws": {"validation": "valid"}}

BASELINES = [
    Contender("sgdm", make_sgdm, {"kind": "sgdm"}),
    Contender("adam", make_adam, {"kind": "adam"}),
]


def setting(family=None, horizon: int = 12, **rest) -> Setting:
    family = family or Quadratic(dim=3, noise=0.1)
    benchmark = Benchmark(horizon, 4, 4, {}, 1e-2, 1.0, 3, 1)
    return Setting(
        rest.pop("task", family.name),
        family,
        spec_of(family),
        benchmark,
        BASELINES,
        compile=False,
        **rest,
    )


def learned(name: str = "mine", lr: float = 0.5) -> Contender:
    return Contender(name, partial(make_sgdm, lr=lr), {"lr": lr}, TRAINED)


def run(folder, settings, optimizers=None, said=None):
    say = (lambda line: None) if said is None else said
    return run_suite(
        settings, optimizers or [learned()], folder, "adam", "final_loss", {"git": "1"}, say
    )


def test_all_optimizers_start_from_the_same_seeds(tmp_path) -> None:
    frame = run(
        tmp_path, [setting(FAMILIES["mlp"]()), setting(FAMILIES["mlp"](), horizon=15)]
    ).frame
    assert len(frame) == 2 * 3 * 4
    for _, of in frame.groupby("seed"):
        assert of["start"].nunique() == 1
        assert of["initial_loss"].nunique() == 1
    assert frame["start"].nunique() == frame["initial_loss"].nunique() == 4
    own = frame[(frame["optimizer"] == "adam") & (frame["horizon"] == 15)]
    assert own["learning_rate"].nunique() == 1
    assert own["steps_to_target"].le(15).all()
    np.testing.assert_array_equal(own["speedup"], 1.0)
    np.testing.assert_array_equal(own["loss_ratio"], 1.0)


def test_a_killed_evaluation_goes_on_and_gives_the_same_results(tmp_path) -> None:
    settings = [setting(), setting(task="longer", horizon=20)]
    whole, lines = run(tmp_path / "whole", settings, said=(told := []).append), []
    assert len(told) == 6

    def killed(line: str) -> None:
        lines.append(line)
        if len(lines) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", settings, said=killed)
    resumed = run(tmp_path / "killed", settings, said=(rest := []).append)
    assert [*lines[:3], *rest] == told  # nothing is run twice, nothing is left out
    assert resumed.reused == 3
    pd.testing.assert_frame_equal(
        resumed.frame.drop(columns=TIMES), whole.frame.drop(columns=TIMES)
    )
    again = run(tmp_path / "killed", settings, said=pytest.fail)
    for folder, results in (("one", resumed), ("two", again)):
        (tmp_path / folder).mkdir()
        suite_report.write(tmp_path / folder, results, "adam", ["mine"], {})
    files = [(tmp_path / folder / "results.parquet").read_bytes() for folder in ("one", "two")]
    assert files[0] == files[1]


def test_another_question_is_another_cell(tmp_path) -> None:
    paths = {
        cells.path_of(tmp_path, own, contender, criterion)
        for own in (
            setting(),
            setting(horizon=13),
            setting(Quadratic(dim=4)),
            setting(config={"network": "wide"}),
        )
        for contender in (learned(), learned(lr=0.4), BASELINES[0])
        for criterion in cells.CRITERIA
    }
    assert len(paths) == 4 * (2 + 2)  # what is tuned for matters to baselines alone
    assert cells.path_of(tmp_path, setting(), learned(), "final_loss") in paths


def test_a_damaged_cell_is_named(tmp_path) -> None:
    path = cells.path_of(tmp_path, setting(), learned(), "final_loss")
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged or no cell of an evaluation; remove it"):
        run(tmp_path, [setting()])


def test_divergence_is_a_result(tmp_path) -> None:
    optimizers = [learned(), learned("wild", lr=1e30)]
    results = run(
        tmp_path, [setting(horizon=30), setting(horizon=30, axis="longer", point="x2")], optimizers
    )
    shown = suite_report.write(tmp_path, results, "adam", ["mine", "wild"], {"seed": "0"})
    rows = {row["optimizer"]: row for row in shown["quadratic, horizon 30"][1]}
    assert rows["wild"]["diverged"] == "4/4"
    assert rows["wild"]["final loss"] == "diverged"
    assert rows["mine"]["diverged"] == "0/4"
    frame = pd.read_parquet(tmp_path / "results.parquet")
    wild = frame[(frame["optimizer"] == "wild") & (frame["axis"] == "")]
    assert wild["diverged"].all()
    assert wild["finite_steps"].between(1, 29).all()
    assert (wild["speedup"] == 0).all()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["wins"]["mine"]["wild"] == 1.0
    assert [row["diverged"] for row in summary["overall"] if row["optimizer"] == "wild"] == [4]
    assert summary["cards"]["quadratic"]["longer"]["wild"][0]["status"] == "diverged"
    assert {row["optimizer"] for row in summary["budgets"] if row["axis"]} == {
        "mine",
        "wild",
        "adam",
    }
    page = (tmp_path / "report.md").read_text()
    assert "3 learning rates x 1 seeds for final_loss" in page
    assert "diverged 4/4, **first failure**" in page
    for name in ("profiles", "wins", "curves"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_seeds_on_which_the_reference_diverges_are_spoken_of(tmp_path) -> None:
    wild = [Contender("adam", lambda spec, lr=1.0: make_sgdm(spec, lr=1e30 * lr), {"kind": "wild"})]
    family = Quadratic(dim=3)
    benchmark = Benchmark(30, 4, 4, {}, 1e-2, 1.0, 3, 1)
    results = run(
        tmp_path, [Setting("bowl", family, spec_of(family), benchmark, wild, compile=False)]
    )
    assert results.warnings[0].startswith(
        "adam diverged on 4 of 4 seeds of bowl horizon 30: these have no target"
    )
    assert results.frame["speedup"].isna().all()
    (summary,) = [
        row for row in scores.summarise(results.frame, "adam") if row["optimizer"] == "mine"
    ]
    assert (summary["speedup"], summary["ahead"]) == (None, True)
    suite_report.write(tmp_path, results, "adam", ["mine"], {})
    assert "adam diverged on 4 of 4 seeds" in (tmp_path / "report.md").read_text()


def test_what_fits_no_task_is_left_out_with_its_reason(tmp_path) -> None:
    def refuse(spec):
        raise ValueError("theta belongs to one weight space.")

    narrow = Contender("narrow", refuse, {}, TRAINED)
    results = run(tmp_path, [setting()], [learned(), narrow])
    assert [(row["optimizer"], row["reason"]) for row in results.left_out] == [
        ("narrow", "theta belongs to one weight space.")
    ]
    assert "narrow" not in set(results.frame["optimizer"])
    with pytest.raises(ValueError, match="no checkpoint fits task quadratic: theta belongs to one"):
        run(tmp_path, [setting()], [narrow])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "lion"}, "reference must be one of the baselines sgdm, adam, got 'lion'"),
        (
            {"criterion": "accuracy"},
            "tuned_for must be one of final_loss, mean_loss, got 'accuracy'",
        ),
        ({"learned": [learned("adam")]}, "a name of its own, got adam twice"),
    ],
)
def test_bad_questions_are_refused(tmp_path, change, message) -> None:
    given = {"learned": [learned()], "reference": "adam", "criterion": "final_loss"} | change
    with pytest.raises(ValueError, match=message):
        run_suite([setting()], folder=tmp_path, provenance={}, **given)


def cell(*curves: list[float], lr: float | None = None) -> Cell:
    """A cell with these training losses, a curve for each seed."""
    losses = np.array(curves, dtype=float)
    table = {
        "seed": range(len(losses)),
        "start": "same",
        "final_loss": losses[:, -10:].mean(1),
        "losses": list(losses),
    }
    table |= {"min_loss": 0.0, "mean_loss": losses.mean(1), "diverged": np.isinf(losses[:, -1])}
    return Cell(pd.DataFrame(table), {"tuning": None if lr is None else {"learning_rate": lr}})


def test_speedups_by_hand() -> None:
    """The reference falls from 2 to 1 at step 20; the trailing mean of 10 reaches 1 at step 30."""
    reference = [2.0] * 20 + [1.0] * 20
    fast, slow, gone = [1.0] * 40, [2.0] * 40, [2.0] * 5 + [math.inf] * 35
    found = {"adam": cell(reference, reference, gone, lr=0.1), "mine": cell(fast, slow, fast)}
    where = {"task": "t", "horizon": 40, "axis": "", "point": ""}
    frame = scores.rows(where, found, "adam", {"adam": 1.0, "mine": 4.0})
    own = frame[frame["optimizer"] == "mine"]
    np.testing.assert_array_equal(
        own["steps_to_target"], [10, math.inf, math.nan]
    )  # no target where adam diverged
    np.testing.assert_array_equal(own["speedup"], [3.0, 0.0, math.nan])
    np.testing.assert_array_equal(own["time_speedup"], [0.75, 0.0, math.nan])
    np.testing.assert_array_equal(own["seconds_to_target"], [0.04, math.inf, math.nan])
    np.testing.assert_array_equal(own["loss_ratio"], [1.0, 2.0, math.nan])
    costs = scores.costs(frame, "steps_to_target")
    assert {name: list(values) for name, values in costs.items()} == {
        "adam": [30, 30],
        "mine": [10, math.inf],
    }
    first, second = scores.summarise(frame, "adam")
    assert (first["optimizer"], second["optimizer"]) == ("mine", "adam")
    assert (first["reached"], first["diverged"], second["diverged"]) == (1, 0, 1)
    assert first["ahead"]  # adam diverged on a seed
    (best, _) = scores.aggregate(frame)
    assert (best["speedup"].mean, best["diverged"], best["settings"], best["of"]) == (1.5, 0, 1, 1)
