"""The front door: help, verbs, and one path for errors and exit codes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learned_opt.commands import front_door, help_pages, replay
from learned_opt.core.errors import RunError
from learned_opt.runtime import job_file
from tests.compose.test_configs import composed
from tests.helpers.commands import run_here

ROOT = Path(front_door.__file__).parents[2]
HEAVY = ("torch", "hydra", "omegaconf", "lightning")


def python(code: str, **settings) -> subprocess.CompletedProcess:
    """Run code in a new process that finds this package."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **settings,
    )


def refused(monkeypatch, capsys, *words: str) -> str:
    """What is printed where the words are refused."""
    monkeypatch.setattr(sys, "argv", ["learned_opt", *words])
    with pytest.raises(SystemExit) as stop:
        front_door.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    assert error.startswith("learned_opt: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["+task=mlp", "--help"]])
def test_help_lists_the_verbs(monkeypatch, capsys, words) -> None:
    monkeypatch.setattr(sys, "argv", ["learned_opt", *words])
    front_door.main()
    page = capsys.readouterr().out
    for verb, sentence in help_pages.VERBS.items():
        assert verb in page
        assert sentence in page
    assert "python -m learned_opt +task=mlp" in page
    assert all(len(line) <= 110 for line in page.splitlines())


def test_version_is_that_of_this_program(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["learned_opt", "--version"])
    front_door.main()
    assert capsys.readouterr().out.startswith("learned_opt ")


def test_full_errors_break_no_launcher(monkeypatch) -> None:
    """HYDRA_FULL_ERROR shows tracebacks, and Hydra still knows the launchers of this program.

    It looks for them when a sweep starts, not when a config is composed or shown.
    """
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    code = (
        "from hydra.core.plugins import Plugins\n"
        "from learned_opt.commands import cli\n"
        "def show():\n"
        "    print(*Plugins.instance().class_name_to_class)\n"
        "cli.entry_point(show, needs_task=False)\n"
    )
    result = python(code)
    node = composed("+task=mlp", "hydra/launcher=workstation").hydra.launcher
    assert node["_target_"] in result.stdout.split(), result.stderr


def test_printed_commands_keep_the_folder_of_configs(tmp_path) -> None:
    """In a process of its own, as Hydra knows of a folder only once it has started."""
    (tmp_path / "mine").mkdir()
    code = (
        "import sys\n"
        "from learned_opt.commands import train\n"
        "from learned_opt.compose import command_line, hydra_job, resolve\n"
        "def show(cfg):\n"
        "    print(hydra_job.config_words(), command_line.command())\n"
        "    raise SystemExit(0)\n"
        "resolve.final = show\n"
        f"sys.argv[1:] = ['+task=mlp', '--config-dir={tmp_path}/mine', 'hydra.run.dir=run']\n"
        "train.main()\n"
    )
    result = python(code, cwd=tmp_path)
    words = f"--config-dir={tmp_path}/mine"
    assert f"['{words}']" in result.stdout, result.stderr
    assert result.stdout.strip().endswith(words)


@pytest.mark.parametrize("verb", help_pages.VERBS)
def test_every_verb_says_what_it_takes(monkeypatch, capsys, verb) -> None:
    monkeypatch.setattr(sys, "argv", ["learned_opt", verb, "--help"])
    if help_pages.has_config(verb):
        front_door.main()
    else:
        with pytest.raises(SystemExit) as stop:
            front_door.main()
        assert stop.value.code == 0
    page = capsys.readouterr().out
    assert f"python -m learned_opt {verb}" in page or verb == "train"
    assert len(page.splitlines()) > 8


def test_the_page_of_a_verb_has_its_keys_and_those_of_every_run() -> None:
    page = help_pages.page("lab", ["--help"])
    assert "  replicates: 24 # independent estimates of each" in page
    assert "  horizon: 200 # inner steps of one inner training run" in page
    assert "defaults:" not in page
    assert "hydra:\n" not in page
    assert "unf_tied" in page
    assert "batch_size: 512" in help_pages.page("bench", ["networks", "--help"])


def test_help_is_light() -> None:
    """Neither torch nor Hydra is imported, which is what makes it quick."""
    for words in (["--help"], ["lab", "--help"], ["traim"], ["replay=x"]):
        code = (
            "import sys\n"
            f"sys.argv = {['learned_opt', *words]}\n"
            "from learned_opt.commands import front_door\n"
            "try: front_door.main()\n"
            "except SystemExit: pass\n"
            f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])\n"
        )
        result = python(code)
        assert result.stdout.splitlines()[-1] == "heavy: []", result.stderr


