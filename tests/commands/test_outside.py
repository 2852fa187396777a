"""Code outside of the package: the example's, by the wheel, from an empty folder of a user."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from learned_opt.commands import front_door
from learned_opt.compose import config_files
from learned_opt.core import tasks_package
from learned_opt.deploy import construct

ROOT = Path(front_door.__file__).parents[2]
TINY = [
    *("trainer.max_steps=2", "horizon=4", "estimator.unroll_length=2", "compile=false"),
    *("benchmark.num_seeds=2", "benchmark.num_lrs=2", "benchmark.num_tuning_seeds=1"),
    "benchmark.archive=null",
]
THROWS = "raise RuntimeError('a module of the user is imported')\n"


def run(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The wheel of this tree, unpacked without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    built = run(build, folder)
    assert built.returncode == 0, built.stderr

    (wheel,) = folder.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    installed = run(install, folder)
    assert installed.returncode == 0, installed.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> Path:
    """The example, with modules beside it that have names of ours, which nobody imports."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(ROOT / "examples/outside", folder, dirs_exist_ok=True)
    for name in ("tasks.py", "conftest.py", "configs/__init__.py"):
        (folder / name).write_text(THROWS)
    (folder / "configs/config.yaml").write_text("horizon: one of the user\n")
    return folder


OURS = ["+task=flowers", "--config-dir=configs"]


@pytest.fixture(scope="module")
def trained(site, user) -> subprocess.CompletedProcess:
    """A training by the script of the wheel."""
    choices = ["meta_optimizer=momentum", "estimator=fading_pes", "hydra.run.dir=run"]
    script = [sys.executable, f"{site}/bin/learned-opt"]
    words = [*OURS, *choices, *TINY, "benchmark=none"]
    return run([*script, *words], user, PYTHONPATH=str(site))


def test_the_wheel_is_imported_in_a_folder_of_the_user(site, user) -> None:
    where = "import learned_opt.commands, tasks; print(learned_opt.__file__, tasks.__file__)"
    files = run([sys.executable, "-c", where], user, PYTHONPATH=str(site))
    assert files.stdout.split() == [
        f"{site}/{name}/__init__.py" for name in ("learned_opt", "tasks")
    ]


def test_the_example_trains_by_the_wheel(trained) -> None:
    assert trained.returncode == 0, trained.stderr
    assert "momentum, theta has 2 parameters" in trained.stdout
    assert "fading_pes" in trained.stdout
    assert "trust=[mylab]" in trained.stdout  # in the command that evaluates


@pytest.mark.slow
def test_the_example_is_evaluated_by_the_wheel(site, user, trained) -> None:
    words = [*OURS, *TINY, "trust=[mylab]", "theta=run", "hydra.run.dir=evaluated"]
    command = [sys.executable, "-m", "learned_opt", "evaluate", *words]
    evaluated = run(command, user, PYTHONPATH=str(site))
    assert evaluated.returncode == 0, evaluated.stderr
    assert "learned" in evaluated.stdout or "momentum" in evaluated.stdout
    assert (user / "evaluated/evaluation.json").is_file()


def test_python_refuses_a_module_that_hides_tasks(tmp_path) -> None:
    """A script of the user means its own module by that name."""
    (tmp_path / "tasks.py").write_text(THROWS)
    (tmp_path / "script.py").write_text("import learned_opt\nlearned_opt.meta_train\n")
    refused = run([sys.executable, "script.py"], tmp_path, PYTHONPATH=str(ROOT))
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(
        f"ImportError: the module tasks in {tmp_path}/tasks.py hides the package"
    )


def test_the_tasks_of_this_tree_hide_nothing() -> None:
    tasks_package.refuse_another()
    tasks_package.bind()
    assert Path(str(sys.modules["tasks"].__file__)).parent == ROOT / "tasks"


def test_a_module_that_is_imported_already_is_named(monkeypatch, tmp_path) -> None:
    (tmp_path / "tasks.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tasks")
    importlib.import_module("tasks")
    with pytest.raises(ImportError, match=r"tasks\.py hides the package tasks of learned_opt"):
        tasks_package.bind()


def test_the_script_finds_modules_in_the_current_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(front_door, "main", lambda: None)
    front_door.script()
    assert sys.path[0] == str(tmp_path)


def test_configs_of_a_wheel_are_not_those_beside_it(monkeypatch, tmp_path) -> None:
    """As where somebody installs it into the folder of a project."""
    for folder in ("configs", "learned_opt/configs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.yaml").write_text("")
    monkeypatch.setattr(config_files, "PACKAGE", tmp_path / "learned_opt")
    assert config_files.config_dir() == str(tmp_path / "learned_opt/configs")


@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir=mine", "-cd", "theirs"],
        ["hydra.searchpath=[file://mine, 'file://theirs']"],
        ["--config-dir", "mine", "++hydra.searchpath=[pkg://x.y,file://theirs]"],
    ],
)
def test_folders_of_the_command_line(monkeypatch, words) -> None:
    monkeypatch.setattr(sys, "argv", ["learned_opt", *words])
    assert config_files.user_folders() == ["mine", "theirs"]


def test_packages_to_trust() -> None:
    node = {"_target_": "learned_opt.unf.layers.X", "layers": [{"_target_": "a.b.C"}, 3]}
    assert construct.foreign_packages(node) == ["a"]
    assert construct.names_only_ours({"_target_": "learned_opt.optimizers.unf.UNFOptimizer"})
