"""Every estimator through the contract: pure, staggered, a chain that diverges harms no
other.
"""

from functools import partial

import numpy as np
import pytest
import torch

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.es import ES
from learned_opt.estimators.nres import NRES
from learned_opt.estimators.pes import PES
from learned_opt.inner.truncation import Constant, LogUniform
from tests.cases import (
    ESTIMATORS,
    PERTURBED,
    WEIGHED_TOGETHER,
    WITH_GRADIENTS,
    others_slow,
)
from tests.helpers.known_meta_gradients import (
    HORIZON,
    SIGMA,
    THETA,
    on_network,
    unroll,
)


@pytest.mark.parametrize("kind", ESTIMATORS.values(), ids=ESTIMATORS)
def test_contract(kind) -> None:
    estimator, theta = on_network(kind)
    state = estimator.init_state(theta, generator("start"))
    for step in range(5):
        before = {k: v.clone() for k, v in theta.items()}
        estimate, after = estimator.estimate(theta, state, generator(step))
        again, _ = estimator.estimate(theta, state, generator(step))
        assert all(torch.equal(before[k], theta[k]) for k in theta)  # pure
        for key, value in theta.items():
            assert estimate.gradient[key].shape == value.shape
            assert estimate.gradient[key].isfinite().all()
            assert torch.equal(
                estimate.gradient[key], again.gradient[key]
            )  # a function of state and generator
        assert (
            estimate.num_inner_steps
            == estimator.num_inner_steps
            == estimator.population.num_copies * 4 * 2
        )
        assert estimate.meta_loss.isfinite()
        state = after


RESTARTED_ONCE = ("es", "pes", "nres", "gpes", "es_control", "guided_es", "bptt")


@pytest.mark.parametrize("name", others_slow(ESTIMATORS, RESTARTED_ONCE))
def test_restarts_come_at_the_horizon_and_are_staggered(name) -> None:
    kind = ESTIMATORS[name]
    estimator, theta = on_network(kind, num_tasks=32)
    state = estimator.init_state(theta, generator("start"))
    assert set(state["step"].tolist()) == {0, 2, 4}
    for step in range(7):
        _, after = estimator.estimate(theta, state, generator(step))
        expected = torch.where(state["step"] >= 6, 0, state["step"]) + 2
        assert torch.equal(after["step"], expected)
        inner = after["chains"]["opt_state"]["step"][:32]
        fresh = state["step"] >= 6
        assert (inner[fresh] == 2).all()  # a restarted chain has made one unroll
        state = after
    copies = state["chains"]["opt_state"]["step"].unflatten(0, (-1, 32))
    assert (copies == copies[0]).all()


def part(state: dict, task: int) -> dict:
    """The state of one task among those of a state."""
    num_tasks = len(state["step"])

    def rows(leaf: torch.Tensor) -> torch.Tensor:
        return leaf.unflatten(0, (-1, num_tasks))[:, task]

    rest = {
        key: tree.tree_map(lambda leaf: leaf[task : task + 1], v)
        for key, v in state.items()
        if key != "chains"
    }
    return {"chains": tree.tree_map(rows, state["chains"])} | rest


def close(left: dict, right: dict) -> None:
    """float32; matrix products round otherwise for another number of chains."""
    for name, leaf in tree.flatten(left).items():
        torch.testing.assert_close(
            tree.flatten(right)[name], leaf, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in WEIGHED_TOGETHER])
