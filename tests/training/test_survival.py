"""Runs that are killed at random moments and started again end like the one that was not."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learned_opt.core import tree
from learned_opt.training.checkpoint_files import newest, read

RUNS = ("straight", "killed")
STAGED = [  # the second stage begins in the middle of the kills
    *("meta_optimizer=unf", "outer_optimizer=staged"),
    "outer_optimizer.schedule.factors.equivariant.start=9",
    "outer_optimizer.schedule.factors.equivariant.then.num_steps=2",
]
OF_THE_MACHINE = ("inner_steps_per_second", "peak_memory")


def survived(folder: Path, *arguments: str) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.helpers.survivor", str(folder), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    output = "".join(path.read_text() for path in folder.rglob("output*.txt"))
    assert result.returncode == 0, result.stderr + output[-3000:]
    return json.loads(result.stdout)


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in [name for name in row if name.startswith(OF_THE_MACHINE)]:
            del row[name]
    return rows


def saved(run: Path) -> dict[str, torch.Tensor]:
    """Theta, outer optimizer and chains at the end."""
    checkpoint = read(newest(run / "checkpoints"))
    (outer,) = checkpoint["optimizer_states"]
    return tree.flatten(
        {
            "theta": checkpoint["state_dict"],
            "outer": {str(key): state for key, state in outer["state"].items()},
            "chains": checkpoint["estimator_state"],
        }
    )


def check_equal_to_the_straight_run(folder: Path, num_steps: int) -> None:
    straight = folder / "straight/run"
    killed = folder / "killed/run"
    assert [int(row["step"]) for row in metrics(killed)] == list(range(num_steps))
    assert metrics(killed) == metrics(straight)
    left, right = saved(straight), saved(killed)
    assert list(left) == list(right)
    assert all(torch.equal(left[name], right[name]) for name in left)
    files = []
    for step in (num_steps - 2, num_steps):
        files += [f"step_{step}.ckpt", f"step_{step}.ckpt.sha256"]
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == sorted(files)
    assert not list(killed.rglob("*.partial"))


def test_two_ranks_survive_kills_and_agree_with_one(tmp_path) -> None:
    """A kill hits one of the ranks; the other must end by itself."""
    assert survived(tmp_path, "--ranks=2", "--kills=1", "trainer.max_steps=8") == {
        "kills": 1,
        "orphans": 0,
    }
    check_equal_to_the_straight_run(tmp_path, 8)
    two, one = saved(tmp_path / "straight/run"), saved(tmp_path / "alone/run")
    for name, leaf in one.items():  # float32, summed in another order, over 8 outer steps
        torch.testing.assert_close(
            two[name], leaf, rtol=1e-2, atol=1e-3, msg=lambda text, name=name: name + text
        )
    for row, other in zip(
        metrics(tmp_path / "straight/run"), metrics(tmp_path / "alone/run"), strict=True
    ):
        assert row["nonfinite_pairs"] == other["nonfinite_pairs"]
        for key in ("meta_loss/train", "meta_grad_norm"):
            assert float(row[key]) == pytest.approx(float(other[key]), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "kills", "words"),
    [(1, 20, []), (2, 20, []), (1, 5, ["compile=true"]), (2, 4, STAGED)],
    ids=["one-rank", "two-ranks", "compiled", "two-ranks-in-stages"],
)
def test_many_kills(tmp_path, ranks, kills, words) -> None:
    steps = 4 * kills + 4
    result = survived(
        tmp_path, f"--ranks={ranks}", f"--kills={kills}", f"trainer.max_steps={steps}", *words
    )
    assert result == {"kills": kills, "orphans": 0}
    check_equal_to_the_straight_run(tmp_path, steps)
    if words is STAGED:
        averages = [tmp_path / name / "run/theta_average.safetensors" for name in RUNS]
        assert averages[0].read_bytes() == averages[1].read_bytes()
