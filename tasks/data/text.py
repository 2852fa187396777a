"""Text as token sequences: tokenised by bytes or words, with a vocabulary cut to a stated size."""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.data.source import load_splits

log = logging.getLogger(__name__)

EMBEDDED = "data=docs_text"
TOKENISERS = ("byte", "word")
WORDS = re.compile(r"\w+|[^\w\s]|\n")


@dataclass(frozen=True)
class TokenText:
    """Two stretches of tokens, for inner training and for held-out loss.

    Args:
        name: what reports call the data, e.g. ``docs_text bytes``.
        train: ``(n,)`` int64 in 0..vocab_size-1.
        test: as ``train``; never trained on.
        vocab_size: number of different tokens, 0 for unknown ones included.
    """

    name: str
    train: Tensor
    test: Tensor
    vocab_size: int

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of all tokens."""
        return hashlib.sha256(
            self.train.numpy().tobytes() + self.test.numpy().tobytes()
        ).hexdigest()[:16]


def docs_text(tokeniser: str, max_vocab: int, test_fraction: float = 0.1) -> TokenText:
    """The help topics that Python itself carries (``pydoc_data``), about half a megabyte of English; needs no network.

    Args:
        tokeniser: ``byte`` or ``word``.
        max_vocab: largest vocabulary; rarer tokens become the unknown one.
        test_fraction: share of the text at its end that is held out.

    Raises:
        ValueError: a value is out of its range.
    """
    from pydoc_data import topics

    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1, got {test_fraction}.")
    text = "\n".join(topics.topics[key] for key in sorted(topics.topics))
    cut = int(len(text) * (1 - test_fraction))
    return tokenise("docs_text", [text[:cut]], [text[cut:]], tokeniser, max_vocab)


def hub_text(
    name: str,
    hub_id: str,
    root: str | None,
    config: str | None,
    text_column: str,
    tokeniser: str,
    max_vocab: int,
    revision: str | None = None,
    separator: str = "",
    max_rows: int | None = None,
) -> TokenText:
    """The splits ``train`` and ``test`` of a text data set of the hub, or of a local folder in its layout.

    Args:
        name: name in reports, and of the folder below ``root``.
        hub_id: data set on the hub.
        root: folder that holds ``name/`` with parquet files; None for the hub or its local cache.
        config: configuration of the data set, None for its only one.
        text_column: column of the text.
        tokeniser: ``byte`` or ``word``.
        max_vocab: largest vocabulary; rarer tokens become the unknown one.
        revision: branch of the data set on the hub, None for its main one.
        separator: what is put between rows.
        max_rows: rows that are used of each split, None for all; the log says how many are not.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: as ``source.load_splits``; or a value is out of its range.
    """
    _check(tokeniser, max_vocab)
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows must be at least 1, got {max_rows}.")
    splits = load_splits(name, hub_id, root, EMBEDDED, config, (text_column,), revision)
    texts = []
    for split in ("train", "test"):
        rows = splits[split]
        if max_rows is not None and len(rows) > max_rows:
            log.warning(
                "%s: %d of %d rows of %s are left out by max_rows",
                name,
                len(rows) - max_rows,
                len(rows),
                split,
            )
            rows = rows.select(range(max_rows))
        texts.append(separator.join(rows[text_column]))
    return tokenise(name, texts[:1], texts[1:], tokeniser, max_vocab)


def tokenise(
    name: str, train: Iterable[str], test: Iterable[str], tokeniser: str, max_vocab: int
) -> TokenText:
    """Number the most frequent tokens of the training text; 0 stands for the others, and the log says how many.

    Args:
        name: name in reports.
        train: pieces of text.
        test: pieces of text.
        tokeniser: ``byte`` (UTF-8) or ``word`` (words, punctuation marks, line ends).
        max_vocab: largest vocabulary, the unknown token included.
    """
    _check(tokeniser, max_vocab)
    pieces = [_split(text, tokeniser) for text in ("".join(train), "".join(test))]
    counts = Counter(pieces[0]).most_common()
    numbers = {token: i + 1 for i, (token, _) in enumerate(counts[: max_vocab - 1])}
    tensors = [
        torch.tensor([numbers.get(token, 0) for token in piece], dtype=torch.int64)
        for piece in pieces
    ]
    unknown = [(tensor == 0).float().mean().item() for tensor in tensors]
    if max(unknown) > 0:
        dropped = max(0, len(counts) - len(numbers))
        shares = f"{unknown[0]:.2%} of the training and {unknown[1]:.2%} of the test tokens"
        log.warning(
            "%s: %d of %d different tokens are cut by max_vocab; %s are unknown",
            name,
            dropped,
            len(counts),
            shares,
        )
    return TokenText(f"{name} {tokeniser}s", *tensors, vocab_size=len(numbers) + 1)


def _split(text: str, tokeniser: str) -> list:
    return list(text.encode()) if tokeniser == "byte" else WORDS.findall(text)


def _check(tokeniser: str, max_vocab: int) -> None:
    if tokeniser not in TOKENISERS:
        raise ValueError(f"tokeniser must be one of {', '.join(TOKENISERS)}, got {tokeniser!r}.")
    if max_vocab < 2:
        raise ValueError(f"max_vocab must be at least 2, got {max_vocab}.")
