"""The evaluation suite: cells, resuming, pairing, divergence."""

import io
import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from typing_extensions import override

from learned_opt.evaluation import cells, scores, suite
from learned_opt.evaluation.aggregate import win_matrix
from learned_opt.evaluation.benchmark import Benchmark
from learned_opt.evaluation.cells import Cell
from learned_opt.evaluation.frames import groups, select
from learned_opt.evaluation.progress import SILENT, Progress
from learned_opt.evaluation.results import read_evaluation
from learned_opt.evaluation.setting import Contender, Setting
from learned_opt.evaluation.suite import run_suite
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.reporting import screens
from learned_opt.runtime import machine
from learned_opt.runtime.run_folder import RunFolder
from tasks.quadratic import Quadratic
from tests.cases import FAMILIES, spec_of

TIMES = ["ms_per_step", "seconds_to_target", "time_speedup"]
TRAINED = {"tasks": {"other": {"task": "other"}}, "draws": {"validation": "valid"}}

BASELINES = [
    Contender("sgdm", make_sgdm, {"kind": "sgdm"}),
    Contender("adam", make_adam, {"kind": "adam"}),
]


def budget(horizon: int) -> Benchmark:
    baselines = {baseline.name: baseline.constructor for baseline in BASELINES}
    return Benchmark(horizon, 4, 4, baselines, 1e-2, 1.0, 3, 1, tuned_for=["final_loss"])


def setting(family=None, horizon: int = 12, **rest) -> Setting:
    family = family or Quadratic(dim=3, noise=0.1)
    return Setting(
        rest.pop("task", family.name),
        family,
        spec_of(family),
        budget(horizon),
        BASELINES,
        compile=False,
        **rest,
    )


def learned(name: str = "mine", lr: float = 0.5) -> Contender:
    return Contender(name, partial(make_sgdm, lr=lr), {"lr": lr}, TRAINED)


class Told(Progress):
    """Keeps what it is told; with a limit, as Ctrl-C when so many optimizers have begun."""

    def __init__(self, limit: int = 100) -> None:
        self.limit = limit
        self.lines: list[str] = []
        self.planned: list[int] = []
        self.made: list[float] = []

    @override
    def begin(self, title: str, num_runs: int) -> None:
        self.title = title
        self.planned.append(num_runs)
        self.made.append(0.0)

    @override
    def work_on(self, name: str) -> None:
        self.lines.append(f"{self.title}: {name}")
        if len(self.lines) == self.limit:
            raise KeyboardInterrupt

    @override
    def advance(self, num_runs: float) -> None:
        self.made[-1] += num_runs


def run(folder, settings, optimizers=None, progress=SILENT):
    return run_suite(settings, optimizers or [learned()], folder, {"git": "1"}, progress)


def report(folder, results) -> str:
    """Write everything that an evaluation leaves; what the terminal shows."""
    folder.mkdir(exist_ok=True)
    console = Console(file=io.StringIO(), width=200)
    screens.show_results(results, RunFolder(folder), console)
    return console.file.getvalue()


def test_all_optimizers_start_from_the_same_seeds(tmp_path) -> None:
    settings = [setting(FAMILIES["mlp"]()), setting(FAMILIES["mlp"](), horizon=15)]
    frame = run(tmp_path, settings).frame
    assert len(frame) == 2 * 3 * 4
    for _, rows in groups(frame, ["seed"]):
        assert rows["start"].nunique() == 1
        assert rows["initial_loss"].nunique() == 1
    assert frame["start"].nunique() == frame["initial_loss"].nunique() == 4
    adam = select(frame, optimizer="adam", horizon=15)
    assert adam["learning_rate"].nunique() == 1
    assert adam["steps_to_target"].le(15).all()
    np.testing.assert_array_equal(adam["speedup"], 1.0)
    np.testing.assert_array_equal(adam["loss_ratio"], 1.0)


