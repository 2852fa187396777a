"""A training goes on in its own folder, and in no other's."""

import json

from tests.commands.test_cli import TINY
from tests.helpers.commands import run_here

RUN = ["+task=mlp", *TINY, "meta_optimizer=sgdm", "benchmark=none", "hydra.run.dir=run"]


def test_a_run_goes_on_with_its_own_config_alone(tmp_path) -> None:
    first = run_here(tmp_path, *RUN, "trainer.max_steps=2")
    assert first.returncode == 0, first.stderr
    run = tmp_path / "run"
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}

    for word in ("seed=1", "outer_optimizer.optimizer.lr=0.5", "trainer.max_steps=1"):
        other = run_here(tmp_path, *RUN, "trainer.max_steps=2", word)
        assert other.returncode == 2
        key = word.split("=", maxsplit=1)[0]
        assert f"run holds a run of another config: {key} (" in other.stderr
        assert other.stderr.count("\n") == 1

    evaluation = run_here(tmp_path, "evaluate", "+task=mlp", "theta=run", "hydra.run.dir=run")
    assert evaluation.returncode == 2
    assert "holds a run of another config" in evaluation.stderr
    del before[run / ".lock"]
    assert {path: path.read_bytes() for path in before} == before

    more = run_here(tmp_path, *RUN, "trainer.max_steps=3", "logger.csv.flush_every=1")
    assert more.returncode == 0, more.stderr
    assert "going on from run/checkpoints/step_2.ckpt" in more.stdout
    assert json.loads((run / "job.json").read_text())["state"] == "finished"
    assert len(json.loads((run / "starts.json").read_text())) == 2
