"""What LearnedOptimizer takes, by which names, and what it refuses."""

import pytest
import torch
from torch import nn

from learned_opt import LearnedOptimizer
from tests.deploy.test_learned_optimizer import deep_set, equivariant, model


def test_wrapped_models_keep_their_names() -> None:
    network = model()
    for wrapped in (torch.compile(network), nn.DataParallel(network)):
        optimizer = LearnedOptimizer(wrapped, equivariant(network))
        assert optimizer.param_groups[0]["param_names"] == [
            name for name, _ in network.named_parameters()
        ]


class Sharded(nn.Parameter):
    """What FSDP makes of a parameter, in the one respect that counts."""

    def to_local(self) -> torch.Tensor:
        return self.data


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: LearnedOptimizer(model(), deep_set(), lr=-1.0),
            "lr must lie between 0 and inf, got -1.0",
        ),
        (
            lambda: LearnedOptimizer(model(), deep_set(), weight_decay=2.0),
            "weight_decay must lie between 0 and 1",
        ),
        (
            lambda: LearnedOptimizer([{"params": model().parameters(), "lr": -2.0}], deep_set()),
            "lr must lie",
        ),
        (lambda: LearnedOptimizer([], deep_set()), "empty parameter list"),
        (
            lambda: LearnedOptimizer(
                [nn.Parameter(torch.zeros(2, dtype=torch.cfloat))], deep_set()
            ),
            "0 must be one of float32, float64, float16, bfloat16, got torch.complex64",
        ),
        (lambda: LearnedOptimizer(nn.LazyLinear(2), deep_set()), "weight has no shape yet"),
        (
            lambda: LearnedOptimizer(model(), deep_set(), rules={"0.wieght": "adam"}),
            "rules must name parameters of the optimizer, got 0.wieght; they are 0.weight, 0.bias",
        ),
        (
            lambda: LearnedOptimizer(model(), deep_set(), rules={"0.weight": "adam"}),
            "treats all tensors by one rule",
        ),
        (lambda: LearnedOptimizer([Sharded(torch.zeros(2))], deep_set()), "0 is sharded"),
        (lambda: LearnedOptimizer(model()[0], equivariant(model())), "missing: 0.weight, 0.bias"),
        (
            lambda: LearnedOptimizer(model(), equivariant(model()), fused=True),
            "fused needs a meta-optimizer",
        ),
        (lambda: LearnedOptimizer(model(), deep_set(), fused=True, compile=True), "no compile"),
    ],
)
def test_bad_arguments_are_refused(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = LearnedOptimizer(table, deep_set())
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(
        ValueError, match="sparse gradients are not supported, parameter weight has one"
    ):
        optimizer.step()