def test_a_killed_evaluation_goes_on_and_gives_the_same_results(tmp_path) -> None:
    settings = [setting(), setting(task="longer", horizon=20)]
    straight = Told()
    killed = Told(limit=4)
    rest = Told()
    again_told = Told()
    whole = run(tmp_path / "whole", settings, progress=straight)
    assert len(straight.lines) == 6
    # of one learned optimizer and two that are tuned: 3 learning rates, 1 seed, 4 held-out seeds
    assert straight.planned == [18, 18]
    assert straight.made == pytest.approx([18, 18])

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", settings, progress=killed)
    resumed = run(tmp_path / "killed", settings, progress=rest)
    # nothing is run twice, nothing is left out
    assert [*killed.lines[:3], *rest.lines] == straight.lines
    assert rest.planned == [0, 18]
    assert (resumed.reused, resumed.num_cells) == (3, 6)
    expected = whole.frame.drop(columns=TIMES)
    pd.testing.assert_frame_equal(resumed.frame.drop(columns=TIMES), expected)

    again = run(tmp_path / "killed", settings, progress=again_told)
    assert again.reused == 6
    assert again_told.lines == []
    report(tmp_path / "one", resumed)
    report(tmp_path / "two", again)
    files = [(tmp_path / folder / "curves.parquet").read_bytes() for folder in ("one", "two")]
    assert files[0] == files[1]
    one = read_evaluation(tmp_path / "one" / "evaluation.json")
    two = read_evaluation(tmp_path / "two" / "evaluation.json")
    pd.testing.assert_frame_equal(one.frame, two.frame)


def test_another_question_is_another_cell(tmp_path) -> None:
    questions = (
        setting(),
        setting(horizon=13),
        setting(Quadratic(dim=4)),
        setting(config={"network": "wide"}),
    )
    paths = set()
    for question in questions:
        for criterion in ("mean_loss", "final_loss"):
            benchmark = replace(question.benchmark, tuned_for=[criterion])
            tuned = replace(question, benchmark=benchmark)
            for contender in (learned(), learned(lr=0.4), BASELINES[0]):
                paths.add(cells.path_of(tmp_path, tuned, contender))
    assert len(paths) == 4 * (2 + 2)  # what is tuned for matters to baselines alone
    assert cells.path_of(tmp_path, setting(), learned()) in paths


def test_cells_of_earlier_versions_are_found_and_read(tmp_path) -> None:
    """The digest is that of the version before 0.2; a file held one row name, without its name."""
    path = cells.path_of(tmp_path, setting(), BASELINES[1])
    assert path.name == "quadratic-horizon-12-adam-7c13aa3d09c9.parquet"
    made = cells.run_cells(setting(), BASELINES[1], setting().unroll(BASELINES[1]))["adam"]
    table = pa.Table.from_pandas(made.table, preserve_index=False)
    facts = {"tuning": made.tuning, **made.facts, "identity": {}, "provenance": {"git": "0"}}
    metadata = {**(table.schema.metadata or {}), cells.FACTS: json.dumps(facts)}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    back = cells.read(path, BASELINES[1])
    assert list(back) == ["adam"]
    assert back["adam"].tuning == made.tuning
    pd.testing.assert_frame_equal(back["adam"].table, made.table, check_dtype=False)
    results = run(tmp_path, [setting()])
    assert results.reused == 1
    assert "some cells are of another revision (0) than this run's (1)" in results.warnings


def test_a_damaged_cell_is_named(tmp_path) -> None:
    path = cells.path_of(tmp_path, setting(), learned())
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged or no cell of an evaluation; remove it"):
        run(tmp_path, [setting()])