@pytest.mark.slow  # what it does not import is tested above
def test_help_takes_a_fraction_of_the_import_of_torch() -> None:
    def seconds(code: str) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            python(code)
            times.append(time.perf_counter() - start)
        return min(times)

    answer = "import sys; sys.argv[1:] = ['-h']; from learned_opt.commands import front_door as f"
    assert seconds(f"{answer}; f.main()") < 0.6 * seconds("import torch")


def test_unknown_verbs_and_the_old_replay_are_answered(monkeypatch, capsys) -> None:
    error = refused(monkeypatch, capsys, "traim", "+task=mlp")
    assert "unknown verb 'traim'" in error
    assert "Did you mean 'train'?" in error
    error = refused(monkeypatch, capsys, "replay=runs/x.yaml", "device=cpu")
    assert "write: python -m learned_opt replay runs/x.yaml" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["collect"], "required: folder"),
        (["report", "--nope", "x"], "unrecognized arguments: --nope"),
        (["replay", "x.yaml", "device"], "changes must look like KEY=VALUE, got 'device'"),
        (["zoo", "burn"], "zoo build, predict or forecast"),
        (["bench", "--compare"], "--compare needs a FILE"),
        (["bench", "networks", "only=[nope]"], "only must hold names of cases (quadratic, "),
        (["bench", "deploy", "only=[nope]"], "only must hold names of networks (mlp, "),
        (["lab", "+task=mlp", "replicates=1"], "replicates must be at least 2, got 1."),
    ],
)
def test_bad_words_of_verbs_are_one_sentence(monkeypatch, capsys, tmp_path, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(monkeypatch, capsys, *words)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "\nlearned_opt: interrupted.\n"),
        (RunError("it cannot go on."), 1, "learned_opt: it cannot go on.\n"),
    ],
)
def test_every_verb_ends_alike(monkeypatch, capsys, error, code, line) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr(replay, "run", fails)
    monkeypatch.setattr(sys, "argv", ["learned_opt", "replay"])
    with pytest.raises(SystemExit) as stop:
        front_door.main()
    assert stop.value.code == code
    assert capsys.readouterr().err == line


def test_a_reader_that_has_gone_is_no_traceback(tmp_path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "learned_opt", "train", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(
        command, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (141, "")


@pytest.mark.parametrize(("words", "code"), [("--help", 0), ("traim", 2)])
def test_closed_streams_are_no_traceback(tmp_path, words, code) -> None:
    command = f"{sys.executable} -m learned_opt {words} >&- 2>err || echo $? >code"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, check=True)
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert (tmp_path / "code").exists() == bool(code)


def test_ctrl_c_is_a_line_and_130(tmp_path) -> None:
    """In a process of its own, which waits for a terminal that never comes."""
    code = (
        "import signal, sys, time\n"
        # which a process that was started behind others would ignore
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from learned_opt.commands import front_door, replay\n"
        "replay.run = lambda: (print('waits', flush=True), time.sleep(60))\n"
        "sys.argv[1:] = ['replay']\n"
        "front_door.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, "\nlearned_opt: interrupted.\n")


def test_a_job_that_is_refused_leaves_the_others_of_its_sweep_alone(tmp_path) -> None:
    tiny = ["horizon=2", "unroll_length=1", "compile=false", "reference.num_tasks=1"]
    cases = ["cases.all=null", "+estimator@cases.es=es", "cases.es.num_tasks=1"]
    words = [
        "-m",
        "+task=mlp",
        "meta_optimizer=sgdm",
        *tiny,
        *cases,
        "replicates=1,2",
        "hydra.sweep.dir=s",
    ]
    result = run_here(tmp_path, "lab", *words)
    assert result.returncode == 1, result.stderr
    assert result.stderr == "learned_opt: 1 of 2 jobs are not whole.\n"
    assert "replicates must be at least 2, got 1." in " ".join(result.stdout.split())
    assert "Traceback" not in result.stdout
    states = {name: job_file.read(tmp_path / "s" / name)["state"] for name in ("0", "1")}
    assert states == {"0": "failed", "1": "finished"}
    assert (tmp_path / "s" / "1" / "lab.json").is_file()