def test_an_estimate_is_the_mean_of_the_estimates_of_its_tasks(name, monkeypatch) -> None:
    """No chain depends on how many run beside it: each task alone, with its own keys, over
    a restart.
    """
    kind = ESTIMATORS[name]
    shift = 0

    def shifted(root, *key):
        return (
            generator(root, key[0] + shift, *key[1:])
            if isinstance(key[0], int)
            else generator(root, *key)
        )

    for module in ("population", "antithetic"):
        monkeypatch.setattr(f"learned_opt.estimators.{module}.generator", shifted)
    monkeypatch.setattr("learned_opt.inner.unroll.generator", shifted)
    (estimator, theta), (single, _) = (
        on_network(kind, "sgdm", num_tasks=count) for count in (3, 1)
    )
    state = estimator.init_state(theta, generator("start"))
    for step in range(4):
        shift = 0
        estimate, after = estimator.estimate(theta, state, generator(step))
        alone = []
        for shift in range(3):
            one, one_after = single.estimate(theta, part(state, shift), generator(step))
            close(one_after, part(after, shift))
            alone.append(one)
        mean = sum(one.gradient["log_lr"] for one in alone) / 3
        torch.testing.assert_close(estimate.gradient["log_lr"], mean, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(estimate.meta_loss, sum(one.meta_loss for one in alone) / 3)
        state = after


@pytest.mark.parametrize("kind", ESTIMATORS.values(), ids=ESTIMATORS)
def test_a_chain_that_diverges_harms_no_other(kind) -> None:
    """It is left out and counted, its task restarts; all others are the same to the last
    bit, from then on too.
    """
    estimator, theta = on_network(kind, optimizer="sgdm")
    healthy = state = estimator.init_state(theta, generator("start"))
    params = state["chains"]["params"]
    broken = params["layers.0.weight"].clone()
    broken[1] = torch.nan  # the plus chain of pair 1
    ill = state | {"chains": state["chains"] | {"params": params | {"layers.0.weight": broken}}}
    for step, left_out in enumerate([1, 0, 0, 0]):
        well, healthy = estimator.estimate(theta, healthy, generator(step))
        estimate, ill = estimator.estimate(theta, ill, generator(step))
        assert (estimate.num_nonfinite.item(), well.num_nonfinite.item()) == (left_out, 0)
        assert estimate.finite.all(0).tolist() == [True, not left_out, True, True]
        assert all(leaf.isfinite().all() for leaf in estimate.gradient.values())
        assert estimate.meta_loss.isfinite()
        for task in (0, 2, 3):
            pairs = zip(tree.leaves(part(healthy, task)), tree.leaves(part(ill, task)), strict=True)
            assert all(torch.equal(left, right) for left, right in pairs)
    assert all(leaf.isfinite().all() for leaf in tree.leaves(ill))


@pytest.mark.parametrize("name", [name for name in PERTURBED if name not in WITH_GRADIENTS])
def test_params_that_explode_in_the_last_step_count_too(name) -> None:
    """All losses of the unroll are finite, but there is nothing to go on from."""
    kind = PERTURBED[name]
    estimator = kind(unroll(), Constant(HORIZON), 3, 1, SIGMA)
    state = estimator.init_state(THETA, generator("start"))
    estimate, after = estimator.estimate({"log_lr": THETA["log_lr"] + 1e3}, state, generator(0))
    assert estimate.num_nonfinite == 3
    assert estimate.meta_loss.isnan()
    assert estimate.gradient["log_lr"] == 0
    following, _ = estimator.estimate(THETA, after, generator(1))
    assert following.num_nonfinite == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": -1.0}, "sigma must be positive, got -1.0."),
        ({"num_tasks": 0}, "num_tasks must be at least 1, got 0."),
        ({"unroll_length": 0}, "unroll_length must be at least 1, got 0."),
    ],
)
@pytest.mark.parametrize("kind", PERTURBED.values(), ids=PERTURBED)
def test_bad_values_are_named(kind, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        on_network(kind, **settings)


@pytest.mark.parametrize("name", ["bptt", *WITH_GRADIENTS])
def test_gradients_need_two_steps(name) -> None:
    with pytest.raises(ValueError, match=r"unroll_length must be at least 2 .*, got 1"):
        ESTIMATORS[name](unroll(), Constant(HORIZON), 2, 1, SIGMA)


def test_truncations() -> None:
    draws = [LogUniform(10, 1000).sample(generator(i)) for i in range(2000)]
    assert 10 <= min(draws) < 12
    assert 900 < max(draws) <= 1000
    assert np.mean([draw < 100 for draw in draws]) == pytest.approx(
        0.5, abs=0.04
    )  # 100 is the middle in log scale
    assert Constant(7).sample(generator(0)) == 7
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        Constant(0)
    with pytest.raises(ValueError, match="1 <= shortest <= longest, got 5, 4"):
        LogUniform(5, 4)


@pytest.mark.parametrize(
    ("left", "right", "length", "steps"),
    [(ES, PES, HORIZON, 4), (PES, partial(NRES, noise_period=1), 2, 9)],
    ids=["PES over the whole horizon is ES", "a new perturbation every unroll is PES"],
)
def test_two_estimators_are_the_same_on_the_same_draws(left, right, length, steps) -> None:
    both = [kind(unroll(), Constant(HORIZON), 8, length, SIGMA) for kind in (left, right)]
    states = [estimator.init_state(THETA, generator("start")) for estimator in both]
    for step in range(steps):
        results = [
            one.estimate(THETA, state, generator(step))
            for one, state in zip(both, states, strict=True)
        ]
        states = [state for _, state in results]
        gradients = [estimate.gradient["log_lr"] for estimate, _ in results]
        assert torch.equal(*gradients)
        assert gradients[0] != 0


def test_recomputing_gives_the_same_gradient() -> None:
    """float32; only the order changes in which a step's contributions to the gradient of
    theta are added.
    """
    estimates = []
    for remat in (False, True):
        estimator, theta = on_network(BPTT, remat=remat, unroll_length=6)
        estimate, state = estimator.estimate(
            theta, estimator.init_state(theta, generator("start")), generator(0)
        )
        estimates.append(estimate)
        assert not any(leaf.requires_grad for leaf in tree.leaves(state["chains"]))
    for key, value in estimates[0].gradient.items():
        torch.testing.assert_close(estimates[1].gradient[key], value, rtol=1e-4, atol=1e-7)
        assert value.abs().max() > 0
    assert torch.equal(estimates[0].meta_loss, estimates[1].meta_loss)


@pytest.mark.slow
def test_compiled_bptt_equals_eager_on_a_network() -> None:
    gradients = []
    for compiled in (False, True):
        estimator, theta = on_network(BPTT, compile=compiled)
        estimate, _ = estimator.estimate(
            theta, estimator.init_state(theta, generator("start")), generator(0)
        )
        gradients.append(estimate.gradient)
    for key, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], value, rtol=1e-3, atol=1e-6)
