"""What runs on a GPU equals the same on the CPU: inner loops, deployed steps, whole commands.

``tests/gpu/check.sh`` runs these beside the other tests of the marker.
"""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from learned_opt import LearnedOptimizer
from learned_opt.commands import train
from learned_opt.core import tree
from learned_opt.inner.unroll import Unroll
from tests.cases import FAMILIES, OPTIMIZERS, spec_of
from tests.helpers.made_folders import only_folder_of

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
KEYS = [("test", i) for i in range(3)]
SMALL_RUN = [
    f"device={DEVICE}",
    "horizon=6",
    "estimator.unroll_length=3",
    "estimator.num_tasks=2",
    "trainer.max_steps=2",
    "benchmark.num_seeds=2",
    "benchmark.num_chains=2",
    "benchmark.num_lrs=2",
    "benchmark.num_tuning_seeds=1",
    "benchmark.archive=null",
]


def losses_on(device: str, family: str, optimizer: str, compile: bool) -> torch.Tensor:
    """Of three chains over five inner steps, ``(5, 3)``, on the CPU."""
    problem = FAMILIES[family]()
    torch.manual_seed(0)
    meta = OPTIMIZERS[optimizer](spec_of(problem)).to(device)
    unroll = Unroll(problem, meta, compile=compile, device=device)
    theta = {
        name: param.detach().expand(len(KEYS), *param.shape).contiguous()
        for name, param in meta.named_parameters()
    }

    chains = unroll.start(KEYS)
    with torch.no_grad():
        losses, after = unroll.run(theta, chains, unroll.batches(KEYS, chains, 5))
    assert {leaf.device.type for leaf in tree.leaves(after)} == {device}
    return losses.cpu()


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("optimizer", ["sgdm", "deep_set", "unf", "unf_all", "unf_muon", "celo"])
@pytest.mark.parametrize("family", ["mlp", "transformer"])
def test_an_unroll_is_that_of_the_cpu(family, optimizer, compile) -> None:
    expected = losses_on("cpu", family, optimizer, compile=False)
    losses = losses_on(DEVICE, family, optimizer, compile)
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-4)


def trained_on(device: str, **options) -> list[torch.Tensor]:
    """The parameters of a small network after four steps of a packaged optimizer, on the CPU."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(device)
    data = torch.randn(16, 6, generator=torch.Generator().manual_seed(0)).to(device)
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network, (data,), **options)
    for _ in range(4):
        optimizer.zero_grad()
        network(data).square().mean().backward()
        optimizer.step()
    return [param.detach().cpu() for param in network.parameters()]


def test_a_deployed_step_is_that_of_the_cpu() -> None:
    for param, expected in zip(trained_on(DEVICE), trained_on("cpu"), strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("estimator", ["pes", "bptt"])
def test_a_run_trains_and_compares(tmp_path, monkeypatch, estimator) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "+task=mlp", f"estimator={estimator}", *SMALL_RUN]
    monkeypatch.setattr(sys, "argv", words)
    train.main()

    folder = only_folder_of(Path("runs/mlp"))
    assert (folder / "theta.safetensors").is_file()
    assert (folder / "report.html").is_file()
    assert "unf" in (folder / "evaluation.json").read_text()
