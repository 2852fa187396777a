"""Next-token prediction: any sequence network on any token text."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from typing_extensions import override

from tasks.base import Batch, Params, TaskParams
from tasks.data.text import TokenText
from tasks.network_task import NetworkTask
from tasks.networks.base import Network

STRETCH = 64  # tokens of a row; shorter ones recur in any text
NUM_TEST_WINDOWS = 256  # evenly spaced over the held-out text


class NextToken(NetworkTask):
    """Cross-entropy of the next token at every position of random windows.

    Args:
        name: name of the task in reports.
        network: constructor ``((length,), vocabulary size) -> Network``.
        data: tokens, held in memory.
        length: tokens in a window.
        batch_size: windows in a batch.
        valid_fraction: share of the training text, at its end, that is kept for ``valid``.

    Raises:
        ValueError: a size is not positive, or a text is shorter than a window.
    """

    def __init__(
        self,
        name: str,
        network: Callable[..., Network],
        data: TokenText,
        length: int = 16,
        batch_size: int = 64,
        valid_fraction: float = 0.0,
    ) -> None:
        facts = {
            "data": data.name,
            "vocab_size": data.vocab_size,
            "length": length,
            "fingerprint": data.fingerprint,
        }
        inner = network((length,), data.vocab_size)
        super().__init__(
            name, inner, facts, (data.train,), (data.test,), batch_size, valid_fraction
        )

        sizes = [self.num_train, len(data.test)]
        if self.num_valid:
            sizes.append(self.num_valid)
        longest = min(sizes) - 1  # the last position of a window needs a next token
        if not 1 <= length <= longest:
            raise ValueError(
                f"length must lie between 1 and {longest}, the shorter text's tokens, got {length}."
            )
        self.length = length

    @override
    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        # where the windows start, (batch_size,); none reaches into the other split
        return {"start": self.draw_rows(generator, split, self.length)}

    @override
    def batches(
        self, generator: torch.Generator, task: TaskParams, num: int, split: str = "train"
    ) -> Batch:
        if type(self).batch is not NextToken.batch:
            return super().batches(generator, task, num, split)
        starts = self.draw_rows(generator, split, self.length, num)
        return {"start": starts.unflatten(0, (num, self.batch_size))}

    @override
    def rows(self, split: str) -> Tensor:
        texts = {"train": self.train[0], "test": self.test[0]}
        size = min(STRETCH, len(texts["train"]), len(texts["test"]))

        # every stretch of the training text, so that a copy is found wherever it starts
        step = 1 if split == "train" else size
        return texts[split].unfold(0, size, step)  # (n, size)

    @override
    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        return self._cross_entropy(params, self.train[0], batch["start"])

    @override
    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        (text,) = self.test
        last = len(text) - self.length - 1
        starts = torch.linspace(0, last, NUM_TEST_WINDOWS, device=text.device).long()
        return {"test_loss": self._cross_entropy(params, text, starts)}

    def _cross_entropy(self, params: Params, text: Tensor, starts: Tensor) -> Tensor:
        """Mean over windows and positions, in nats per token."""
        positions = torch.arange(self.length + 1, device=text.device)
        windows = text[starts[:, None] + positions]  # (B, length + 1)
        outputs = functional_call(self.network, params, (windows[:, :-1],))  # (B, length, vocab)
        return functional.cross_entropy(outputs.flatten(0, 1), windows[:, 1:].flatten())
