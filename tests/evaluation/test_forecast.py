"""Zoos of trajectories, and networks that learn to predict later weights from them."""

import json
import sys

import pandas as pd
import pytest
import torch
from torch import nn

from learned_opt import Nowcaster
from learned_opt.commands import zoo as command
from learned_opt.evaluation.prediction import forecast
from learned_opt.evaluation.prediction.zoo import Zoo, read_zoo
from learned_opt.evaluation.seeded_runs import run_seeds
from tests.evaluation.test_zoo import recipe, unroll_of

TINY = [
    "zoo=trajectories",
    "recipe.num_models=20",
    "recipe.shard_size=10",
    "recipe.num_steps=[100]",
    "recipe.batch_sizes=[16]",
    "network.hidden_sizes=[4]",
    "compile=false",
    "forecast.steps=20",
    "forecast.hidden_size=8",
]


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo", *arguments])
    command.main()


def test_snapshots_are_the_weights_of_the_run() -> None:
    unroll = unroll_of(4)
    theta = {name: p.detach().repeat(3) for name, p in unroll.optimizer.named_parameters()}
    whole = run_seeds(unroll, theta, "valid", [0, 1, 2], 20, 2, snapshot_every=10)
    half = run_seeds(unroll, theta, "valid", [0, 1, 2], 10, 2)
    assert half.snapshots is None
    for name, leaf in whole.snapshots.items():
        assert leaf.shape[:2] == (3, 2)
        assert torch.equal(leaf[:, 1], whole.params[name])
        assert torch.equal(leaf[:, 0], half.params[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snapshot_every": 7}, "snapshot_every must be 0 or a divisor of 50, got 7"),
        ({"snapshot_every": 10}, "num_steps must be one number where snapshots are kept"),
    ],
)
def test_bad_recipes_are_named(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**change)
    assert "snapshot_every" not in recipe().as_dict()  # zoos of before go on


def curves(num_networks: int) -> Zoo:
    """Weights that go to their limits exponentially: lines overshoot, a network need not."""
    source = torch.Generator().manual_seed(0)
    start = torch.randn(num_networks, 1, 6, 5, generator=source)
    limit = torch.randn(num_networks, 1, 6, 5, generator=source)
    times = torch.arange(30.0).reshape(1, -1, 1, 1)
    params = {"weight": limit + (start - limit) * 0.9**times}
    splits = ["test" if i % 5 == 0 else "train" for i in range(num_networks)]
    table = pd.DataFrame({"split": splits, "finite": True, "success": 0.5})
    return Zoo(table, params, [])


def test_a_network_learns_what_lines_cannot() -> None:
    zoo = curves(40)
    settings = forecast.ForecastSettings(hidden_size=16, lr=1e-2, steps=600, batch_size=8)
    rows = forecast.heldout_errors(zoo, forecast.train(zoo, settings))
    assert [row["ahead"] for row in rows] == [1, 5, 10, 20]
    for row in rows[1:]:
        assert row["network"] < 0.5 * row["line"]
        assert row["network"] < 0.5 * row["unchanged"]

    # by hand: 5 snapshots of one curve and the point 20 ahead of the last
    curve = zoo.params["weight"][zoo.table.split.to_numpy() == "test"][:, :25]
    seen = curve[:, :5]
    gaps = (seen[:, -1] - curve[:, 24]).abs().flatten(1)
    scaled = gaps / (seen.flatten(1).std(1, keepdim=True) + 1e-6)
    window = forecast._Window(0, 20)
    trajectories = {"weight": curve}
    ours = forecast._errors(forecast.LinearExtrapolation(), trajectories, window, steps=0)
    torch.testing.assert_close(ours, scaled.mean(1))


def test_the_commands(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "build", *TINY)
    run(monkeypatch, "forecast", *TINY)
    folder = tmp_path / "runs/zoo-trajectories"
    assert {leaf.shape[1] for leaf in read_zoo(folder).params.values()} == {10}
    assert [row["ahead"] for row in json.loads((folder / "forecast.json").read_text())] == [1, 5]
    assert "mean L1 of scaled weights" in capsys.readouterr().out

    model = nn.Linear(3, 2)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    Nowcaster(base, model, folder / "network.safetensors", period=5, horizon=10)
    for words, sentence in (
        (("predict", *TINY), "holds trajectories: zoo forecast reads them"),
        (("forecast", *TINY, "forecast.steps=0"), "steps must be positive, got 0"),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, *words)
        assert sentence in capsys.readouterr().err
