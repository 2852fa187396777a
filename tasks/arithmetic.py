"""Learn to calculate, character by character."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from tasks.base import Batch, Params, TaskParams
from tasks.data.arithmetic import ALPHABET, END, Problems
from tasks.network_task import NetworkTask
from tasks.networks.seq2seq import Seq2Seq


class Arithmetic(NetworkTask):
    """Cross-entropy of a sequence-to-sequence network on the characters of the answers, their end included.

    Args:
        name: name of the task in reports.
        network: constructor ``((L_q,), vocabulary size) -> Seq2Seq``.
        data: problems, held in memory.
        batch_size: problems in a batch, drawn with replacement.
        valid_fraction: share of the training problems, the last, that is kept for ``valid``; they are in random order.

    Raises:
        ValueError: the batch size is not positive, or the share leaves nothing to one of the splits.

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
        train, test = (
            (data.train_questions, data.train_answers),
            (data.test_questions, data.test_answers),
        )
        super().__init__(name, inner, facts, train, test, batch_size, valid_fraction)

    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        """Mean cross-entropy over the characters that count, in nats."""
        questions, answers = (tokens[batch["index"]] for tokens in self.train)
        return _cross_entropy(functional_call(self.network, params, (questions, answers)), answers)

    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        """Share of held-out problems that are answered without a mistake, and the loss on them."""
        questions, answers = self.test
        guesses = functional_call(self.network, params, (questions, None, answers.shape[1])).argmax(
            -1
        )
        right = ((guesses == answers) | ~_counts(answers)).all(-1)
        scores = functional_call(self.network, params, (questions, answers))
        return {"accuracy": right.float().mean(), "test_loss": _cross_entropy(scores, answers)}


def _counts(answers: Tensor) -> Tensor:
    """The characters of each answer up to the first that ends it, ``(B, L_a)`` bool."""
    ended = (answers == ALPHABET.index(END)).cumsum(-1)
    return torch.cat([torch.ones_like(ended[:, :1]), 1 - ended[:, :-1].clamp(max=1)], -1).bool()


def _cross_entropy(scores: Tensor, answers: Tensor) -> Tensor:
    losses = functional.cross_entropy(scores.flatten(0, 1), answers.flatten(), reduction="none")
    weights = _counts(answers).flatten().float()
    return (losses * weights).sum() / weights.sum()
