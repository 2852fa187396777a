"""Classes of ``torch.optim`` in the contract: the same steps, side by side, traced, resumed."""

from functools import partial

import pytest
import torch
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from learned_opt.core import tree
from learned_opt.core.compiled import trace
from learned_opt.inner.unroll import RUNNING, Unroll
from learned_opt.optimizers.hand.hand_designed import HandDesigned
from learned_opt.optimizers.hand.torch_optim import TorchOptim
from tests.cases import FAMILIES, SPECS, spec_of
from tests.optimizers.test_optimizers import tensors

LOSS = torch.tensor(1.0)
WRAPPED = {
    "Adamax": {"betas": [0.8, 0.99]},
    "Adadelta": {"rho": 0.8},
    "Rprop": {},
    "ASGD": {"lambd": 0.01},
    "SGD": {"momentum": 0.9, "nesterov": True},
    "NAdam": {"weight_decay": 0.01},
}


def make(name: str, settings: dict, lr: float = 0.03) -> HandDesigned:
    rule = partial(TorchOptim, f"torch.optim.{name}", settings)
    return HandDesigned(SPECS["mlp"], rule, lr).double()


@pytest.mark.parametrize("name", WRAPPED)
@torch.no_grad()
def test_steps_are_those_of_the_class(name) -> None:
    """The state goes through our hands at every step, so each step is a resume.

    The tolerance is that of lr, which is stored as a float32 logarithm.
    """
    ours = make(name, WRAPPED[name])
    params = tensors(0)
    mirror = {key: value.clone().requires_grad_() for key, value in params.items()}
    peer = getattr(torch.optim, name)(mirror.values(), lr=0.03, **WRAPPED[name])
    state = ours.init_state(params)

    for seed in range(1, 11):
        before = tree.tree_map(torch.clone, state)
        updates, state_after = ours(tensors(seed), state, params, LOSS)
        torch.testing.assert_close(state, before, rtol=0, atol=0)  # pure
        params = tree.add(params, updates)
        state = state_after

        for key, value in mirror.items():
            value.grad = tensors(seed)[key]
        peer.step()
    for key, value in mirror.items():
        torch.testing.assert_close(params[key], value.detach(), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_vmap_equals_loop_and_one_chain_may_be_ahead() -> None:
    ours = make("Adamax", {})
    params = tensors(0)
    fresh = ours.init_state(params)
    _, ahead = ours(tensors(1), fresh, params, LOSS)
    states = tree.stack([fresh, ahead])
    theta = {"log_lr": torch.tensor([-3.0, -4.0], dtype=torch.float64)}
    grads = tensors(2)

    def step(theta: dict, state: dict) -> tuple[dict, dict]:
        return functional_call(ours, theta, (grads, state, params, LOSS))

    together = vmap(step)(theta, states)
    for i, state in enumerate((fresh, ahead)):
        alone = step({"log_lr": theta["log_lr"][i]}, state)
        for left, right in zip(map(tree.leaves, alone), map(tree.leaves, together), strict=True):
            for one, many in zip(left, right, strict=True):
                torch.testing.assert_close(many[i], one)


@torch.no_grad()
def test_the_inner_loop_runs_it_and_can_trace_it() -> None:
    family = FAMILIES["mlp"]()
    keys = [("test", 0), ("test", 1)]
    optimizer = HandDesigned(spec_of(family), partial(TorchOptim, "torch.optim.Adamax"), 0.03)
    unroll = Unroll(family, optimizer, compile=False)
    theta = {"log_lr": torch.tensor([-3.0, -2.0])}
    chains = unroll.start(keys)
    batches = unroll.batches(keys, chains, 30)
    losses, after = unroll.run(theta, chains, batches)
    assert (losses[-5:].mean(0) < losses[:5].mean(0)).all()
    batch = tree.tree_map(lambda leaf: leaf[0], batches)

    def arguments(start: tree.Tree) -> tuple:
        return (theta, start["task"]), {name: start[name] for name in RUNNING}, batch

    graph, result = trace(unroll._batched_step, *tree_flatten(arguments(chains)))
    traced = tree_unflatten(graph(*tree_leaves(arguments(after))), result)
    torch.testing.assert_close(traced, unroll._batched_step(*arguments(after)))


def test_a_meta_gradient_through_it_is_refused() -> None:
    ours = make("Adamax", {})
    params = tensors(0)
    updates, _ = ours(tensors(1), ours.init_state(params), params, LOSS)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        updates["layers.0.bias"].sum().backward()


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("Adamax", {}, "must name a class, e.g. torch.optim.Adamax, got 'Adamax'"),
        ("torch.optim.Adamix", {}, r"must name a class, .* got 'torch.optim.Adamix'"),
        ("torch.optim.LBFGS", {}, "cannot be used as a rule with the settings {}: .*closure"),
        (
            "torch.optim.SparseAdam",
            {},
            "cannot be used as a rule .* does not support dense gradients",
        ),
        (
            "torch.optim.Adamax",
            {"beta": 1},
            r"cannot be used as a rule with the settings .*unexpected keyword",
        ),
        ("torch.nn.Linear", {}, "must name a torch.optim.Optimizer, got 'torch.nn.Linear'"),
    ],
)
def test_what_is_no_rule_is_refused(path, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        TorchOptim(path, settings)
