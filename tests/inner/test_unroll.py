"""The inner loop: side by side equals one by one, compiled equals eager, in one piece
equals in pieces.
"""

import logging

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from learned_opt.core import tree
from learned_opt.core.compiled import _warn_once, trace
from learned_opt.inner.unroll import RUNNING, Unroll
from learned_opt.optimizers.hand.references import make_sgdm
from learned_opt.symmetry import PermutationSpec
from tasks.base import TaskFamily
from tests.cases import (
    FAMILIES,
    OPTIMIZERS,
    PAIRS,
    PAIRS_ONCE,
    READS_EXAMPLES,
    others_slow,
    spec_of,
)

KEYS = [("test", i) for i in range(3)]


def make(family: str, optimizer: str, *, compile: bool = False) -> tuple[Unroll, dict]:
    problem = FAMILIES[family]()
    torch.manual_seed(0)
    meta = (OPTIMIZERS | READS_EXAMPLES)[optimizer](spec_of(problem))
    theta = {
        k: p.detach().expand(len(KEYS), *p.shape).contiguous() for k, p in meta.named_parameters()
    }
    return Unroll(problem, meta, compile=compile), theta


def select(many: dict, i: int) -> dict:
    return tree.tree_map(lambda leaf: leaf[i : i + 1], many)


@pytest.mark.parametrize(("family", "optimizer"), others_slow(PAIRS, PAIRS_ONCE))
@torch.no_grad()
def test_chains_do_not_see_each_other(family, optimizer) -> None:
    unroll, theta = make(family, optimizer)
    chains = unroll.start(KEYS)
    batches = unroll.batches(KEYS, chains, 4)
    losses, after = unroll.run(theta, chains, batches)
    assert losses.shape == (4, 3)
    tolerance = (
        1e-2 if optimizer == "adam_controller" else 1e-3
    )  # its LSTM reads signs and logarithms of small means
    for i, key in enumerate(KEYS):
        alone = unroll.start([key])
        alone_losses, alone_after = unroll.run(
            select(theta, i), alone, unroll.batches([key], alone, 4)
        )
        torch.testing.assert_close(alone_losses[:, 0], losses[:, i], rtol=1e-4, atol=1e-5)
        for left, right in zip(tree.leaves(alone_after), tree.leaves(after), strict=True):
            torch.testing.assert_close(left[0], right[i], rtol=tolerance, atol=tolerance / 10)


@torch.no_grad()
def test_any_split_of_the_steps_gives_the_same_bits() -> None:
    unroll, theta = make("mlp", "unf")
    chains = unroll.start(KEYS)
    batches = unroll.batches(KEYS, chains, 6)
    whole, end = unroll.run(theta, chains, batches)
    first, middle = unroll.run(theta, chains, tree.tree_map(lambda leaf: leaf[:2], batches))
    second, pieces = unroll.run(theta, middle, tree.tree_map(lambda leaf: leaf[2:], batches))
    assert torch.equal(whole, torch.cat([first, second]))
    assert all(
        torch.equal(a, b) for a, b in zip(tree.leaves(end), tree.leaves(pieces), strict=True)
    )


