"""What surrounds the jobs of a sweep: presets, refusals, the queue, records; see tests/slurm."""

import importlib.util
import inspect
import json
import math
import os
import shutil
import subprocess
import sys

import pytest
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from learned_opt.commands import train
from learned_opt.compose import config_files
from learned_opt.core import errors
from learned_opt.runtime import job_file, job_record, slurm
from learned_opt.runtime.plugins import register
from learned_opt.runtime.run_folder import SweepFolder
from learned_opt.runtime.serial_launcher import SerialLauncher
from learned_opt.runtime.study_sweeper import StudySweeper
from learned_opt.runtime.sweep_launcher import SweepLauncher
from tests.commands.test_cli import TINY
from tests.compose.test_configs import composed

SLURM = [name for name in config_files.options("hydra/launcher") if name.startswith("slurm")]


def launcher(*overrides: str) -> SweepLauncher:
    """As Hydra makes it."""
    node = OmegaConf.to_container(composed("+task=mlp", *overrides).hydra.launcher, resolve=True)
    del node["_target_"]
    return SweepLauncher(**node)


def sbatch_script(sweep_launcher: SweepLauncher) -> str:
    from submitit.slurm.slurm import _make_sbatch_string

    parameters = sweep_launcher._executor()._executor.parameters
    return _make_sbatch_string(command="job", folder="logs", **{**parameters, "map_count": 2})


@pytest.fixture
def pretend_slurm(monkeypatch):
    """submitit wants to see srun before it writes a script."""
    pytest.importorskip("submitit")
    which = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name: f"/bin/{name}" if name in ("srun", "sbatch") else which(name)
    )


@pytest.mark.parametrize("preset", SLURM)
def test_presets_become_a_script(pretend_slurm, preset) -> None:
    script = sbatch_script(
        launcher(
            f"hydra/launcher={preset}",
            "trainer.devices=4",
            "++trainer.num_nodes=2",
            "hydra.launcher.partition=long",
        )
    )
    for line in (
        "--ntasks-per-node=4",
        "--nodes=2",
        "--requeue",
        "--open-mode=append",
        "--partition=long",
        "--array=0-1%2",
    ):
        assert f"#SBATCH {line}\n" in script
    assert "--account" not in script  # null leaves it to Slurm
    assert "--kill-on-bad-exit=1" in script
    assert ("--gpus-per-node=4" in script) == (preset in ("slurm_gpu", "slurm_multinode"))
    assert ("#SBATCH --exclusive\n" in script) == (preset == "slurm_multinode")


def test_every_launcher_is_known_to_hydra() -> None:
    name = "hydra_plugins.learned_opt.SweepLauncher"
    register()
    assert Plugins.instance().class_name_to_class[name] is SweepLauncher
    for preset in config_files.options("hydra/launcher"):
        assert composed("+task=mlp", f"hydra/launcher={preset}").hydra.launcher._target_ == name
    default = composed("+task=mlp").hydra.launcher._target_
    assert Plugins.instance().class_name_to_class[default] is SerialLauncher


def test_the_sweeper_searches_what_the_config_has() -> None:
    pytest.importorskip("optuna")
    register()
    cfg = composed("+task=mlp", "hydra/sweeper=outer")
    node = dict(cfg.hydra.sweeper)
    assert Plugins.instance().class_name_to_class[node.pop("_target_")] is StudySweeper
    assert not node.pop("_recursive_")
    assert set(node) == set(inspect.signature(StudySweeper).parameters)
    assert list(node["params"]) == [
        "outer_optimizer.optimizer.lr",
        "estimator.sigma",
        "learned.alpha",
    ]
    assert all(OmegaConf.select(cfg, key) is not None for key in node["params"])


