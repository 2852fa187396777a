"""The steps of LearnedOptimizer are those of meta-training, of torch, and of the fused kernel."""

from functools import partial

import pytest
import torch
from torch import nn

from learned_opt import LearnedOptimizer
from learned_opt.core import tree
from learned_opt.deploy.parity import check_parity, verdict
from learned_opt.deploy.weight_space import Slot
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from tests.cases import FAMILIES, OPTIMIZERS, spec_of
from tests.deploy.test_learned_optimizer import DATA, SPEC, deep_set, model, train


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_the_inner_loop(name) -> None:
    """The same gradients through ``Unroll`` and through ``LearnedOptimizer``."""
    family = FAMILIES["mlp"]()
    torch.manual_seed(0)
    meta = OPTIMIZERS[name](spec_of(family))
    unroll = Unroll(family, meta, compile=False)
    theta = tree.expand({k: p.detach() for k, p in meta.named_parameters()}, 1)
    chains = unroll.start([("deploy", 0)])
    ours = {name: nn.Parameter(p[0].clone()) for name, p in chains["params"].items()}
    deployed = LearnedOptimizer(ours.items(), meta)

    for step in range(3):
        batches = unroll.batches([("deploy", step)], chains, 1)  # (1 step, 1 chain, ...)
        batch = tree.tree_map(lambda leaf: leaf[0, 0], batches)
        task = tree.tree_map(lambda leaf: leaf[0], chains["task"])
        loss = family.loss(ours, batch, task)
        deployed.zero_grad()
        loss.backward()
        deployed.step(loss=loss)

        _, chains = unroll.run(theta, chains, batches)
        for key, value in chains["params"].items():
            torch.testing.assert_close(ours[key].detach(), value[0], rtol=1e-5, atol=1e-6)

    check_parity(meta, LearnedOptimizer)  # bit for bit, the gradients being the same


def test_a_broken_export_is_found(monkeypatch) -> None:
    check_parity(deep_set(), LearnedOptimizer)
    assert verdict(deep_set(), LearnedOptimizer).startswith("checked: ")

    monkeypatch.setattr(Slot, "rate", property(lambda slot: 1 + 2**-20))
    with pytest.raises(ValueError, match="the exported optimizer differs at step 1 in 'w'"):
        check_parity(deep_set(), LearnedOptimizer)
    assert verdict(deep_set(), LearnedOptimizer).startswith("WARNING: the exported optimizer")


@pytest.mark.parametrize(
    "ours", [partial(make_adam, SPEC, lr=0.01), partial(make_sgdm, SPEC, lr=0.1)]
)
def test_hand_designed_optimizers_equal_those_of_torch(ours) -> None:
    left = model()
    right = model()
    if ours.func is make_adam:
        theirs = torch.optim.AdamW(right.parameters(), lr=0.01, weight_decay=0.0)
        mine = LearnedOptimizer(left, ours())
    else:
        theirs = torch.optim.SGD(right.parameters(), lr=0.01, momentum=0.9)
        mine = LearnedOptimizer(left, ours())
    for a, b in zip(train(left, mine, 10), train(right, theirs, 10), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalisation", ["joint", "channel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_step_equals_the_other(dtype, normalisation) -> None:
    """Scalars, transposed tensors, sizes around a block of the kernel, several chunks; groups."""
    source = torch.Generator().manual_seed(1)
    shapes = [(), (1,), (47,), (3, 5), (70, 100), (48,)]
    start = [torch.randn(shape, generator=source, dtype=dtype) for shape in shapes]
    meta = deep_set(beta=1.0, normalisation=normalisation)

    sides = []
    optimizers = []
    for fused in (False, True):
        params = [nn.Parameter(value.clone()) for value in start]
        params.append(nn.Parameter(start[4].clone().t()))
        groups = [{"params": params[:3], "lr": 0.5, "weight_decay": 0.1}, {"params": params[3:]}]
        sides.append(params)
        optimizers.append(LearnedOptimizer(groups, meta, fused=fused))

    for _ in range(4):
        for left, right in zip(*sides, strict=True):
            left.grad = torch.randn(left.shape, generator=source, dtype=dtype) * 2
            right.grad = left.grad.t().contiguous().t() if left.ndim == 2 else left.grad
        for optimizer in optimizers:
            optimizer.step()

    tolerance = {torch.float32: 3e-6, torch.float64: 1e-13}[dtype]
    for left, right, old in zip(*sides, [*start, start[4].t()], strict=True):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)
        assert (left - old).abs().max() > 1e-3
        fused_state = optimizers[1].state[right]
        for key, value in optimizers[0].state[left].items():
            torch.testing.assert_close(value, fused_state[key], rtol=tolerance, atol=tolerance)


def test_threads_change_no_bit_of_the_fused_step() -> None:
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        param = nn.Parameter(torch.randn(20_000, generator=torch.Generator().manual_seed(0)))
        param.grad = param.detach().flip(0)
        LearnedOptimizer([param], deep_set(), fused=True).step()
        results.append(param.detach())
    torch.set_num_threads(before)
    assert torch.equal(*results)


def test_compiled_steps_equal_eager_ones() -> None:
    sides = []
    optimizers = []
    for compile in (False, True):
        param = nn.Parameter(DATA.clone())
        sides.append(param)
        optimizers.append(LearnedOptimizer([param], make_adam(SPEC, lr=0.1), compile=compile))

    for _ in range(3):
        for param, optimizer in zip(sides, optimizers, strict=True):
            param.grad = param.detach() ** 2
            optimizer.step()
    torch.testing.assert_close(*sides, rtol=1e-5, atol=1e-6)
    assert (sides[0] - DATA).abs().max() > 0.1
