"""Autoencoders and contrastive pairs: losses against closed forms, and draws that are keyed."""

from math import exp, log

import pytest
import torch
from torch import distributions
from torch.nn import functional

from learned_opt.core.rng import generator
from tasks.keyed.mode import KeyedDraws
from tasks.networks.autoencoder import VariationalAutoencoder
from tasks.networks.mlp import MLP
from tasks.networks.two_views import TwoViews, shifted
from tasks.unsupervised import unsupervised
from tasks.unsupervised_losses import Decoded, InfoNCE, negative_elbo, pair_accuracy
from tests.cases import FAMILIES, images


def test_elbo_is_that_of_torchs_distributions() -> None:
    source = torch.Generator().manual_seed(0)
    images = torch.randint(2, (5, 1, 4, 4), generator=source).float()
    logits = torch.randn(5, 1, 4, 4, generator=source)
    mean, log_variance = torch.randn(2, 5, 3, generator=source)

    posterior = distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = distributions.Normal(torch.zeros(3), torch.ones(3))
    divergence = distributions.kl_divergence(posterior, prior).sum(1)  # (B,) nats per image
    likelihood = distributions.Bernoulli(logits=logits).log_prob(images).flatten(1).sum(1)
    expected = (divergence - likelihood).mean() / 16
    loss = negative_elbo(Decoded(logits, mean, log_variance), images)
    torch.testing.assert_close(loss, expected)


def test_figures_of_the_autoencoder_add_up_and_repeat() -> None:
    family = FAMILIES["vae"]()
    params = family.init(generator(0), {})
    figures = family.evaluate(params, {})
    total = figures["reconstruction"] + figures["kl_divergence"]
    torch.testing.assert_close(figures["test_loss"], total)
    assert family.evaluate(params, {}) == figures

    batch = family.batch(generator(1), {})
    other = {**batch, "noise": batch["noise"] + 1}
    assert family.loss(params, batch, {}) == family.loss(params, batch, {})
    assert family.loss(params, batch, {}) != family.loss(params, other, {})


def test_codes_are_drawn_from_their_distribution() -> None:
    network = VariationalAutoencoder((1, 2, 2), code_size=2)
    codes = []
    network.decoder.register_forward_pre_hook(lambda _, inputs: codes.append(inputs[0]))
    images = torch.rand(1, 1, 2, 2).expand(20_000, 1, 2, 2)
    with torch.no_grad(), KeyedDraws(torch.tensor(3)):
        _, mean, log_variance = network(images)

    drawn = (codes[0] - mean[0]) / (0.5 * log_variance[0]).exp()  # (20000, 2)
    assert drawn.mean(0).abs().max() < 5 / 20_000**0.5
    assert (drawn.var(0) - 1).abs().max() < 5 * (2 / 20_000) ** 0.5


def test_reconstruction_of_the_plain_autoencoder_is_a_mean_square() -> None:
    family = FAMILIES["autoencoder"]()
    params = family.init(generator(0), {})
    images = family.test.gather(family.test.rows)["0"]

    hidden = images.flatten(1) @ params["encoder.1.weight"].T + params["encoder.1.bias"]
    code = hidden.relu() @ params["encoder.3.weight"].T + params["encoder.3.bias"]
    hidden = code @ params["decoder.0.weight"].T + params["decoder.0.bias"]
    pixels = hidden.relu() @ params["decoder.2.weight"].T + params["decoder.2.bias"]
    expected = functional.mse_loss(pixels, images.flatten(1))
    torch.testing.assert_close(family.evaluate(params, {})["test_loss"], expected)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_info_nce_of_views_at_right_angles(temperature) -> None:
    views = 3 * torch.eye(5)
    loss = InfoNCE(temperature)
    match = exp(1 / temperature)
    expected = log(match + 4) - log(match)
    assert loss((views, views), views).item() == pytest.approx(expected, rel=1e-5)

    # the neighbour's view in the stead of the image's
    swapped = views.roll(1, 0)
    expected = log(match + 4)
    assert loss((views, swapped), views).item() == pytest.approx(expected, rel=1e-5)
    assert pair_accuracy((views, swapped), views) == 0


def test_views_are_moved_by_every_offset_and_differ() -> None:
    images = torch.rand(1, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    framed = functional.pad(images[0], [1, 1, 1, 1])
    moves = [
        framed[:, row : row + 4, column : column + 5] for row in range(3) for column in range(3)
    ]

    with KeyedDraws(torch.tensor(4)):
        drawn = shifted(images.expand(900, 2, 4, 5), 1)
    counts = [(drawn == move).flatten(1).all(1).sum().item() for move in moves]
    assert sum(counts) == 900
    assert min(counts) > 60  # of 100 each, deviation 9.4

    with KeyedDraws(None):  # the mean: nothing moves
        assert torch.equal(shifted(images, 1), images)
    assert torch.equal(shifted(images, 0), images)


def test_two_views_of_an_image_have_noise_of_their_own() -> None:
    network = TwoViews((1, 4, 4), MLP, embed_size=3, shift=0, noise=0.1)
    seen = []
    network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(500, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with KeyedDraws(torch.tensor(0)):
        first, second = network(images)
    assert not torch.equal(first, second)

    noise = torch.stack([view - images for view in seen]).flatten(1)  # (2, pixels)
    torch.testing.assert_close(noise.std(1), torch.full((2,), 0.1), rtol=0.03, atol=0)
    assert torch.corrcoef(noise)[0, 1].abs() < 0.05


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: InfoNCE(0.0), "temperature must be above 0, got 0.0"),
        (lambda: TwoViews((1, 4, 4), MLP, shift=-1), "shift and noise must not be negative"),
        (lambda: TwoViews((1, 4, 4), MLP, embed_size=0), "embed_size must be at least 1, got 0"),
        (
            lambda: VariationalAutoencoder((1, 4, 4), code_size=0),
            "code_size must be at least 1, got 0",
        ),
        (
            lambda: unsupervised("noise", MLP, images(), functional.mse_loss),
            r"network must be constructed from \(1, 4, 4\), but: MLP.* 'num_outputs'",
        ),
    ],
)
def test_bad_values_are_named(make_bad, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()
