"""Steps that grow while they agree with the gradients after them: closed forms and invariances."""

from functools import partial
from math import exp

import pytest
import torch

from learned_opt.core.tree import tree_map
from learned_opt.optimizers.adaptive_scale import AdaptiveScale, cosine
from learned_opt.optimizers.nominal import Relative
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf import Pointwise

SPEC = PermutationSpec({"weight": ("out", "in"), "bias": ("out",)})
LOSS = torch.tensor(1.0)


def make(**settings: float) -> UNFOptimizer:
    torch.manual_seed(0)
    nominal = partial(AdaptiveScale, partial(Relative, orthogonal=True), **settings)
    head = partial(Pointwise, init="zero")
    optimizer = UNFOptimizer(SPEC, head=head, channels=4, normalisation="channel", nominal=nominal)
    return optimizer.double()


def tensors(seed: int) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(5, 3, generator=source, dtype=torch.float64),
        "bias": torch.randn(5, generator=source, dtype=torch.float64),
    }


def run(optimizer: UNFOptimizer, gradients: list[dict]) -> tuple[list[dict], dict]:
    params = tensors(0)
    state = optimizer.init_state(params)
    updates = []
    for grads in gradients:
        update, state = optimizer(grads, state, params, LOSS)
        updates.append(update)
    return updates, state


def test_the_scale_is_the_sum_of_the_cosines() -> None:
    gradients = [tensors(seed) for seed in (1, 2, 3)]
    plain = make(rate=1e-12)
    scaled = make(rate=0.2)
    plain_updates, _ = run(plain, gradients)
    updates, _ = run(scaled, gradients)

    for name in SPEC.axes:
        log_scale = 0.0
        for t, update in enumerate(updates):
            if t:  # updates are minus the direction
                log_scale -= 0.2 * cosine(gradients[t][name], plain_updates[t - 1][name]).item()
            expected = exp(log_scale) * plain_updates[t][name]
            torch.testing.assert_close(update[name], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("sign", "factor"), [(1, 3.0), (-1, 0.5)])
def test_the_scale_stays_within_its_bounds(sign: int, factor: float) -> None:
    optimizer = make(rate=0.5, smallest=0.5, largest=3.0)
    grads = tensors(1)
    gradients = [tree_map(lambda g, t=t: g * sign**t * 10.0**t, grads) for t in range(12)]
    _, state = run(optimizer, gradients)
    for log_scale in state["log_scale"].values():
        assert log_scale.exp().item() == pytest.approx(factor)


def test_scaling_the_loss_changes_nothing() -> None:
    gradients = [tensors(seed) for seed in range(1, 6)]
    plain, _ = run(make(), gradients)
    scaled, _ = run(make(), [tree_map(lambda g: 1e4 * g, grads) for grads in gradients])
    for left, right in zip(plain, scaled, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-9)


def test_tensors_without_gradient_stay_with_finite_meta_gradients() -> None:
    optimizer = make()
    params = tensors(0)
    state = optimizer.init_state(params)
    for _ in range(3):
        updates, state = optimizer(tree_map(torch.zeros_like, params), state, params, LOSS)
    assert all((update == 0).all() for update in updates.values())
    sum((update + 1).square().sum() for update in updates.values()).backward()
    assert all(p.grad.isfinite().all() for p in optimizer.parameters() if p.grad is not None)


def test_a_vector_reaches_values_far_from_its_start() -> None:
    """Linear regression on weights of about 12, where steps of fixed size come to 1.6 at most."""
    source = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 5, generator=source, dtype=torch.float64)
    target = inputs @ torch.tensor([12.0, -9.0, 15.0, 11.0, -14.0], dtype=torch.float64)
    losses = {}
    for rate in (1e-12, 0.1):
        optimizer = make(rate=rate)
        params = {"weight": torch.eye(5, 3).double(), "bias": torch.zeros(5).double()}
        state = optimizer.init_state(params)
        for _ in range(150):
            residual = inputs @ params["bias"] - target
            grads = {"weight": torch.zeros(5, 3).double(), "bias": 2 * inputs.T @ residual / 64}
            updates, state = optimizer(grads, state, params, LOSS)
            params = tree_map(torch.add, params, updates)
        losses[rate] = (inputs @ params["bias"] - target).square().mean().item()
    assert losses[1e-12] > 300
    assert losses[0.1] < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0.0}, "rate must be positive, got 0.0"),
        ({"smallest": -1.0}, "smallest must be positive, got -1.0"),
        ({"smallest": 2.0, "largest": 1.0}, "smallest must be at most largest, 1.0, got 2.0"),
    ],
)
def test_bad_values_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveScale(Relative, **settings)
