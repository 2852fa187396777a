"""A sweep as ``collect`` sees it: figures by hand, states, what is run again."""

import csv
import json
import sys
from unittest.mock import Mock

import pytest
from omegaconf import OmegaConf
from scipy import stats

from learned_opt.commands import collect
from learned_opt.compose.sweep_plan import find_jobs
from learned_opt.core.files import write_json
from learned_opt.reporting import sweep_report
from learned_opt.runtime import job_file
from learned_opt.runtime.rerun_command import command
from learned_opt.runtime.run_folder import RunFolder, SweepFolder

SEEDS, OPTIMIZERS = ("0", "1"), ("sgdm", "adam")


def evaluation(losses: dict[str, list[float | None]]) -> list[dict]:
    """Rows of ``evaluation.json``; only the optimizer named ``learned`` has no learning rate."""
    return [
        {
            "task": "mlp",
            "optimizer": name,
            "seed": seed,
            "horizon": 5,
            "mean_loss": loss,
            "final_loss": loss,
            "accuracy": None,
            "steps_to_target": None,
            "ms_per_step": 1.0,
            "learning_rate": None if name == "learned" else 0.1,
            "heldout": {},
        }
        for name, of_seeds in losses.items()
        for seed, loss in enumerate(of_seeds)
    ]


def shown(rows: list) -> dict[str, str]:
    """The only row of a table, heading -> cell."""
    table = sweep_report.table(rows)
    (cells,) = table.rows
    return dict(zip(table.headings, cells, strict=True))


def finish(folder, overrides, losses) -> None:
    job_file.write(folder, {**job_file.started("finished", overrides), "value": 1.0})
    write_json(folder / "evaluation.json", evaluation(losses))


@pytest.fixture
def folder(tmp_path):
    """A 2x2 sweep: two jobs finished, one failed, one never begun."""
    hydra = {
        "overrides": {
            "task": ["+task=mlp", "meta_optimizer=sgdm,adam", "seed=0,1"],
            "hydra": ["hydra/launcher=slurm", "hydra.mode=MULTIRUN", "hydra.sweep.dir=elsewhere"],
        },
        "sweeper": {
            "_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
            "params": None,
        },
        "job": {"config_name": "config"},
    }
    OmegaConf.save({"hydra": hydra}, SweepFolder(tmp_path).plan)
    finish(
        tmp_path / "0",
        ["+task=mlp", "meta_optimizer=sgdm", "seed=0"],
        {"learned": [1.0, 3.0], "sgdm": [4.0, 4.0]},
    )
    finish(
        tmp_path / "1",
        ["+task=mlp", "meta_optimizer=sgdm", "seed=1"],
        {"learned": [5.0, 7.0], "sgdm": [6.0, 6.0]},
    )
    failed = job_file.started("failed", ["+task=mlp", "meta_optimizer=adam", "seed=0"])
    job_file.write(tmp_path / "2", {**failed, "error": "sigma must be positive, got -1.0."})
    return tmp_path


def test_states_and_the_command_that_mends_them(folder) -> None:
    jobs = find_jobs(folder)
    assert [(job.name, job.state) for job in jobs] == [
        ("0", "finished"),
        ("1", "finished"),
        ("2", "failed"),
        ("-", "missing"),
    ]
    assert jobs[2].why == "sigma must be positive, got -1.0."
    assert jobs[3].overrides == ["+task=mlp", "meta_optimizer=adam", "seed=1"]
    assert command(folder, jobs) == (
        "python -m learned_opt -m +task=mlp meta_optimizer=sgdm,adam seed=0,1 hydra/launcher=slurm "
        f"hydra.sweep.dir={folder}"
    )
    assert command(folder, jobs[:2]) == ""


def test_of_a_sweep_without_a_plan_each_job_is_run_again(folder) -> None:
    SweepFolder(folder).plan.unlink()
    jobs = find_jobs(folder)
    assert [job.name for job in jobs] == ["0", "1", "2"]
    assert command(folder, jobs) == (
        f"python -m learned_opt +task=mlp meta_optimizer=adam seed=0 hydra.run.dir={folder}/2"
    )


