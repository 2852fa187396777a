"""Gradient and momentum over the root of a second moment, against Adam and closed forms."""

from functools import partial

import pytest
import torch

from learned_opt.optimizers.factored import outer_product, row_and_column_means
from learned_opt.optimizers.features import JoinedFeatures, MomentumFeatures, Reading
from learned_opt.optimizers.mlp import MLPOptimizer
from learned_opt.optimizers.second_moments import SecondMoments
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.unf.layers import Pointwise
from tests.cases import SPECS
from tests.optimizers.test_optimizers import tensors

DECAYS = (0.9, 0.95)


def channels_after(features, gradients):
    """The channels at the last of several steps."""
    params = tensors(0)
    state = features.init_state(params)
    channels = {}
    for step, grads in enumerate(gradients, start=1):
        channels, state = features(Reading(grads, params, torch.tensor(step)), state)
    return channels


def test_ratios_are_those_of_adam() -> None:
    """torch's Adam with eps = 0 moves a weight by its bias-corrected m / sqrt v."""
    gradients = [tensors(seed) for seed in (1, 2, 3, 4)]
    channels = channels_after(SecondMoments(decays=DECAYS, limit=1e9), gradients)

    for name, param in tensors(0).items():
        for d, decay in enumerate(DECAYS):
            weight = torch.nn.Parameter(param.clone())
            adam = torch.optim.Adam([weight], lr=1.0, betas=(0.9, decay), eps=0.0)
            for grads in gradients:
                before = weight.detach().clone()
                weight.grad = grads[name].clone()
                adam.step()
            direction = before - weight.detach()
            # Adam divides m by its own bias as well
            expected = direction * (1 - 0.9 ** len(gradients))
            torch.testing.assert_close(channels[name][..., 2 + d], expected)

            moment = adam.state[weight]["exp_avg_sq"] / (1 - decay ** len(gradients))
            torch.testing.assert_close(channels[name][..., d], weight.grad / moment.sqrt())


def test_ratios_do_not_change_with_the_scale_of_the_loss() -> None:
    gradients = [tensors(seed) for seed in (1, 2)]
    scaled = []
    for grads in gradients:
        scaled.append({name: 1e-4 * grad for name, grad in grads.items()})
    for factored in (False, True):
        plain = channels_after(SecondMoments(factored=factored), gradients)
        other = channels_after(SecondMoments(factored=factored), scaled)
        for name, channel in plain.items():
            torch.testing.assert_close(other[name], channel, rtol=1e-6, atol=0)


def test_a_spike_is_clipped_and_no_gradient_is_zero() -> None:
    quiet = {name: 1e-3 * torch.ones_like(grad) for name, grad in tensors(1).items()}
    spike = {name: 1e3 * torch.ones_like(grad) for name, grad in quiet.items()}
    zero = {name: torch.zeros_like(grad) for name, grad in quiet.items()}

    channels = channels_after(SecondMoments(limit=2.0), [*[quiet] * 30, spike])
    assert all((channel[..., 0] == 2.0).all() for channel in channels.values())
    channels = channels_after(SecondMoments(), [zero, zero])
    assert all((channel == 0).all() for channel in channels.values())


def test_factored_squares_of_rank_one_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(5, 1, generator=generator)
    columns = torch.rand(1, 7, generator=generator)
    squares = rows * columns

    means = row_and_column_means(squares)
    assert [mean.numel() for mean in means] == [5, 7]
    product = outer_product(means[0].unsqueeze(0), means[1].unsqueeze(0), squares)
    torch.testing.assert_close(product[0], squares)

    # of other matrices it is an approximation: the test above could fail
    squares = torch.rand(5, 7, generator=generator)
    means = row_and_column_means(squares)
    product = outer_product(means[0].unsqueeze(0), means[1].unsqueeze(0), squares)
    assert (product[0] - squares).abs().max() > 0.1
    torch.testing.assert_close(product[0].mean(0), squares.mean(0))


def test_channels_of_several_features_stand_one_behind_the_other() -> None:
    joined = JoinedFeatures({"momenta": MomentumFeatures, "second": SecondMoments})
    gradients = [tensors(seed) for seed in (1, 2)]
    together = channels_after(joined, gradients)
    alone = [channels_after(part, gradients) for part in (MomentumFeatures(), SecondMoments())]

    assert joined.num_channels == 10
    for name, channels in together.items():
        expected = torch.cat([part[name] for part in alone], -1)
        torch.testing.assert_close(channels, expected, rtol=0, atol=0)


def test_two_channels_are_64_numbers_of_theta() -> None:
    more = {"second_moments": SecondMoments}

    def num_theta(make, **settings) -> int:
        return sum(weight.numel() for weight in make(SPECS["mlp"], **settings).parameters())

    for make in (UNFOptimizer, partial(UNFOptimizer, head=Pointwise), MLPOptimizer):
        assert num_theta(make, extra_features=more) == num_theta(make) + 64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decays": ()}, "decays must hold at least one decay, got none"),
        ({"decays": (0.9, 1.0)}, r"decays must lie between 0 and 1, got 1\.0"),
        ({"momentum_decay": 0.0}, r"momentum_decay must lie between 0 and 1, got 0\.0"),
        ({"limit": 0.0}, "limit must be positive"),
    ],
)
def test_bad_settings_are_one_sentence(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SecondMoments(**settings)
