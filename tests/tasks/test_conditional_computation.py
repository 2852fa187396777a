"""What conditional computation is for, measured: time, learning and memory."""

import subprocess
import sys
import time
from math import pi
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tasks.networks.moe import NearestPrototypeMoE, annealed
from tasks.networks.moe_loading import save_moe
from tasks.networks.prefix_tree_linear import PrefixTreeLinear

pytestmark = pytest.mark.slow


def test_time_is_flat_while_the_parameters_of_a_tree_grow_exponentially() -> None:
    """One example at a time, depth 2 to 12.

    A batch reads different leaves, which is bound by memory (docs/log/prefix-tree-and-mixtures.md).
    """
    layers = {
        depth: PrefixTreeLinear(512, 512, depth, rank=1).eval() for depth in (2, 4, 6, 8, 10, 12)
    }
    seconds = {depth: [] for depth in layers}
    with torch.inference_mode():
        for _ in range(60):
            for depth, layer in layers.items():
                inputs = torch.randn(1, 512)
                start = time.perf_counter()
                layer(inputs)
                seconds[depth].append(time.perf_counter() - start)
    best = {depth: min(values) for depth, values in seconds.items()}
    assert max(best.values()) < 1.5 * min(best.values()), best
    sizes = [layer.left.numel() for layer in layers.values()]
    assert sizes == [512 * (2 ** (depth + 1) - 2) for depth in layers]


def trained(model: nn.Module, function, draw, lr: float, steps: int) -> float:
    """Share of the function's variance that a model leaves unexplained after training with Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        if getattr(model, "temperature", None) is not None:
            model.temperature = annealed(step / steps, start=0.05, end=1e-4)
        inputs = draw(128)
        loss = (model.train()(inputs) - function(inputs)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    inputs = draw(5000)
    with torch.no_grad():
        targets = function(inputs)
        return ((model.eval()(inputs) - targets).square().mean() / targets.var()).item()


def test_tree_beats_a_dense_network_of_equal_multiply_adds_on_a_teacher_with_regions() -> None:
    torch.manual_seed(0)
    teacher = PrefixTreeLinear(16, 8, depth=4).eval().requires_grad_(False)
    tree = PrefixTreeLinear(16, 8, depth=4)
    hidden = tree.multiply_adds // (16 + 8)
    dense = nn.Sequential(nn.Linear(16, hidden), nn.ReLU(), nn.Linear(hidden, 8))

    def draw(count: int) -> torch.Tensor:
        return torch.randn(count, 16)

    left = trained(tree, teacher, draw, lr=0.01, steps=1500)
    assert left < 0.05
    assert trained(dense, teacher, draw, lr=0.03, steps=1500) > 5 * left


def test_tree_overfits_less_than_a_flat_table_on_few_examples() -> None:
    """Both know the gating bits and the best of four ridge strengths, fitted to the optimum.

    Five teachers.
    """
    for seed in range(5):
        tree = _gap("tree", seed)
        table = _gap("table", seed)
        print(f"seed {seed}: tree {tree:.4f}, table {table:.4f}")
        assert tree < table


def _gap(kind: str, seed: int) -> float:
    """Test minus training error at the strength that is best in validation; 120 examples."""
    torch.manual_seed(100 + seed)
    teacher = (
        PrefixTreeLinear(8, 4, depth=4, gate="sign", bias=False)
        .double()
        .eval()
        .requires_grad_(False)
    )
    source = torch.Generator().manual_seed(seed)

    def data(count: int) -> tuple[Tensor, Tensor]:
        x, noise = (
            torch.randn(count, size, generator=source, dtype=torch.float64) for size in (8, 4)
        )
        return x, teacher(x) + 0.3 * noise

    training = data(120)
    validation = data(2000)
    test = data(4000)
    candidates = []
    for strength in (0.01, 0.1, 1.0, 10.0):
        predict = _ridge(kind, *training, strength)
        candidates.append(
            [(predict(x) - y).square().mean().item() for x, y in (validation, training, test)]
        )
    _, on_training, on_test = min(candidates)
    return on_test - on_training


def _ridge(kind: str, x: Tensor, y: Tensor, strength: float):
    """A tree with its penalty, or a table: a tree of which only the leaves are not zero."""
    tree = PrefixTreeLinear(8, 4, depth=4, gate="sign", bias=False).double().eval()
    empty = torch.zeros(30, 4, 8, dtype=torch.float64)
    leaves = torch.zeros(16, 4, 8, dtype=torch.float64, requires_grad=True)
    free = list(tree.parameters()) if kind == "tree" else [leaves]

    def predict(inputs: Tensor) -> Tensor:
        if kind == "tree":
            return tree(inputs)
        return functional_call(
            tree, {"weight": empty[0], "nodes": torch.cat([empty[:14], leaves])}, (inputs,)
        )

    def objective() -> Tensor:
        optimizer.zero_grad()
        penalty = tree.penalty() if kind == "tree" else leaves.square().sum()
        loss = (predict(x) - y).square().sum() + strength * penalty
        loss.backward()
        return loss.detach()

    optimizer = torch.optim.LBFGS(
        free, max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-9
    )
    optimizer.step(objective)
    return lambda inputs: predict(inputs).detach()


@pytest.mark.parametrize(("temperature", "lr"), [(None, 0.1), (0.05, 0.03)])
def test_mixture_beats_one_network_of_the_same_active_parameters(temperature, lr) -> None:
    torch.manual_seed(0)

    def waves(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(6 * pi * x[:, :1]) * torch.cos(4 * pi * x[:, 1:])

    def draw(count: int) -> torch.Tensor:
        return torch.rand(count, 2)

    mixture = NearestPrototypeMoE(2, 1, num_experts=32, depth=2, width=8, temperature=temperature)
    mixture.init_prototypes(draw(2000))
    single = nn.Sequential(nn.Linear(2, 8), nn.PReLU(8), nn.Linear(8, 1))
    assert mixture.active_parameters == sum(p.numel() for p in single.parameters())
    left = trained(mixture, waves, draw, lr, steps=1500)
    assert left < 0.3
    assert trained(single, waves, draw, lr=0.03, steps=1500) > 0.8


PEAK = """
import resource, sys, torch
from tasks.networks.moe_loading import load_moe