@pytest.mark.parametrize(
    ("family", "optimizer"),
    [
        ("mlp", "unf"),
        ("cnn", "sgdm"),
        ("quadratic", "adam"),
        pytest.param("mlp", "deep_set_gradmetanet", marks=pytest.mark.slow),
        pytest.param("cnn_norm", "unf_gradient_set", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_compiled_equals_eager(family, optimizer, caplog) -> None:
    """float32 with other summation orders over five steps; the tolerance is relative to
    losses of order one.
    """
    eager, theta = make(family, optimizer)
    compiled, _ = make(family, optimizer, compile=True)
    chains = eager.start(KEYS)
    batches = eager.batches(KEYS, chains, 5)
    losses, _ = eager.run(theta, chains, batches)
    compiled_losses, _ = compiled.run(theta, chains, batches)
    assert "running eagerly" not in caplog.text
    torch.testing.assert_close(compiled_losses, losses, rtol=1e-4, atol=1e-5)
    assert not (losses[0] == losses[-1]).any()


TRACED = [("mlp", optimizer) for optimizer in OPTIMIZERS | READS_EXAMPLES]
TRACED += [(family, "unf") for family in FAMILIES if family != "mlp"]
# one of each class of optimizers, and what is convolved and what recurs
TRACED_ONCE = {("mlp", name) for name in ("sgdm", "mlp", "lstm", "celo", "velo", "nowcast")}
TRACED_ONCE |= {("mlp", name) for name in ("nfn", "unf", "unf_fold", "deep_set_gradmetanet")}
TRACED_ONCE |= {(name, "unf") for name in ("cnn_norm", "gru")}


@pytest.mark.parametrize(("family", "optimizer"), others_slow(TRACED, TRACED_ONCE))
@torch.no_grad()
def test_the_traced_step_is_the_step(family, optimizer) -> None:
    """On weights that the trace did not see."""
    unroll, theta = make(family, optimizer)
    chains = unroll.start(KEYS)
    others = unroll.start([("other", *key) for key in KEYS])
    batch = tree.tree_map(lambda leaf: leaf[0], unroll.batches(KEYS, chains, 1))

    def arguments(start: tree.Tree) -> tuple:
        return (theta, start["task"]), {name: start[name] for name in RUNNING}, batch

    graph, result = trace(unroll._batched_step, *tree_flatten(arguments(chains)))
    loss, after = tree_unflatten(graph(*tree_leaves(arguments(others))), result)
    expected_loss, expected = unroll._batched_step(*arguments(others))
    torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after["params"], expected["params"], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_bf16_products_move_the_weights_nearly_the_same() -> None:
    """bfloat16 has 8 bits of mantissa, so an update is off by about a hundredth; its type
    and the state's stay.
    """
    exact, theta = make("mlp", "unf")
    rounded = Unroll(exact.family, exact.optimizer, compile=False, precision="bf16")
    chains = exact.start(KEYS)
    batches = exact.batches(KEYS, chains, 3)
    _, after = exact.run(theta, chains, batches)
    _, near = rounded.run(theta, chains, batches)
    for start, left, right in zip(
        *(tree.leaves(each["params"]) for each in (chains, after, near)), strict=True
    ):
        assert right.dtype == torch.float32
        change = (left - right).norm() / (left - start).norm()
        assert 0 < change < 0.05
    with pytest.raises(ValueError, match="precision must be one of float32, bf16, got 'half'"):
        Unroll(exact.family, exact.optimizer, precision="half")


@torch.no_grad()
def test_a_diverged_chain_leaves_the_others_alone() -> None:
    unroll, theta = make("mlp", "sgdm")
    chains = unroll.start(KEYS)
    batches = unroll.batches(KEYS, chains, 5)
    healthy, _ = unroll.run(theta, chains, batches)
    theta["log_lr"][1] = torch.nan
    losses, _ = unroll.run(theta, chains, batches)
    assert losses[1:, 1].isnan().all()
    assert torch.equal(losses[:, [0, 2]], healthy[:, [0, 2]])


@torch.no_grad()
@torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")})
def test_without_a_compiler_it_says_so_once_and_runs_eagerly(monkeypatch, caplog, tmp_path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing compiled before may help
    torch._dynamo.reset()
    _warn_once.cache_clear()
    eager, theta = make("quadratic", "sgdm")
    broken, _ = make("quadratic", "sgdm", compile=True)
    chains = eager.start(KEYS)
    batches = eager.batches(KEYS, chains, 3)
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        losses, _ = broken.run(theta, chains, batches)
        another, _ = make("quadratic", "sgdm", compile=True)
        another.run(theta, chains, batches)
    assert torch.equal(losses, eager.run(theta, chains, batches)[0])
    warnings = [record for record in caplog.records if record.name.startswith("learned_opt")]
    assert len(warnings) == 1
    assert "running eagerly" in warnings[0].message
    torch._dynamo.reset()


def test_optimizer_of_another_network_is_refused() -> None:
    spec = PermutationSpec({"y": ("coordinate",)})
    unroll = Unroll(FAMILIES["quadratic"](), make_sgdm(spec), compile=False)
    with pytest.raises(ValueError, match="missing: y; unexpected: x"):
        unroll.optimizer.spec.sizes(unroll.start([("k",)])["params"])


class Bowl(TaskFamily):
    """A family without data: its batches are empty."""

    def sample(self, generator):
        return {}

    def init(self, generator, task):
        return {"x": torch.randn(3, generator=generator)}

    def batch(self, generator, task, split="train"):
        return {}

    def loss(self, params, batch, task):
        return params["x"].square().sum()


@torch.no_grad()
def test_batches_may_be_empty() -> None:
    family = Bowl()
    unroll = Unroll(family, OPTIMIZERS["sgdm"](spec_of(family)), compile=False)
    theta = tree.expand({k: p.detach() for k, p in unroll.optimizer.named_parameters()}, len(KEYS))
    chains = unroll.start(KEYS)
    losses, _ = unroll.run(theta, chains, unroll.batches(KEYS, chains, 4))
    assert losses.shape == (4, 3)
    assert (losses[-1] < losses[0]).all()
