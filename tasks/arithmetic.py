"""Arithmetic: learn to calculate, character by character.

Legend: B problems in a batch, L_q and L_a characters of a question and an answer,
V characters of the alphabet.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from typing_extensions import override

from tasks.base import Batch, Params, TaskParams
from tasks.data.arithmetic import ALPHABET, END, Problems
from tasks.network_task import NetworkTask
from tasks.networks.seq2seq import Seq2Seq


class Arithmetic(NetworkTask):
    """Cross-entropy of a sequence-to-sequence network on the characters of the answers.

    The character that ends an answer counts too.

    Args:
        name: name of the task in reports.
        network: constructor ``((L_q,), vocabulary size) -> Seq2Seq``.
        data: problems, held in memory.
        batch_size: problems in a batch, drawn with replacement.
        valid_fraction: share of the training problems, the last, that is kept for ``valid``;
            they are in random order.

    Raises:
        ValueError: the batch size is not positive, or the share leaves nothing to one of the
            splits.

    Source: the Tiny RNN Zoo of Zhou et al. 2024 (arXiv 2402.05232), section 4.1.
    """

    def __init__(
        self,
        name: str,
        network: Callable[..., Seq2Seq],
        data: Problems,
        batch_size: int = 128,
        valid_fraction: float = 0.0,
    ) -> None:
        inner = network((data.train_questions.shape[1],), data.vocab_size)
        facts = {"data": data.name, "fingerprint": data.fingerprint}
        train = (data.train_questions, data.train_answers)
        test = (data.test_questions, data.test_answers)
        super().__init__(name, inner, facts, train, test, batch_size, valid_fraction)

    @override
    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        train_questions, train_answers = self.train
        questions = train_questions[batch["index"]]  # (B, L_q)
        answers = train_answers[batch["index"]]  # (B, L_a)
        scores = functional_call(self.network, params, (questions, answers))
        return _cross_entropy(scores, answers)

    @override
    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        questions, answers = self.test

        # without answers the network reads its own guesses, as whoever uses it would have to
        alone = functional_call(self.network, params, (questions, None, answers.shape[1]))
        guesses = alone.argmax(-1)  # (B, L_a)
        right = ((guesses == answers) | ~_counts(answers)).all(-1)

        scores = functional_call(self.network, params, (questions, answers))
        return {"accuracy": right.float().mean(), "test_loss": _cross_entropy(scores, answers)}


def _counts(answers: Tensor) -> Tensor:
    """The characters of each answer up to the first that ends it, ``(B, L_a)`` bool."""
    num_ends = (answers == ALPHABET.index(END)).cumsum(-1)
    first = torch.ones_like(num_ends[:, :1])
    later = 1 - num_ends[:, :-1].clamp(max=1)
    return torch.cat([first, later], -1).bool()


def _cross_entropy(scores: Tensor, answers: Tensor) -> Tensor:
    """Mean over the characters that count, in nats; scores are ``(B, L_a, V)``."""
    losses = functional.cross_entropy(scores.flatten(0, 1), answers.flatten(), reduction="none")
    weights = _counts(answers).flatten().float()
    return (losses * weights).sum() / weights.sum()
