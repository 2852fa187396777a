"""Made-up text: frequencies, topics and the least loss; a head that shares the table of words."""

from functools import partial
from math import log, sqrt

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from learned_opt.core.rng import generator
from tasks.data.zipf import frequencies, zipf_text
from tasks.networks.recurrent import GRUCell, RecurrentNetwork

WORDS = 200
TOPICS = 5
STAY = 0.8
TOKENS = 60_000


def next_chances() -> Tensor:
    """Probabilities of the next word for each topic of this one, ``(topics, words)``."""
    chances = frequencies(WORDS, 1.0)
    within = torch.zeros(TOPICS, WORDS, dtype=torch.float64)
    for word in range(WORDS):
        within[word % TOPICS, word] = chances[word]
    return STAY * within / within.sum(1, keepdim=True) + (1 - STAY) * chances


def test_words_have_zipfs_frequencies_and_topics_stay() -> None:
    text = zipf_text(WORDS, TOKENS, 1.0, TOPICS, STAY)
    words = torch.cat([text.train, text.test])
    counts = words.bincount(minlength=WORDS).double()
    expected = frequencies(WORDS, 1.0)
    assert (expected[0] / expected[9]).item() == pytest.approx(10)

    # neighbours share topics, which makes counts vary more than of single draws
    error = (expected / TOKENS).sqrt() * sqrt((1 + STAY) / (1 - STAY))
    assert ((counts / TOKENS - expected).abs() < 4 * error).all()

    shares = torch.stack([expected[topic::TOPICS].sum() for topic in range(TOPICS)])
    same = (words[1:] % TOPICS == words[:-1] % TOPICS).double().mean().item()
    chance = STAY + (1 - STAY) * shares.square().sum().item()
    assert same == pytest.approx(chance, abs=4 * sqrt(chance * (1 - chance) / TOKENS))


def test_the_least_loss_is_the_entropy_of_the_chain() -> None:
    text = zipf_text(WORDS, TOKENS, 1.0, TOPICS, STAY)
    chances = next_chances()
    codes = -chances[text.train[:-1] % TOPICS, text.train[1:]].log()  # nats

    shares = torch.stack([frequencies(WORDS, 1.0)[topic::TOPICS].sum() for topic in range(TOPICS)])
    entropy = shares @ -(chances * chances.log()).sum(1)
    error = codes.std() / sqrt(len(codes))
    assert (codes.mean() - entropy).abs() < 5 * error

    alone = -(frequencies(WORDS, 1.0) * frequencies(WORDS, 1.0).log()).sum()
    assert entropy < alone - 0.5
    assert alone < log(WORDS)


def test_equal_seeds_equal_texts() -> None:
    draw = partial(zipf_text, WORDS, 500)
    assert torch.equal(draw(seed=1).train, draw(seed=1).train)
    assert not torch.equal(draw(seed=1).train, draw(seed=2).train)


def test_a_tied_head_is_an_untied_one_of_the_product() -> None:
    settings = {"cell": GRUCell, "embed_size": 3, "hidden_size": 4}
    tied = RecurrentNetwork((5,), 7, tied=True, **settings)
    params = tied.init(generator(0))
    assert params["bias"].abs().max() == 0
    params["bias"] = torch.randn(7, generator=generator(1))

    table = params["embed.weight"]
    product = {name: value for name, value in params.items() if name != "bias"}
    product["head.weight"] = table @ params["head.weight"]
    product["head.bias"] = table @ params["head.bias"] + params["bias"]

    tokens = torch.randint(7, (2, 5), generator=generator(2))
    outputs = functional_call(tied, params, (tokens,))
    untied = RecurrentNetwork((5,), 7, **settings)
    torch.testing.assert_close(outputs, functional_call(untied, product, (tokens,)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_topics": 0}, "num_topics must lie between 1 and vocab_size, 5000, got 0"),
        ({"vocab_size": 0}, "num_topics must lie between 1 and vocab_size, 0, got 10"),
        ({"stay": 1.0}, "stay must lie between 0 and 1, got 1.0"),
        ({"test_fraction": 0.0}, "test_fraction must lie between 0 and 1, got 0.0"),
        ({"num_tokens": 1}, "num_tokens must be at least 2, got 1"),
    ],
)
def test_bad_values_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        zipf_text(**settings)
