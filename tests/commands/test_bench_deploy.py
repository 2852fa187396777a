"""Cost of deployed optimizers: the rival is the same optimizer, counts are right, the
command runs.
"""

import json
import sys
from functools import partial

import pytest
import torch
from torch import nn

from learned_opt import LearnedOptimizer
from learned_opt.commands import bench_deploy
from learned_opt.evaluation.cost import deployed
from learned_opt.evaluation.cost.plain_loop import PlainLoop
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.unf import Pointwise, UNFLinear
from tests.cases import OPTIMIZERS

DEEP_SET = partial(UNFOptimizer, head=Pointwise, channels=6, beta=0.1)
TIED = OPTIMIZERS["unf_tied"]


def test_the_plain_loop_is_the_same_optimizer() -> None:
    torch.manual_seed(0)
    meta = DEEP_SET(deployed.NO_SPEC)
    shapes = {"a": torch.Size((5, 7)), "b": torch.Size((5,)), "c": torch.Size(())}
    loop = deployed.DeployedStep(shapes, lambda params: PlainLoop(params.values(), meta))
    ours = deployed.DeployedStep(shapes, lambda params: LearnedOptimizer(params.values(), meta))
    for _ in range(4):
        loop()
        ours()
    pairs = zip(
        loop.optimizer.param_groups[0]["params"],
        ours.optimizer.param_groups[0]["params"],
        strict=True,
    )
    for left, right in pairs:
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)


def test_rows() -> None:
    nets = {"net": (nn.Linear(300, 100), torch.zeros(1, 300))}
    learned = {"small": DEEP_SET, "tied": TIED}
    rows = list(deployed.measure(nets, learned, 1, lambda text: None))
    by_name = {row["optimizer"]: row for row in rows}
    assert list(by_name) == [
        "AdamW foreach",
        "AdamW fused",
        "small fused",
        "small default",
        "small loop",
        "tied default",
    ]
    assert by_name["tied default"]["/ loop"] is None
    assert by_name["AdamW foreach"]["state B"] == pytest.approx(8, abs=0.01)  # two moments
    for way in ("fused", "default", "loop"):
        row = by_name[f"small {way}"]
        assert row["state B"] == pytest.approx(28, abs=0.01)  # seven momenta
        assert row["theta"] == 19 * 6 + 2 * 6 * 6 + 6 + 3 * 6 + 1 + 3
    assert (
        by_name["small fused"]["temp B"]
        < 1
        < by_name["small default"]["temp B"]
        < by_name["small loop"]["temp B"]
    )
    assert by_name["small loop"]["/ loop"] == by_name["AdamW foreach"]["/ AdamW"] == 1


def test_those_that_read_the_loss_and_the_length_of_the_training_are_measured_too() -> None:
    nets = {"net": (nn.Linear(30, 10), torch.zeros(1, 30))}
    learned = {name: partial(OPTIMIZERS[name], num_steps=None) for name in ("celo", "velo")}
    rows = list(deployed.measure(nets, learned, 1, lambda text: None))
    assert [row["optimizer"] for row in rows][2:] == ["celo default", "velo default"]
    assert rows[2]["/ loop"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": UNFLinear}, "weight space"),
        ({"normalisation": "channel"}, "learned\\[x\\] is pointwise, so that it must"),
    ],
)
def test_other_optimizers_are_refused(options, message) -> None:
    nets = {"net": (nn.Linear(2, 2), torch.zeros(1, 2))}
    with pytest.raises(ValueError, match=message):
        list(deployed.measure(nets, {"x": partial(DEEP_SET, **options)}, 1, lambda text: None))
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        list(deployed.measure({}, {}, 0, lambda text: None))


def test_the_command(tmp_path, monkeypatch, capsys) -> None:
    words = [
        "only=[mlp]",
        "repeats=1",
        "networks.mlp.hidden_sizes=[4]",
        "~learned.deep_set_16",
        "~learned.deep_set_32",
    ]
    monkeypatch.setattr(sys, "argv", ["bench_deploy", *words, f"hydra.run.dir={tmp_path}"])
    threads = torch.get_num_threads()
    bench_deploy.main()
    torch.set_num_threads(threads)
    assert "mlp, 0.00M in 4 tensors" in capsys.readouterr().out
    written = json.loads((tmp_path / "deployed.json").read_text())
    assert len(written["rows"]) == 7
    assert "deep_set_8 fused" in (tmp_path / "deployed.md").read_text()


def test_an_unknown_network_is_named(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_deploy", "only=[vgg]", f"hydra.run.dir={tmp_path}"])
    with pytest.raises(SystemExit, match="2"):
        bench_deploy.main()
    assert (
        "only must hold names of networks (mlp, resnet, transformer), got vgg."
        in capsys.readouterr().err
    )
