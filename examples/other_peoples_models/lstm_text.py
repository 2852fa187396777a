"""A text model on ``nn.LSTM``.

Legend: B batch, L length, V vocabulary.
"""

from torch import Tensor, nn

from examples.other_peoples_models.data import VOCABULARY, windows
from tasks import ModuleTask
from tasks.module_losses import next_token_cross_entropy


class TextModel(nn.Module):
    """Two layers of LSTM with dropout between them, as PyTorch's example of word models has it."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.1)
        self.encoder = nn.Embedding(VOCABULARY, width)
        self.rnn = nn.LSTM(width, width, num_layers=2, dropout=0.1, batch_first=True)
        self.decoder = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, L) -> (B, L, V)``."""
        outputs, _ = self.rnn(self.drop(self.encoder(tokens)))
        return self.decoder(self.drop(outputs))


def make_task(root: str | None = None) -> ModuleTask:
    """Prediction of the next byte.

    Args:
        root: folder of real data, see ``data``.
    """
    train, test = windows(root, length=16)
    return ModuleTask(
        TextModel, next_token_cross_entropy, train, test=test, batch_size=16, name="lstm"
    )
