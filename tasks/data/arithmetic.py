"""Character arithmetic: questions such as ``15+20=`` and their answers, ``35``."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

END = "."  # ends an answer and fills it up
PAD = " "  # fills a question up, in front
ALPHABET = PAD + END + "0123456789+-="


@dataclass(frozen=True)
class Problems:
    """Questions and answers as tokens, split for inner training and for the held-out success rate.

    Args:
        name: what reports call the data, e.g. ``arithmetic 2 digits``.
        train_questions: ``(n, L_q)`` int64 tokens.
        train_answers: ``(n, L_a)`` int64 tokens.
        test_questions: as ``train_questions``; never trained on.
        test_answers: as ``train_answers``.
    """

    name: str
    train_questions: Tensor
    train_answers: Tensor
    test_questions: Tensor
    test_answers: Tensor

    @property
    def vocab_size(self) -> int:
        """Number of different tokens."""
        return len(ALPHABET)

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of all tokens."""
        tensors = (self.train_questions, self.train_answers, self.test_questions, self.test_answers)
        return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()[
            :16
        ]


def arithmetic(
    max_digits: int, operators: str = "+-", num_train: int = 4096, num_test: int = 512
) -> Problems:
    """Draw different problems; the same in every run.

    Args:
        max_digits: most digits of an operand; each operand's number of digits is uniform.
        operators: some of ``+`` and ``-``.
        num_train: problems to train on.
        num_test: held-out problems, none of which is trained on.

    Raises:
        ValueError: a value is out of its range, or there are not so many different problems.
    """
    if not 1 <= max_digits <= 9:
        raise ValueError(f"max_digits must lie between 1 and 9, got {max_digits}.")
    if not operators or set(operators) - set("+-"):
        raise ValueError(f"operators must be some of '+-', got {operators!r}.")
    if num_train < 1 or num_test < 1:
        raise ValueError(
            f"num_train and num_test must be at least 1, got {num_train} and {num_test}."
        )
    most = len(operators) * 100**max_digits
    if num_train + num_test > most // 2:
        raise ValueError(
            f"num_train + num_test must be at most {most // 2}, half of all problems that there are."
        )
    source = torch.Generator().manual_seed(0)
    problems: dict[str, str] = {}
    while len(problems) < num_train + num_test:
        question, answer = _draw(source, max_digits, operators)
        problems[question] = answer
    questions = _tokens([q.rjust(2 * max_digits + 2, PAD) for q in problems])
    answers = _tokens([a.ljust(max_digits + 2, END) for a in problems.values()])
    train, test = slice(num_train), slice(num_train, None)
    return Problems(
        f"arithmetic {max_digits} digits",
        questions[train],
        answers[train],
        questions[test],
        answers[test],
    )


def _draw(source: torch.Generator, max_digits: int, operators: str) -> tuple[str, str]:
    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=source))

    left, right = (below(10 ** (1 + below(max_digits))) for _ in range(2))
    operator = operators[below(len(operators))]
    return f"{left}{operator}{right}=", str(left + right if operator == "+" else left - right)


def _tokens(texts: Iterable[str]) -> Tensor:
    return torch.tensor([[ALPHABET.index(letter) for letter in text] for text in texts])
