"""Character arithmetic: questions such as ``15+20=`` and their answers, ``35``."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.data.fingerprint import fingerprint_of

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
        """How many different tokens there are."""
        return len(ALPHABET)

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of all tokens."""
        return fingerprint_of(
            (self.train_questions, self.train_answers, self.test_questions, self.test_answers)
        )


def arithmetic(
    max_digits: int, operators: str = "+-", num_train: int = 4096, num_test: int = 512
) -> Problems:
    """Draw different problems; the same in every run, and both splits alike.

    Args:
        max_digits: most digits of an operand; each operand's number of digits is uniform.
        operators: some of ``+`` and ``-``.
        num_train: problems to train on.
        num_test: held-out problems, none of which is trained on.

    Raises:
        ValueError: a value is out of its range, or there are not so many different problems.

    >>> problems = arithmetic(2, num_train=30, num_test=20)
    >>> problems.train_questions.shape, problems.test_answers.shape
    (torch.Size([30, 6]), torch.Size([20, 4]))
    """
    if not 1 <= max_digits <= 9:
        raise ValueError(f"max_digits must lie between 1 and 9, got {max_digits}.")
    if not operators or set(operators) - set("+-"):
        raise ValueError(f"operators must be some of '+-', got {operators!r}.")
    if num_train < 1 or num_test < 1:
        raise ValueError(
            f"num_train and num_test must be at least 1, got {num_train} and {num_test}."
        )
    largest = len(operators) * 100**max_digits // 2  # drawing the last few would take for ever
    if num_train + num_test > largest:
        raise ValueError(
            f"num_train + num_test must be at most {largest}, half of all problems that there are."
        )

    source = torch.Generator().manual_seed(0)
    problems: dict[str, str] = {}  # question -> answer
    while len(problems) < num_train + num_test:
        question, answer = _draw(source, max_digits, operators)
        problems[question] = answer

    # short questions are soon drawn, so the order of drawing would keep them all to train on
    order = torch.randperm(len(problems), generator=source)
    questions = _tokens(question.rjust(2 * max_digits + 2, PAD) for question in problems)[order]
    answers = _tokens(answer.ljust(max_digits + 2, END) for answer in problems.values())[order]
    return Problems(
        f"arithmetic {max_digits} digits",
        train_questions=questions[:num_train],
        train_answers=answers[:num_train],
        test_questions=questions[num_train:],
        test_answers=answers[num_train:],
    )


def _draw(source: torch.Generator, max_digits: int, operators: str) -> tuple[str, str]:
    """One problem: its question and its answer."""

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=source))

    left = below(10 ** (1 + below(max_digits)))
    right = below(10 ** (1 + below(max_digits)))
    operator = operators[below(len(operators))]

    result = left + right if operator == "+" else left - right
    return f"{left}{operator}{right}=", str(result)


def _tokens(texts: Iterable[str]) -> Tensor:
    """Places of the characters in the alphabet, ``(n, L)`` for n texts of one length."""
    rows = []
    for text in texts:
        rows.append([ALPHABET.index(letter) for letter in text])
    return torch.tensor(rows)
