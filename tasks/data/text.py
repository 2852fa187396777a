"""Text as token sequences: by bytes or words, with a vocabulary cut to a stated size."""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.data.fingerprint import fingerprint_of
from tasks.data.source import load_splits

log = logging.getLogger(__name__)

EMBEDDED = "docs_text"
TOKENISERS = ("byte", "word")
UNKNOWN = 0  # the token of what is not in the vocabulary
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
        return fingerprint_of((self.train, self.test))


def docs_text(tokeniser: str, max_vocab: int, test_fraction: float = 0.1) -> TokenText:
    """The help topics that Python itself carries (``pydoc_data``); needs no network.

    They are about half a megabyte of English.

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
    """The splits ``train`` and ``test`` of a text data set of the hub, or of a local folder.

    Args:
        name: name in reports, and of the folder below ``root``.
        hub_id: data set on the hub.
        root: folder that holds ``name/`` with parquet files; None for the hub or its local cache.
        config: configuration of the data set, None for its only one.
        text_column: column of the text.
        tokeniser: ``byte`` or ``word``.
        max_vocab: largest vocabulary; rarer tokens become the unknown one.
        revision: branch of the data set on the hub, None for its main one.
        separator: text that is put between two rows.
        max_rows: rows that are used of each split, None for all; the log says how many are not.

    Raises:
        ValueError: a value is out of its range, a split or column is missing, or the files cannot
            be read.
        FileNotFoundError: no parquet files below ``root``.
        ConnectionError: the hub cannot be reached and its cache does not hold the data set.
    """
    _check(tokeniser, max_vocab)
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows must be at least 1, got {max_rows}.")

    splits = load_splits(name, hub_id, root, EMBEDDED, config, (text_column,), revision)
    texts = {}
    for split in ("train", "test"):
        rows = splits[split]
        num_kept = len(rows) if max_rows is None else min(max_rows, len(rows))
        if num_kept < len(rows):
            log.warning(
                "%s: %d of %d rows of %s are left out by max_rows",
                name,
                len(rows) - num_kept,
                len(rows),
                split,
            )
            rows = rows.select(range(num_kept))
        pieces = rows[text_column][:]
        for number, piece in enumerate(pieces):
            if not isinstance(piece, str):
                raise ValueError(
                    f"column {text_column} must hold texts, got {piece!r:.40} in row {number} of "
                    f"the {split} split."
                )
        texts[split] = separator.join(pieces)

    return tokenise(name, [texts["train"]], [texts["test"]], tokeniser, max_vocab)


def tokenise(
    name: str, train: Iterable[str], test: Iterable[str], tokeniser: str, max_vocab: int
) -> TokenText:
    """Number the most frequent tokens of the training text; 0 stands for the others.

    The log says how many are cut.

    Args:
        name: name in reports.
        train: pieces of text.
        test: pieces of text.
        tokeniser: ``byte`` (UTF-8) or ``word`` (words, punctuation marks, line ends).
        max_vocab: largest vocabulary, the unknown token included.

    Raises:
        ValueError: the tokeniser is unknown, or the vocabulary holds fewer than two.

    >>> tokenise("letters", ["aab"], ["ba"], "byte", 3).test
    tensor([2, 1])
    """
    _check(tokeniser, max_vocab)
    train_pieces = _split("".join(train), tokeniser)
    test_pieces = _split("".join(test), tokeniser)

    counts = Counter(train_pieces).most_common()
    kept = counts[: max_vocab - 1]
    numbers = {token: i + 1 for i, (token, _) in enumerate(kept)}

    train_tokens = _numbered(train_pieces, numbers)
    test_tokens = _numbered(test_pieces, numbers)
    _tell_unknown(name, train_tokens, test_tokens, len(counts) - len(numbers), len(counts))
    return TokenText(f"{name} {tokeniser}s", train_tokens, test_tokens, len(numbers) + 1)


def _split(text: str, tokeniser: str) -> list:
    return list(text.encode()) if tokeniser == "byte" else WORDS.findall(text)


def _numbered(pieces: list, numbers: dict) -> Tensor:
    return torch.tensor([numbers.get(piece, UNKNOWN) for piece in pieces], dtype=torch.int64)


def _tell_unknown(name: str, train: Tensor, test: Tensor, num_cut: int, num_tokens: int) -> None:
    """Log which share of each text became the unknown token."""
    train_share = (train == UNKNOWN).float().mean().item()
    test_share = (test == UNKNOWN).float().mean().item()
    if not max(train_share, test_share) > 0:
        return

    shares = f"{train_share:.2%} of the training and {test_share:.2%} of the test tokens"
    log.warning(
        "%s: %d of %d different tokens are cut by max_vocab; %s are unknown",
        name,
        num_cut,
        num_tokens,
        shares,
    )


def _check(tokeniser: str, max_vocab: int) -> None:
    if tokeniser not in TOKENISERS:
        raise ValueError(f"tokeniser must be one of {', '.join(TOKENISERS)}, got {tokeniser!r}.")
    if max_vocab < 2:
        raise ValueError(f"max_vocab must be at least 2, got {max_vocab}.")