def test_without_optuna_it_says_what_to_install(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("learned_opt.runtime.job_record.find_spec", lambda _: None)
    error = refused(monkeypatch, capsys, "-m", "+task=mlp", "hydra/sweeper=outer")
    assert error == (
        "learned_opt: hydra/sweeper needs Optuna, which is not installed; "
        "pip install -e '.[optuna]'.\n"
    )


def test_a_misspelt_resource_is_refused(pretend_slurm) -> None:
    with pytest.raises(errors.UsageError, match="partitoin"):
        launcher("hydra/launcher=slurm", "+hydra.launcher.partitoin=long")._executor()


def refused(monkeypatch, capsys, *arguments: str) -> str:
    return ended(monkeypatch, capsys, 2, *arguments)[1]


def ended(monkeypatch, capsys, code: int, *arguments: str) -> tuple[str, str]:
    """What a command line that ends with a code prints on stdout and on stderr."""
    monkeypatch.setattr(sys, "argv", ["learned_opt", *arguments])
    with pytest.raises(SystemExit) as stop:
        train.main()
    printed = capsys.readouterr()
    assert stop.value.code == code, printed.err
    return printed.out, printed.err


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "learned_opt.runtime.sweep_launcher.find_spec",
        lambda n: None if n == "submitit" else find(n),
    )
    error = refused(monkeypatch, capsys, "-m", "+task=mlp", "hydra/launcher=slurm")
    assert error == (
        "learned_opt: hydra/launcher needs submitit, which is not installed; "
        "pip install -e '.[slurm]'.\n"
    )


def test_without_slurm_it_says_so(monkeypatch, capsys, tmp_path) -> None:
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("learned_opt.runtime.sweep_launcher.shutil.which", lambda _: None)
    error = refused(monkeypatch, capsys, "-m", "+task=mlp", "hydra/launcher=slurm_gpu")
    assert (
        "there is no sbatch on this machine; log in to the cluster, "
        "or use hydra/launcher=workstation.\n" in error
    )