def compose_record(path, task: list[str], config_name: str = "config") -> None:
    """What Hydra keeps in a run folder, for a command with a folder of configs."""
    hydra = {
        "overrides": {
            "task": task,
            "hydra": ["hydra.mode=RUN", "hydra.run.dir=x", "hydra.verbose=true"],
        },
        "sweeper": {"_target_": "BasicSweeper", "params": None},
        "job": {"config_name": config_name},
        "runtime": {
            "config_sources": [
                {"path": "hydra.conf", "schema": "pkg", "provider": "hydra"},
                {"path": "/home/me/my configs", "schema": "file", "provider": "command-line"},
            ]
        },
    }
    OmegaConf.save({"hydra": hydra}, RunFolder(path).hydra_config)


def test_runs_started_one_by_one_have_a_command_each(folder) -> None:
    SweepFolder(folder).plan.unlink()
    (folder / "2" / ".hydra").mkdir()
    compose_record(folder / "2", ["+task=mine", "seed=0"])
    old = ["+task=mlp", "seed=5"]
    for name in ("3", "4"):  # of a version that kept no job.json
        (folder / name / ".hydra").mkdir(parents=True)
        compose_record(folder / name, old, "evaluate")
    write_json(folder / "3" / "evaluation.json", evaluation({"learned": [1.0]}))
    (folder / "latest").symlink_to(folder / "4")

    jobs = find_jobs(folder)
    states = [(job.name, job.state) for job in jobs[2:]]
    assert states == [("2", "failed"), ("3", "finished"), ("4", "killed")]
    assert jobs[4].overrides == old
    rest = "'--config-dir=/home/me/my configs'"
    assert command(folder, jobs).splitlines() == [
        "python -m learned_opt +task=mine seed=0 hydra.verbose=true "
        f"hydra.run.dir={folder}/2 {rest}",
        "  python -m learned_opt evaluate +task=mlp seed=5 hydra.verbose=true "
        f"hydra.run.dir={folder}/4 {rest}",
    ]

    # Hydra writes its files in no one move: a kill may leave half of one
    RunFolder(folder / "2").hydra_config.write_text("hydra: {")
    assert command(folder, jobs[:3]) == (
        f"python -m learned_opt +task=mlp meta_optimizer=adam seed=0 hydra.run.dir={folder}/2"
    )


def test_a_study_is_run_again_while_it_is_not_whole(folder) -> None:
    plan = OmegaConf.load(SweepFolder(folder).plan)
    plan.hydra.sweeper = {"_target_": "StudySweeper", "params": None, "n_trials": 3}
    plan.hydra.runtime = {"config_sources": [{"path": "mine", "provider": "command-line"}]}
    OmegaConf.save(plan, SweepFolder(folder).plan)
    jobs = find_jobs(folder)
    assert [job.state for job in jobs] == ["finished", "finished", "failed"]
    # a trial that failed by itself stays one of the study
    assert command(folder, jobs).endswith(f"seed=0 hydra.run.dir={folder}/2")

    again = (
        "python -m learned_opt -m +task=mlp meta_optimizer=sgdm,adam seed=0,1 hydra/launcher=slurm "
        f"hydra.sweep.dir={folder} --config-dir=mine"
    )
    assert command(folder, jobs[:2]) == again
    job_file.write(folder / "2", job_file.read(folder / "2") | {"state": "stopped"})
    assert command(folder, find_jobs(folder)) == again


def test_killed_running_and_queued_are_told_apart(folder, monkeypatch) -> None:
    queue = {"5_0": "RUNNING", "5_1": "PENDING", "5_2": "CANCELLED"}
    monkeypatch.setattr("learned_opt.runtime.slurm.queue", lambda: queue)
    for name, state in (("0", "running"), ("1", "submitted"), ("2", "running")):
        job_file.write(
            folder / name, {**job_file.read(folder / name), "state": state, "job": f"5_{name}"}
        )
    log = folder / ".submitit" / "5_2" / "5_2_0_log.err"
    log.parent.mkdir(parents=True)
    log.write_text("outer step 3/9\nslurmstepd: error: *** STEP 5.2 CANCELLED ***\n\n")
    jobs = find_jobs(folder)
    assert [job.state for job in jobs] == ["running", "queued", "killed", "missing"]
    assert jobs[2].why == "CANCELLED; its last line: slurmstepd: error: *** STEP 5.2 CANCELLED ***"
    monkeypatch.setattr(
        "learned_opt.runtime.slurm.queue",
        Mock(side_effect=OSError("there is no squeue on this machine")),
    )
    assert [(job.state, job.why) for job in find_jobs(folder)[:3]] == 3 * [
        ("unknown", "there is no squeue on this machine")
    ]
    monkeypatch.setattr("learned_opt.runtime.slurm.queue", lambda: queue)
    queue["5_2"] = "PENDING"  # requeued: it still says that it runs
    assert find_jobs(folder)[2].state == "queued"


