"""Tasks shared by ranks: the estimate of a (seed, outer step) does not depend on how many
ranks make it.
"""

from itertools import product

import pytest
import torch

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.estimators.mixed import MixedEstimator
from learned_opt.estimators.share import Share
from learned_opt.training.callbacks.replay import ReplayRecipes
from learned_opt.training.inner_problem import InnerProblem
from learned_opt.training.nonfinite import nonfinite_unrolls
from tests.cases import ESTIMATORS, others_slow
from tests.helpers.known_meta_gradients import on_network
from tests.helpers.threaded_ranks import on_ranks

STEPS = 4  # past the restart of every chain


def run(estimator, theta, state, source: str = "estimate") -> tuple[list, dict]:
    estimates = []
    for step in range(STEPS):
        estimate, state = estimator.estimate(theta, state, generator(source, step))
        estimates.append(estimate)
    return estimates, state


def made(kind: str):
    """Estimator and theta; ``mix`` holds two tasks with different numbers of chains."""
    if kind != "mix":
        return on_network(ESTIMATORS[kind], "sgdm", num_tasks=5)
    (first, theta), (second, _) = (
        on_network(ESTIMATORS[k], "sgdm", num_tasks=n) for k, n in (("pes", 5), ("es", 4))
    )
    return MixedEstimator({"a": first, "b": second}, {"a": 3.0, "b": 1.0}), theta


def broken(state: dict) -> dict:
    """Task 1 of 5 is not finite."""
    name = "layers.0.weight"
    params = state["chains"]["params"]
    weight = params[name].clone()
    weight[1] = torch.nan
    return state | {"chains": state["chains"] | {"params": params | {name: weight}}}


SHARED = list(product((*ESTIMATORS, "mix"), (2, 4)))
# every kind on four ranks, and two ranks once
SHARED_ONCE = [pair for pair in SHARED if pair[1] == 4 or pair[0] == "pes"]


@pytest.mark.parametrize(("kind", "num_ranks"), others_slow(SHARED, SHARED_ONCE))
def test_ranks_add_up_to_the_estimate_of_one(kind, num_ranks) -> None:
    """Five tasks on two or four ranks: uneven shares; one task is not finite, of which a
    rank may have no other.

    Tolerances: float32 matrix products round otherwise for another number of chains.
    """
    whole, theta = made(kind)
    state = whole.init_state(theta, generator("start"))
    ill = state | {"a": broken(state["a"])} if kind == "mix" else broken(state)
    expected, after = run(whole, theta, ill)

    def work(share: Share):
        estimator = whole.shared(share)
        started = estimator.init_state(theta, generator("start"))
        assert equal(started, estimator.select(state))
        return run(estimator, theta, estimator.select(ill))

    results = on_ranks(num_ranks, work)
    for step, one in enumerate(expected):
        shares = [estimates[step] for estimates, _ in results]
        for name, gradient in one.gradient.items():
            summed = torch.stack([share.gradient[name] for share in shares]).sum(0)
            torch.testing.assert_close(summed, gradient, rtol=1e-3, atol=1e-5)
        assert sum(share.num_nonfinite for share in shares) == one.num_nonfinite == (step == 0)
        for share in shares:
            torch.testing.assert_close(share.meta_loss, one.meta_loss, rtol=1e-4, atol=1e-6)
            assert share.num_inner_steps == one.num_inner_steps
    joined = whole.shared(Share(0, num_ranks)).join([rows for _, rows in results])
    for name, leaf in tree.flatten(after).items():
        torch.testing.assert_close(tree.flatten(joined)[name], leaf, rtol=1e-3, atol=1e-5)


def equal(left: dict, right: dict) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(tree.leaves(left), tree.leaves(right), strict=True)
    )


@pytest.mark.parametrize("kind", ["nres", "bptt", "mix"])
def test_shares_of_a_state_join_to_the_state(kind) -> None:
    whole, theta = made(kind)
    state = whole.init_state(theta, generator("start"))
    shares = [whole.shared(Share(rank, 3)) for rank in range(3)]
    assert equal(shares[0].join([estimator.select(state) for estimator in shares]), state)


def test_every_task_has_one_rank_and_ranks_without_tasks_are_refused() -> None:
    for num_tasks, num_ranks in ((7, 3), (8, 4), (5, 5)):
        runs = [Share(rank, num_ranks).tasks(num_tasks) for rank in range(num_ranks)]
        assert [task for run in runs for task in run] == list(range(num_tasks))
        assert max(map(len, runs)) - min(map(len, runs)) <= 1
    with pytest.raises(
        ValueError, match="num_tasks must be at least the number of ranks, got 2 for 3"
    ):
        Share(0, 3).tasks(2)


def test_recipes_hold_the_number_of_the_task_among_all(tmp_path) -> None:
    whole, theta = made("pes")
    estimator = whole.shared(Share(1, 2))
    state = estimator.init_state(theta, generator("start"))
    start = estimator.unroll_start(theta, state, generator(0))
    finite = torch.ones(2, len(start.tasks), dtype=torch.bool)
    finite[1, 2] = False  # tasks 2, 3, 4 are here
    problem = InnerProblem("mlp", whole.population.unroll, 1, 1, whole)
    ReplayRecipes(max_recipes=1).record(tmp_path, problem, nonfinite_unrolls(start, finite), 7)
    assert (tmp_path / "step7_task4.yaml").is_file()
