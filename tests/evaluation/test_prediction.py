"""Predictors of success: oracles, invariance, and the commands."""

import json
import sys
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from scipy.stats import kendalltau

from learned_opt.commands import zoo as command
from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.evaluation.prediction.fit import Settings, fit, prepare
from learned_opt.evaluation.prediction.predictors import (
    NUM_STATISTICS,
    InvariantFunctional,
    StatNN,
    statistics,
)
from learned_opt.evaluation.prediction.probe import probe_gradients
from learned_opt.evaluation.prediction.zoo import (
    Zoo,
    read_shard,
    split_of,
    write_shard,
)
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import Pointwise, UNFLinear
from learned_opt.unf.type_tied import TypeTied
from tests.cases import FAMILIES

FUNCTIONAL = partial(InvariantFunctional, layer=UNFLinear)
SPEC = PermutationSpec({"w": ("h", "i"), "b": ("h",)}, fixed={"i"}, fixed_sizes={"i": 3})


def made_up_zoo(num: int = 400) -> Zoo:
    """Success is a function of one statistic, how strongly the rows of w agree with b."""
    source = torch.Generator().manual_seed(0)
    params = {
        "w": torch.randn(num, 5, 3, generator=source),
        "b": torch.randn(num, 5, generator=source),
    }
    success = torch.sigmoid(3 * (params["w"].mean(-1) * params["b"]).mean(-1))
    rows = {
        "model": range(num),
        "split": split_of(list(range(num)), num),
        "success": success.numpy(),
        "finite": True,
    }
    return Zoo(pd.DataFrame(rows), params, [])


@pytest.mark.parametrize("kind", ["unf", "fold", "deep_set", "tied", "statnn"])
def test_predictors_are_invariant_and_see_more_than_one_tensor(kind) -> None:
    torch.manual_seed(0)
    predictor = (
        {
            "unf": lambda: InvariantFunctional(SPEC, UNFLinear),
            "fold": lambda: InvariantFunctional(SPEC, UNFLinear, fixed_axes="fold"),
            "deep_set": lambda: InvariantFunctional(SPEC, Pointwise),
            "tied": lambda: InvariantFunctional(SPEC, TypeTied, with_statistics=True),
            "statnn": lambda: StatNN(SPEC),
        }[kind]()
        .double()
        .eval()
    )
    weights = made_up_zoo(6).params
    params = {name: value.double().unsqueeze(-1) for name, value in weights.items()}
    element = SPEC.draw(
        {name: value[0, ..., 0] for name, value in params.items()}, torch.Generator().manual_seed(1)
    )
    many = []
    for i in range(6):
        network = {name: value[i] for name, value in params.items()}
        many.append(SPEC.apply(network, element))
    torch.testing.assert_close(predictor(tree.stack(many)), predictor(params), rtol=0, atol=1e-10)
    rolled = {
        "w": params["w"].roll(1, 1),
        "b": params["b"],
    }  # rows of w no longer belong to entries of b
    changed = (predictor(rolled) - predictor(params)).abs().max() > 1e-4
    assert changed == (kind in ("unf", "fold", "tied"))


