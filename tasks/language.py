"""Next-token prediction: any sequence network on any token text."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

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
        shortest = (
            min(size for size in (self.num_train, self.num_valid, len(data.test)) if size) - 1
        )
        if not 1 <= length <= shortest:
            raise ValueError(
                f"length must lie between 1 and {shortest}, the shorter text's tokens, got {length}."
            )
        self.length = length

    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        """Where the windows start, ``(batch_size,)``; none reaches into the other split."""
        return {"start": self.draw_rows(generator, split, self.length)}

    def rows(self, split: str) -> Tensor:
        """Stretches of tokens: every one of the training text, those side by side of the held-out text."""
        texts = {"train": self.train[0], "test": self.test[0]}
        size = min(STRETCH, *map(len, texts.values()))
        return texts[split].unfold(0, size, 1 if split == "train" else size)

    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        """Mean cross-entropy over windows and positions, in nats per token."""
        return self._cross_entropy(params, self.train[0], batch["start"])

    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        """Loss on the held-out text, in nats per token."""
        (text,) = self.test
        starts = torch.linspace(
            0, len(text) - self.length - 1, NUM_TEST_WINDOWS, device=text.device
        ).long()
        return {"test_loss": self._cross_entropy(params, text, starts)}

    def _cross_entropy(self, params: Params, text: Tensor, starts: Tensor) -> Tensor:
        windows = text[starts[:, None] + torch.arange(self.length + 1, device=text.device)]
        outputs = functional_call(self.network, params, (windows[:, :-1],))
        return functional.cross_entropy(outputs.flatten(0, 1), windows[:, 1:].flatten())