@pytest.mark.usefixtures("real_pictures")
def test_divergence_is_a_result(tmp_path) -> None:
    optimizers = [learned(), learned("wild", lr=1e30)]
    settings = [setting(horizon=30), setting(horizon=30, axis="longer", point="x2")]
    results = run(tmp_path / "cells", settings, optimizers)
    shown = report(tmp_path, results)
    (line,) = [line for line in shown.splitlines() if line.strip().startswith("wild ")][:1]
    assert line.split()[1:3] == ["diverged", "diverged"]
    assert "generalisation card of quadratic" in shown

    frame = read_evaluation(tmp_path / "evaluation.json").frame
    wild = select(frame, optimizer="wild", axis="")
    assert wild["diverged"].all()
    assert wild["finite_steps"].between(1, 29).all()
    assert (wild["speedup"] == 0).all()
    assert np.isinf(wild["final_loss"]).all()
    overall = {row["optimizer"]: row for row in scores.aggregate(frame)}
    assert overall["wild"]["diverged"] == 4
    assert win_matrix(scores.losses(frame))["mine"]["wild"] == 1.0
    at_card = {row["optimizer"] for row in results.budgets if row["axis"]}
    assert at_card == {"mine", "wild", "adam"}

    page = (tmp_path / "report.md").read_text()
    assert "3 learning rates x 1 seeds for final_loss" in page
    assert "diverged 4/4, **first failure**" in page
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.mark.usefixtures("real_pictures")
def test_several_settings_have_profiles_and_wins(tmp_path) -> None:
    results = run(tmp_path / "cells", [setting(), setting(task="longer", horizon=20)])
    report(tmp_path, results)
    page = (tmp_path / "report.md").read_text()
    assert "## all tasks and horizons" in page
    for name in ("profiles", "wins", "curves"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert f"]({name}.png)" in page


def test_seeds_on_which_the_reference_diverges_are_spoken_of(tmp_path) -> None:
    def wild(spec, lr=1.0):
        return make_sgdm(spec, lr=1e30 * lr)

    family = Quadratic(dim=3)
    benchmark = replace(budget(30), baselines={"adam": wild})
    baseline = Contender("adam", wild, {"kind": "wild"})
    bowl = Setting("bowl", family, spec_of(family), benchmark, [baseline], compile=False)
    results = run(tmp_path / "cells", [bowl])
    sentence = "adam diverged on 4 of 4 seeds of bowl horizon 30: these have no target"
    assert results.warnings[0].startswith(sentence)
    assert results.frame["speedup"].isna().all()
    summaries = scores.summarise(results.frame, "adam")
    (summary,) = [row for row in summaries if row["optimizer"] == "mine"]
    assert (summary["speedup"], summary["ahead"]) == (None, True)
    report(tmp_path, results)
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
    with pytest.raises(ValueError, match="no theta fits task quadratic: theta belongs to one"):
        run(tmp_path, [setting()], [narrow])


def test_a_name_that_occurs_twice_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="a name of its own, got adam twice"):
        run(tmp_path, [setting()], [learned("adam")])


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
    return Cell(pd.DataFrame(table), None if lr is None else {"learning_rate": lr}, {})


def test_speedups_by_hand() -> None:
    """The reference falls from 2 to 1 at step 20; the trailing mean of 10 reaches 1 at step 30."""
    reference = [2.0] * 20 + [1.0] * 20
    fast = [1.0] * 40
    slow = [2.0] * 40
    gone = [2.0] * 5 + [math.inf] * 35
    by_row = {"adam": cell(reference, reference, gone, lr=0.1), "mine": cell(fast, slow, fast)}
    columns = {"task": "t", "horizon": 40, "axis": "", "point": ""}
    frame = scores.rows(columns, by_row, "adam", {"adam": 1.0, "mine": 4.0})
    mine = select(frame, optimizer="mine")
    # no target where adam diverged
    np.testing.assert_array_equal(mine["steps_to_target"], [10, math.inf, math.nan])
    np.testing.assert_array_equal(mine["speedup"], [3.0, 0.0, math.nan])
    np.testing.assert_array_equal(mine["time_speedup"], [0.75, 0.0, math.nan])
    np.testing.assert_array_equal(mine["seconds_to_target"], [0.04, math.inf, math.nan])
    np.testing.assert_array_equal(mine["loss_ratio"], [1.0, 2.0, math.nan])
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


def test_times_are_those_of_this_processor(tmp_path, monkeypatch) -> None:
    """Another processor, or another number of threads, measures anew; the same one does not."""
    measured = []

    def count(thetas, num_chains):
        measured.append(num_chains)
        return dict.fromkeys(thetas, float(len(measured)))

    monkeypatch.setattr(suite, "time_steps", count)
    of_here = machine.describe_machine(torch.device("cpu"))
    for change in ({}, {"processor": "another"}, {"threads": 77}, {"load": 9.0}, {}):
        described = {**of_here, **change}
        monkeypatch.setattr(suite, "describe_machine", lambda device, d=described: d)
        times = run(tmp_path, [setting()]).frame["ms_per_step"].unique().tolist()
        expected = {"another": 2.0, 77: 3.0}
        assert times == [expected.get(next(iter(change.values()), ""), 1.0)]
    assert len(measured) == 3
