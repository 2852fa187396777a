"""Made-up text whose words have Zipf's frequencies, and whose topics make the next one likelier."""

import torch
from torch import Tensor

from tasks.data.text import TokenText


def zipf_text(
    vocab_size: int = 5000,
    num_tokens: int = 200_000,
    exponent: float = 1.0,
    num_topics: int = 10,
    stay: float = 0.9,
    seed: int = 0,
    test_fraction: float = 0.1,
) -> TokenText:
    """Draw words; word i has the frequency ``1 / (i + 1)**exponent``, but for a constant.

    Word i has topic ``i % num_topics``. With probability ``stay`` the next word is one of the
    same topic, else one of any, always by these frequencies, which therefore stay what they are.

    Args:
        vocab_size: number of words.
        num_tokens: of training and held-out text together.
        exponent: of Zipf's law; 0 for equal frequencies.
        num_topics: 1 for words that tell nothing of the next one.
        stay: probability.
        seed: of all draws.
        test_fraction: share of the text at its end that is held out.

    Raises:
        ValueError: a value is out of its range.

    >>> zipf_text(num_tokens=1000).train.shape
    torch.Size([900])
    """
    if not 1 <= num_topics <= vocab_size:
        raise ValueError(
            f"num_topics must lie between 1 and vocab_size, {vocab_size}, got {num_topics}."
        )
    for name, share in (("stay", stay), ("test_fraction", test_fraction)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {share}.")
    if num_tokens < 2:
        raise ValueError(f"num_tokens must be at least 2, got {num_tokens}.")

    source = torch.Generator().manual_seed(seed)
    chances = frequencies(vocab_size, exponent)
    topics = _topics(chances, num_tokens, num_topics, stay, source)
    words = torch.zeros(num_tokens, dtype=torch.int64)
    for topic in range(num_topics):
        here = topics == topic
        if here.any():
            ranks = chances[topic::num_topics].multinomial(
                int(here.sum()), replacement=True, generator=source
            )
            words[here] = topic + num_topics * ranks

    cut = int(num_tokens * (1 - test_fraction))
    return TokenText(f"zipf {vocab_size} words", words[:cut], words[cut:], vocab_size)


def frequencies(vocab_size: int, exponent: float) -> Tensor:
    """Of all words, the most frequent first; float64, their sum is 1.

    >>> frequencies(3, 1.0)
    tensor([0.5455, 0.2727, 0.1818], dtype=torch.float64)
    """
    weights = torch.arange(1, vocab_size + 1, dtype=torch.float64) ** -exponent
    return weights / weights.sum()


def _topics(
    chances: Tensor, num_tokens: int, num_topics: int, stay: float, source: torch.Generator
) -> Tensor:
    """The topic of every word: that of the last time when one was drawn anew."""
    shares = torch.stack([chances[topic::num_topics].sum() for topic in range(num_topics)])
    drawn = shares.multinomial(num_tokens, replacement=True, generator=source)
    is_new = torch.rand(num_tokens, generator=source) >= stay
    is_new[0] = True

    positions = torch.arange(num_tokens).where(is_new, 0)
    return drawn[positions.cummax(0).values]
