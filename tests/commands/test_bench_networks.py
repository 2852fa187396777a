"""Costs of layers: counts, plain rivals, growth, and the command."""

import json
import sys

import pytest
import torch
from torch import nn

from learned_opt.commands import bench
from learned_opt.evaluation.cost import layer_costs
from tasks.networks.quadratic import QuadraticLinear
from tests.helpers.made_folders import only_folder_of

CPU = torch.device("cpu")


class Sparse(nn.Linear):
    """A layer that says that it uses half of its weights."""

    @property
    def multiply_adds(self) -> int:
        return self.weight.numel() // 2

    active_parameters = multiply_adds


def test_counts_are_the_layers_own_or_all_there_is() -> None:
    assert layer_costs.count(nn.Linear(7, 4)) == {
        "parameters": 32,
        "active parameters": 32,
        "multiply-adds": 28,
    }
    assert list(layer_costs.count(Sparse(7, 4)).values()) == [32, 14, 14]
    assert list(layer_costs.count(QuadraticLinear(7, 4)).values()) == [96, 96, 4 * (3 * 7 + 1)]


def test_plain_rivals_match_in_parameters_or_multiply_adds() -> None:
    rivals = layer_costs.plain_layers(QuadraticLinear(63, 16))
    assert layer_costs.count(rivals["P"])["parameters"] == 3 * 64 * 16
    assert layer_costs.count(rivals["A"])["multiply-adds"] == 63 * round(16 * (3 * 63 + 1) / 63)
    assert layer_costs.plain_layers(Sparse(8, 8))["A"].out_features == 4


def test_measured_rows_and_exponents() -> None:
    """Parameters and multiply-adds grow as n and n^2; memory of the form holds its n^2
    weights' gradient.
    """
    values = [256, 512, 1024]
    cases = {
        "quadratic": layer_costs.Case(
            lambda in_features: QuadraticLinear(in_features, 4), "in_features", values
        ),
        "form": layer_costs.Case(
            lambda in_features: QuadraticLinear(in_features, 4, terms="form", init="unit_variance"),
            "in_features",
            values,
        ),
    }
    rows = list(layer_costs.measure(cases, 4, 1, CPU, lambda text: None))
    assert [(row["case"], row["size"]) for row in rows] == [
        (case, n) for case in cases for n in values
    ]
    assert all(
        row[f"{cost}{of}"] > 0
        for row in rows
        for cost in layer_costs.COSTS
        for of in ("", " of P", " of A")
    )
    grown = {row["case"]: row for row in layer_costs.growth(rows)}
    exponent = {}
    for case, row in grown.items():
        exponent[case] = {k: float(v.split()[0]) for k, v in row.items() if "±" in v}
    for figure in ("parameters", "multiply-adds"):
        assert exponent["quadratic"][figure] == pytest.approx(1, abs=0.02)
        assert exponent["form"][figure] == pytest.approx(2, abs=0.02)
    assert exponent["quadratic"]["train KiB"] == pytest.approx(1, abs=0.1)
    assert exponent["form"]["train KiB"] == pytest.approx(2, abs=0.1)
    for row in rows:
        assert row["parameters of P"] == pytest.approx(row["parameters"], rel=0.02)
        assert row["multiply-adds of A"] == pytest.approx(row["multiply-adds"], rel=0.02)


def test_memory_of_recomputed_factors_is_not_held() -> None:
    """Between forward and backward pass two factors of B m floats are missing, but for
    three of the backward pass.
    """
    batch = 1024
    width = 32
    depth = 12

    def deep(recompute: int) -> nn.Module:
        return nn.Sequential(
            *(QuadraticLinear(width, width, recompute=recompute) for _ in range(depth))
        )

    inputs = torch.randn(batch, width)
    factor = 4 * batch * width
    peaks = [
        layer_costs.peak_live_bytes(layer_costs.Pass(deep(recompute), inputs, True))
        for recompute in (0, 1, 2)
    ]
    assert (peaks[0] - peaks[1]) / factor == pytest.approx(depth, abs=3)
    assert (peaks[1] - peaks[2]) / factor == pytest.approx(depth, abs=3)


def test_sizes_may_be_powers_of_the_value() -> None:
    case = layer_costs.Case(nn.Linear, "depth", [1, 2, 3], base=2)
    assert [case.size(value) for value in case.values] == [2, 4, 8]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: layer_costs.Case(nn.Linear, "n", [1, 2]),
            r"values of n must be at least three and ascend, got \[1, 2\]",
        ),
        (lambda: layer_costs.Case(nn.Linear, "n", [3, 2, 1]), "must be at least three and ascend"),
        (
            lambda: next(layer_costs.measure({}, 0, 1, CPU, print)),
            "batch_size must be at least 1, got 0",
        ),
        (
            lambda: next(layer_costs.measure({}, 1, 0, CPU, print)),
            "repeats must be at least 1, got 0",
        ),
    ],
)
def test_bad_values_are_named(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["networks", "only=[quadratic]", "repeats=1", "batch_size=2"]
    monkeypatch.setattr(sys, "argv", ["bench", *small, "cases.quadratic.values=[2,4,8]"])
    bench.main()
    assert "quadratic" in capsys.readouterr().out
    folder = only_folder_of(tmp_path / "runs/bench-networks")
    written = json.loads((folder / "networks.json").read_text())
    assert [row["value"] for row in written["rows"]] == [2, 4, 8]
    assert " networks only=[quadratic]" in written["command"]
    assert "equal parameters" in (folder / "networks.md").read_text()
    monkeypatch.setattr(sys, "argv", ["bench", "networks", "only=[nope]"])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == 2
    assert "only must hold names of cases (quadratic, " in capsys.readouterr().err