def memory(kind):
    for line in open("/proc/self/status"):
        if line.startswith(kind):
            return int(line.split()[1]) / 1024

load = sys.argv[2]
max_active = int(sys.argv[3])
limit = float(sys.argv[4])  # MiB beyond what is there
before = memory("VmHWM")
size = int((memory("VmData") + limit) * 2**20)
resource.setrlimit(resource.RLIMIT_DATA, (size, size))
mixture = load_moe(sys.argv[1], load, max_active).eval()
with torch.no_grad():
    for seed in range(20):
        mixture(torch.randn(64, 16))
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_peak_memory_is_that_of_the_experts_kept(tmp_path) -> None:
    """A thousand experts of 0.27 MiB, of which a tenth fits the limit."""
    whole = NearestPrototypeMoE(16, 256, num_experts=1000, depth=2, width=256)
    save_moe(whole, tmp_path / "moe")
    each = whole.active_parameters * 4 / 2**20
    limit = 100 * each

    def peak(load: str, max_active: int) -> subprocess.CompletedProcess:
        words = [
            sys.executable,
            "-c",
            PEAK,
            str(tmp_path / "moe"),
            load,
            str(max_active),
            str(limit),
        ]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    everything = peak("all", 1)
    assert everything.returncode
    assert "can't allocate memory" in everything.stderr
    few, many = (float(peak("active", count).stdout) for count in (10, 60))
    assert (many - few) / 50 == pytest.approx(each, rel=0.3)
    assert many < 0.25 * 1000 * each