def test_figures_by_hand(folder) -> None:
    settings = [{"meta_optimizer": "sgdm", "seed": seed} for seed in SEEDS]
    rows = sweep_report.collect(
        {folder / name: setting for name, setting in zip("01", settings, strict=True)}
    )
    assert [(row["job"], row["optimizer"], row["mean_loss"].mean) for row in rows] == [
        ("0", "learned", 2.0),
        ("0", "sgdm", 4.0),
        ("1", "learned", 6.0),
        ("1", "sgdm", 6.0),
    ]
    (group,) = sweep_report.mean_over_seeds(rows)
    assert group["overrides"] == {"meta_optimizer": "sgdm"}
    # the two-way table has mean squares 16 and 4, nothing is left: a variance of 20 / 4, and
    # 20^2 / (16^2 + 4^2) degrees of freedom
    half = stats.t.ppf(0.975, 400 / 272) * 5**0.5
    assert (group["meta-seeds"], group["mean_loss"].mean) == (2, 4.0)
    assert group["mean_loss"].low == pytest.approx(4 - half, rel=0.2)
    assert group["mean_loss"].low <= 4 - half + 1e-9
    assert group["accuracy"] is None
    cells = shown([group])
    assert list(cells)[:4] == ["meta_optimizer", "task", "optimizer", "meta-seeds"]
    assert cells["mean loss"].startswith("4.0000 [-")
    assert cells["accuracy"] == "-"


def test_better_is_said_with_three_meta_seeds_only(tmp_path) -> None:
    runs = {}
    for name, loss in (("unf", 1.0), ("lstm", 2.0)):
        for seed in range(3):
            folder = tmp_path / f"{name}{seed}"
            losses = [loss + 0.01 * seed, loss + 0.1 + 0.01 * seed]
            finish(folder, [], {name: losses, "adam": [3.0, 3.0]})
            runs[folder] = {"meta_optimizer": name, "seed": str(seed)}

    rows = sweep_report.collect(runs)
    sentences = sweep_report.verdicts(sweep_report.mean_over_seeds(rows))
    assert sentences[1] == (
        "mlp, final loss: unf is better than lstm, difference -1.0000 [-1.0000, -1.0000] "
        "(3 meta-seeds)"
    )
    two = [row for row in rows if row["overrides"]["seed"] != "2"]
    (sentence, _) = sweep_report.verdicts(sweep_report.mean_over_seeds(two))
    assert "unf is not told apart from lstm" in sentence
    assert sentence.endswith("(2 meta-seeds; 3 are needed)")
    level = [{**row, "values": {**row["values"]}} for row in rows]
    for row in level:
        row["values"]["final_loss"] = row["values"]["mean_loss"] = [
            1.0,
            1.0 + row["job"].count("2"),
        ]
    (sentence, _) = sweep_report.verdicts(sweep_report.mean_over_seeds(level))
    assert "level with" in sentence


def test_long_numbers_are_shown_with_three_digits(folder) -> None:
    overrides = {"lr": "0.012520653814999465", "steps": "2000", "meta_optimizer": "deep_set_small"}
    row = shown(sweep_report.learned(sweep_report.collect({folder / "0": overrides})))
    assert [row[key] for key in overrides] == ["0.0125", "2000", "deep_set_small"]


def test_a_diverged_run_says_so(folder) -> None:
    finish(
        folder / "1",
        ["+task=mlp", "meta_optimizer=sgdm", "seed=1"],
        {"learned": [None, 7.0], "sgdm": [6.0, 6.0]},
    )
    rows = sweep_report.collect({folder / "1": {"seed": "1"}})
    assert shown(sweep_report.learned(rows))["mean loss"] == "diverged"
    assert len(sweep_report.sweep_figure(rows).axes) == 2