def test_statistics_against_closed_form() -> None:
    expected = torch.tensor([[2.0, 2.0, 0.0, 1.0, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(statistics(torch.arange(5.0)[None].flip(-1)), expected)


def test_only_the_functional_can_rank_by_what_relates_two_tensors() -> None:
    data = prepare(made_up_zoo())
    settings = Settings(lr=3e-3, batch_size=32, max_epochs=20, patience=20)
    unf = fit(FUNCTIONAL, SPEC, data, settings, seed=0)
    statnn = fit(StatNN, SPEC, data, settings, seed=0)
    assert unf.tau > 0.6
    assert abs(statnn.tau) < 0.4
    assert unf.tau == pytest.approx(kendalltau(unf.predicted, data["test"][1]).statistic, abs=1e-6)

    short = replace(settings, max_epochs=2)
    first, second = (fit(FUNCTIONAL, SPEC, data, short, seed=0) for _ in range(2))
    assert first.tau == second.tau


def test_stopping_by_tau_keeps_the_weights_of_the_best_validation_tau() -> None:
    data = prepare(made_up_zoo())
    by_figure = {}
    for stop_by in ("loss", "tau"):
        settings = Settings(lr=1e-2, batch_size=32, max_epochs=12, patience=12, stop_by=stop_by)
        by_figure[stop_by] = fit(FUNCTIONAL, SPEC, data, settings, seed=0)
    assert by_figure["tau"].valid_tau >= by_figure["loss"].valid_tau
    # with more epochs the best so far can only rise
    longer = Settings(lr=1e-2, batch_size=32, max_epochs=16, patience=16, stop_by="tau")
    assert fit(FUNCTIONAL, SPEC, data, longer, 0).valid_tau >= by_figure["tau"].valid_tau
    with pytest.raises(ValueError, match=r"stop_by must be one of \('loss', 'tau'\), got 'taus'"):
        Settings(lr=1e-2, batch_size=32, max_epochs=1, patience=1, stop_by="taus")
    with pytest.raises(ValueError, match="weight_decay must not be negative"):
        Settings(lr=1e-2, batch_size=32, max_epochs=1, patience=1, weight_decay=-1.0)


def test_statistics_beside_what_is_equivariant_and_dropout_in_training_alone() -> None:
    params = {name: value.unsqueeze(-1) for name, value in made_up_zoo(8).params.items()}
    predictor = InvariantFunctional(SPEC, UNFLinear, with_statistics=True, dropout=0.5)
    plain = InvariantFunctional(SPEC, UNFLinear)
    count = NUM_STATISTICS * len(SPEC.parameters)
    assert predictor.dense[1].in_features == plain.dense[0].in_features + count

    torch.manual_seed(0)
    assert not torch.equal(predictor(params), predictor(params))
    predictor.eval()
    torch.testing.assert_close(predictor(params), predictor(params), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"dropout must be at least 0 and below 1, got 1\.0"):
        StatNN(SPEC, dropout=1.0)


def test_preparation_and_networks_that_diverged() -> None:
    zoo = made_up_zoo()
    zoo.table.loc[zoo.table.split == "test", "finite"] = False
    with pytest.raises(ValueError, match="the test split of the zoo has 0 networks"):
        prepare(zoo)
    zoo = made_up_zoo()
    zoo.table["success"] = 0.5
    with pytest.raises(
        ValueError, match=r"all networks of the train split have the success 0\.5: nothing"
    ):
        prepare(zoo)
    zoo = made_up_zoo()
    zoo.table["success"] *= 3  # a loss, say
    with pytest.raises(ValueError, match=r"success must be a rate from 0 to 1 .* train split"):
        prepare(zoo)
    train, success = prepare(made_up_zoo())["train"]
    assert len(success) == 320
    assert train["w"].mean().abs() < 1e-5
    assert train["w"].std().item() == pytest.approx(1, abs=1e-5)


def test_fewer_networks_to_train_on_are_among_the_more() -> None:
    zoo = made_up_zoo()
    few = prepare(zoo, num_train=40)
    more = prepare(zoo, num_train=80)
    assert set(few["train"][1].tolist()) < set(more["train"][1].tolist())
    torch.testing.assert_close(few["test"][1], more["test"][1], rtol=0, atol=0)
    assert few["train"][0]["w"].mean().abs() < 1e-5


def test_gradients_on_a_probe_batch_are_a_second_channel() -> None:
    zoo = made_up_zoo()

    def gradients_of(params):
        return {name: 100 * value**3 for name, value in params.items()}

    plain = prepare(zoo)
    data = prepare(zoo, gradients_of)
    for split in ("train", "valid", "test"):
        for name, value in data[split][0].items():
            torch.testing.assert_close(value[..., :1], plain[split][0][name], rtol=0, atol=0)
    weights, _ = zoo.select("train")
    for name, gradient in gradients_of(weights).items():
        scaled = (gradient - gradient.mean()) / gradient.std()
        torch.testing.assert_close(data["train"][0][name][..., 1], scaled.asinh())

    settings = Settings(lr=3e-3, batch_size=32, max_epochs=2, patience=2)
    for constructor in (FUNCTIONAL, StatNN):
        assert fit(constructor, SPEC, data, settings, seed=0).epochs > 0


def test_a_probe_is_the_gradient_of_the_training_loss() -> None:
    family = FAMILIES["mlp"]()
    source = torch.Generator().manual_seed(0)
    task = family.sample(source)
    networks = [family.init(source, task) for _ in range(3)]
    gradients = probe_gradients(family, tree.stack(networks), seed=4)

    probe = generator(4, "probe")
    batch = family.batch(probe, family.sample(probe))
    for i, network in enumerate(networks):
        expected = torch.func.grad(family.loss)(network, batch, task)
        for name, value in expected.items():
            torch.testing.assert_close(gradients[name][i], value)


TINY = [
    "recipe.num_models=60",
    "recipe.shard_size=20",
    "recipe.num_steps=[20]",
    "recipe.batch_sizes=[4]",
    "compile=false",
    "zoo=cnn",
    "network.channels=[2,3]",
    "data.test_fraction=0.1",
    "fit.max_epochs=2",
    "num_seeds=2",
]


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo", *arguments])
    command.main()


@pytest.mark.usefixtures("real_pictures")
def test_the_commands(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "build", *TINY)
    run(monkeypatch, "predict", *TINY)
    shown = capsys.readouterr().out
    assert "the zoo is complete: 60 networks" in shown
    folder = tmp_path / "runs/zoo-cnn"
    report = json.loads((folder / "prediction.json").read_text())
    rows = report["predictors"]
    assert [row["predictor"] for row in rows] == ["unf", "statnn", "deep_set"]
    pairs = [row["difference"] for row in report["differences"]]
    assert pairs == ["unf - statnn", "unf - deep_set"]
    assert (folder / "prediction.png").stat().st_size > 5_000

    run(monkeypatch, "predict", *TINY, "probe=16", "~predictors.statnn")
    probed = json.loads((folder / "prediction.json").read_text())["predictors"]
    pairs = zip(probed, [rows[0], rows[2]], strict=True)
    assert all(more["parameters"] > fewer["parameters"] for more, fewer in pairs)
    for word, sentence in (
        ("probe=-1", "probe must be at least 0, got -1"),
        ("data.test_fraction=0.2", "the task that is composed is not that of the zoo: "),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, "predict", *TINY, "probe=16", word)
        assert sentence in capsys.readouterr().err
    assert "Kendall's tau" in (folder / "prediction.md").read_text()
    table, params = read_shard(folder, 1)
    write_shard(folder, 1, table.drop(columns=["shard", "sha256"]), params)
    (folder / "shard-00000.safetensors").write_bytes(b"not weights")
    run(monkeypatch, "predict", *TINY)
    assert "left out: " in (shown := capsys.readouterr().out)
    assert "shard-00000.safetensors is damaged" in shown.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to do: python -m learned_opt zoo build, predict or forecast"),
        (["predict"], "there is no zoo in runs/zoo-gru; build one first"),
        (["build", "recipe.num_models=5"], "num_models must be at least 10"),
        (["build", "zoo=gnu"], "unknown zoo 'gnu'; choose one of: cnn, gru, trajectories"),
    ],
)
def test_what_people_get_wrong(arguments, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