def test_a_job_that_fails_leaves_the_others_alone(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["+task=mlp", *TINY, "estimator.sigma=-1.0,-2.0"]
    out, error = ended(monkeypatch, capsys, 1, "-m", *words, "hydra.sweep.dir=s")
    assert error == "learned_opt: 2 of 2 jobs are not whole.\n"
    for number, sigma in (("0", "-1.0"), ("1", "-2.0")):
        record = job_file.read(tmp_path / "s" / number)
        assert record["state"] == "failed"
        why = f"sigma must be positive, got {sigma}."
        assert record["error"] == why
        job = f"job {number} (estimator.sigma={sigma})"
        assert f"{job} starts in s/{number}\n" in out
        assert f"{job} failed in s/{number}: {why}\n" in out
        assert f"\n{job} failed: {why}\n" in out
        log = (tmp_path / "s" / number / "learned_opt.log").read_text()
        assert f"{why}\nTraceback (most recent call last):\n" in log
    command = f"python -m learned_opt -m {' '.join(words)} hydra.sweep.dir=s"
    assert "2 jobs: 2 failed\n" in out
    assert f"to run just those again:\n  {command}\n" in out
    other = refused(
        monkeypatch,
        capsys,
        "-m",
        "+task=mlp",
        *TINY,
        "hydra.sweep.dir=s",
        "estimator.sigma=-3.0,-4.0",
    )
    assert other.startswith("learned_opt: s holds another sweep (+task=mlp ")
    assert (
        "sigma=-1.0,-2.0" in job_record.plan(tmp_path / "s").overrides[-1]
    )  # its plan is still there


def test_a_finished_job_of_a_sweep_is_not_run_again(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["+task=mlp", "seed=7"]
    job_file.write(tmp_path / "s" / "0", {**job_file.started("finished", overrides), "value": 0.25})
    monkeypatch.setattr(sys, "argv", ["learned_opt", "-m", *overrides, "hydra.sweep.dir=s"])
    train.main()  # minutes, if it ran
    assert job_file.read(tmp_path / "s" / "0")["value"] == 0.25
    monkeypatch.setattr(
        sys, "argv", ["learned_opt", "-m", "+task=mlp", "seed=8", "hydra.sweep.dir=s"]
    )
    SweepFolder(tmp_path / "s").plan.unlink()  # as with a sweeper that keeps none
    with pytest.raises(SystemExit):
        train.main()
    assert job_file.read(tmp_path / "s" / "0")["overrides"] == overrides


def test_a_process_that_is_gone_is_not_alive() -> None:
    record = job_file.started("running", ["+task=mlp"])
    assert record["job"] is None
    assert job_file.is_alive(record, {})
    child = subprocess.Popen(["true"])
    child.wait()
    assert not job_file.is_alive({**record, "pid": child.pid}, {})
    assert not job_file.is_alive({**record, "host": "elsewhere"}, {})
    assert not job_file.is_alive({**record, "state": "finished"}, {})
    in_slurm = {**record, "job": "5_1"}
    states = {"RUNNING": True, "PENDING": True, "CANCELLED": False, "OUT_OF_MEMORY": False}
    assert {state: job_file.is_alive(in_slurm, {"5_1": state}) for state in states} == states
    assert not job_file.is_alive(in_slurm, {"5_0": "RUNNING"})


def test_the_watcher_knows_jobs_that_slurm_has_forgotten() -> None:
    pytest.importorskip("submitit")
    from learned_opt.runtime.queue_watcher import queue_watcher

    watcher = queue_watcher()
    watcher._registered = {"5_0", "5_1", "5_2", "5_3"}
    watcher._info_dict = watcher.read_info(
        "5_0|RUNNING\n5_1|CANCELLED\n5_3|CONFIGURING\n9|RUNNING\n"
    )
    done = {job: watcher.is_done(job, mode="cache") for job in sorted(watcher._registered)}
    assert done == {"5_0": False, "5_1": True, "5_2": True, "5_3": False}


def clear(monkeypatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    for name in ("LOCAL_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)


def test_under_srun_only_the_first_rank_writes(monkeypatch) -> None:
    clear(monkeypatch)
    assert slurm.is_first_rank()
    assert slurm.job_id() is None
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert slurm.is_first_rank()
    assert slurm.job_id() == "8"
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert not slurm.is_first_rank()
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert slurm.job_id() == "7_3"


def test_one_process_for_each_device_needs_their_number(pretend_slurm) -> None:
    with pytest.raises(
        errors.UsageError, match=r"^trainer.devices must be a number .*, got 'auto'"
    ):
        launcher("hydra/launcher=slurm", "trainer.devices=auto")._executor()


def test_no_squeue_is_an_error_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr("learned_opt.runtime.slurm.shutil.which", lambda _: None)
    with pytest.raises(OSError, match="no squeue"):
        slurm.queue()


def test_records_are_replaced_in_one_move(tmp_path) -> None:
    job_file.write(tmp_path / "0", {"state": "running"})
    job_file.write(tmp_path / "0", {"state": "finished"})
    assert json.loads((tmp_path / "0" / "job.json").read_text()) == {"state": "finished"}
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["job.json"]


@pytest.mark.parametrize("value", [0.25, math.inf, None])
def test_a_result_is_read_as_it_was_written(tmp_path, value) -> None:
    job_file.write(tmp_path, {**job_file.started("finished", []), "value": value})
    assert job_file.read(tmp_path)["value"] == value
    strict = json.loads((tmp_path / "job.json").read_text(), parse_constant=pytest.fail)
    assert strict["state"] == "finished"


def test_a_record_of_an_earlier_version_is_read(tmp_path) -> None:
    record = {**job_file.started("finished", []), "value": math.inf}
    (tmp_path / "job.json").write_text(json.dumps(record))
    assert "Infinity" in (tmp_path / "job.json").read_text()
    assert job_file.read(tmp_path)["value"] == math.inf


def test_jobs_are_told_apart_by_what_differs() -> None:
    overrides = [
        ["+task=mlp", "meta_optimizer=unf", "seed=0"],
        ["+task=mlp", "meta_optimizer=nfn", "seed=0"],
    ]
    assert job_file.varying(overrides) == [{"meta_optimizer": "unf"}, {"meta_optimizer": "nfn"}]
    assert job_file.varying([["+task=mlp"], ["+task=mlp", "seed=1"]]) == [
        {"seed": ""},
        {"seed": "1"},
    ]
