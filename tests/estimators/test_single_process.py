"""An estimator of a user's own, with the two methods of the contract and no more."""

import pytest
import torch

from learned_opt.core.rng import generator
from learned_opt.estimators.base import GradientEstimator, MetaGradient
from learned_opt.estimators.mixed import MixedEstimator
from learned_opt.estimators.share import Share
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.estimators.single_process import as_shared
from learned_opt.training.trainer import MetaTrainer
from tests.cases import ESTIMATORS, FAMILIES, OPTIMIZERS, spec_of
from tests.helpers.known_meta_gradients import THETA, on_network
from tests.training.test_trainer import fit


class Shrink(GradientEstimator):
    def init_state(self, theta, generator):
        return {"count": torch.zeros((), dtype=torch.int64)}

    def estimate(self, theta, state, generator):
        norm = torch.stack([leaf.square().sum() for leaf in theta.values()]).sum() / 2
        finite = torch.ones(1, 1, dtype=torch.bool)
        return MetaGradient(theta, norm, 1, finite), {"count": state["count"] + 1}


def test_it_is_an_estimator_for_one_process() -> None:
    estimator = as_shared(Shrink())
    assert isinstance(estimator, SharedEstimator)
    assert as_shared(estimator) is estimator
    assert estimator.shared(Share()) is estimator

    state = estimator.init_state(THETA, generator("start"))
    estimate, after = estimator.estimate(THETA, state, generator(0))
    assert estimate.gradient is THETA
    assert estimator.join([after]) == estimator.select(after) == after
    assert estimator.unroll_starts(THETA, state, generator(0)) == {}
    with pytest.raises(ValueError, match="Shrink runs in one process, got 2; derive it from Shar"):
        estimator.shared(Share(0, 2))


def test_sizes_are_those_that_it_has() -> None:
    sizes = as_shared(Shrink())
    assert (sizes.num_tasks, sizes.unroll_length, sizes.num_inner_steps) == (1, 1, 1)
    sized = Shrink()
    sized.num_tasks = 3
    sized.unroll_length = 5
    assert as_shared(sized).num_inner_steps == 15


def test_what_can_share_stays_as_it_is() -> None:
    pes, _ = on_network(ESTIMATORS["pes"], "sgdm")
    assert as_shared(pes) is pes


def test_it_mixes_with_others() -> None:
    mixed = MixedEstimator({"a": Shrink(), "b": Shrink()}, {"a": 1.0, "b": 1.0})
    state = mixed.init_state(THETA, generator("start"))
    estimate, _ = mixed.estimate(THETA, state, generator(0))
    torch.testing.assert_close(estimate.gradient, THETA)
    assert mixed.unroll_starts(THETA, state, generator(0)) == {}


def test_it_trains(tmp_path) -> None:
    """Gradient descent on half the square of theta: every outer step takes off a tenth."""
    optimizer = OPTIMIZERS["sgdm"](spec_of(FAMILIES["quadratic"]()))
    before = {name: p.detach().clone() for name, p in optimizer.named_parameters()}
    module = MetaTrainer(optimizer, Shrink(), lambda p: torch.optim.SGD(p, lr=0.1), None, 0, 3)
    fit(module, tmp_path, steps=3)
    assert module.estimator_state["count"] == 3
    norm = torch.stack([leaf.square().sum() for leaf in before.values()]).sum().sqrt()
    assert norm > 1.0  # so that the trainer clips the gradient
    for name, leaf in optimizer.named_parameters():
        assert leaf.abs().sum() < before[name].abs().sum()
