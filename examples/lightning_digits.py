"""A Lightning module: the digits again, with a schedule of the learned optimizer's multiplier and gradient clipping."""

import logging

import torch
from lightning import LightningModule, Trainer
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from examples import options
from examples.digits import BATCH, data, make_model
from learned_opt import LearnedOptimizer


class Digits(LightningModule):
    """An MLP that ``LearnedOptimizer`` trains.

    Args:
        weights: name of trained weights.
        steps: of the schedule.
    """

    def __init__(self, weights: str, steps: int) -> None:
        super().__init__()
        self.model, self.weights, self.steps = make_model(), weights, steps
        self.losses: list[float] = []

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Cross-entropy; Lightning hands it to the optimizer in a closure."""
        images, classes = batch
        loss = cross_entropy(self.model(images), classes)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> tuple[list, list]:
        """The multiplier of the update falls from 1 to 0."""
        inputs = (data()[0][:2].to(self.device),)
        optimizer = LearnedOptimizer.from_pretrained(self.weights, self.model, inputs)
        return [optimizer], [
            {"scheduler": CosineAnnealingLR(optimizer, self.steps), "interval": "step"}
        ]


def main(words: list[str] | None = None) -> None:
    """Train and print losses."""
    given = options.parse(words, "An MLP on digits, trained by Lightning", steps=200)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.manual_seed(0)
    module, loader = (
        Digits(given.weights, given.steps),
        DataLoader(TensorDataset(*data()), BATCH, shuffle=True),
    )
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Trainer(max_steps=given.steps, gradient_clip_val=10.0, **quiet).fit(module, loader)
    print(
        f"loss {module.losses[0]:.4f} at the first step, {module.losses[-1]:.4f} at the last of {len(module.losses)}"
    )


if __name__ == "__main__":
    main()