def test_the_command_line_writes_and_prints(folder, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["collect", str(folder)])
    collect.main()
    printed = capsys.readouterr().out
    assert "4 jobs: 2 finished, 1 failed, 1 missing\n" in printed
    assert (
        "job 2 (meta_optimizer=adam, seed=0) failed: sigma must be positive, got -1.0.\n" in printed
    )
    assert f"  {command(folder, find_jobs(folder))}\n" in printed
    with (folder / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mean_loss"] for row in rows] == ["2.0", "4.0", "6.0", "6.0"]
    assert rows[0]["meta_optimizer"] == "sgdm"
    page = (folder / "sweep.md").read_text()
    assert "| sgdm | mlp | learned | 2 | 4.0000 [" in page
    assert "- job - (meta_optimizer=adam, seed=1) missing: it has never begun" in page
    assert (folder / "sweep.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "message"), [("nope", "but there is none at"), (".", "holds no multirun.yaml and no")]
)
def test_another_folder_is_refused(tmp_path, monkeypatch, capsys, name, message) -> None:
    monkeypatch.setattr(sys, "argv", ["collect", str(tmp_path / name)])
    with pytest.raises(SystemExit) as stop:
        collect.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("learned_opt: folder must be that of a sweep")
    assert message in error


RECORD = job_file.started("failed", ["+task=mlp"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "job.json is damaged: "),
        # records of earlier versions may hold numbers that are not finite
        ('{"value": NaN}', "job.json is not the record of a run: state must be a text"),
        ("[" * 200_000, "job.json is damaged: it is nested too deep"),
        ("\x00\udcff", "job.json is damaged: 'utf-8' codec"),
        ("[1]", "job.json is not the record of a run: it must be an object, it is [1]"),
        ("{}", "state must be a text, it is null"),
        (json.dumps(RECORD | {"overrides": 3}), "overrides must be a list of texts, it is 3"),
        (json.dumps(RECORD | {"overrides": [3]}), "overrides must be a list of texts"),
        (json.dumps(RECORD | {"job": [1]}), "job must be a text or null, it is [1]"),
        (json.dumps(RECORD | {"pid": "x"}), 'pid must be a number, it is "x"'),
        (json.dumps(RECORD | {"pid": True}), "pid must be a number, it is true"),
        (json.dumps(RECORD | {"value": "x"}), 'value must be a number, it is "x"'),
        (json.dumps(RECORD | {"error": {}}), "error must be a text, it is {}"),
    ],
)
def test_a_damaged_or_foreign_record_is_one_sentence(
    folder, monkeypatch, capsys, content, message
) -> None:
    (folder / "2" / "job.json").write_bytes(content.encode(errors="surrogateescape"))
    assert message in refused(folder, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hydra: [", "multirun.yaml is damaged: "),
        ("\x00", "multirun.yaml is damaged: "),
        ("3", "multirun.yaml is not the plan of a sweep: hydra.overrides.task must be a list"),
        ("hydra: {overrides: {task: [a=1], hydra: 3}}", "hydra.overrides.hydra must be a list"),
        ("hydra: {overrides: {task: [{}], hydra: []}}", "hydra.overrides.task must be a list"),
        ("hydra: {overrides: {task: [], hydra: []}}", "hydra.sweeper._target_ must be a text"),
        (
            "hydra: {overrides: {task: ['a=[1'], hydra: []}, sweeper: {_target_: BasicSweeper}, "
            "job: {config_name: config}}",
            "multirun.yaml is damaged: ",
        ),
        (
            "hydra: {overrides: {task: [], hydra: []}, sweeper: {_target_: a, params: 3}, "
            "job: {config_name: config}}",
            "hydra.sweeper.params must be a mapping",
        ),
    ],
)
def test_a_damaged_or_foreign_plan_is_one_sentence(
    folder, monkeypatch, capsys, content, message
) -> None:
    SweepFolder(folder).plan.write_text(content)
    assert message in refused(folder, monkeypatch, capsys)


def test_a_plan_resolves_no_interpolation(folder) -> None:
    plan = OmegaConf.load(SweepFolder(folder).plan)
    plan.hydra.overrides.task = ["+task=mlp", "seed=${oc.env:HOME}"]
    OmegaConf.save(plan, SweepFolder(folder).plan)
    assert "seed=${oc.env:HOME}" in command(folder, find_jobs(folder))


def refused(folder, monkeypatch, capsys) -> str:
    monkeypatch.setattr(sys, "argv", ["collect", str(folder)])
    with pytest.raises(SystemExit) as stop:
        collect.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    assert error.count("\n") == 1
    return error
