"""A Lightning module: the digits again, with a schedule and gradient clipping.

    python -m examples.lightning_digits [WEIGHTS] [--steps 200]

The schedule lowers the multiplier of the learned optimizer's updates. It prints the training loss
of the first and of the last step.
"""

import logging

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from examples import options
from examples.digits import BATCH, data, make_model
from learned_opt import LearnedOptimizer


class Digits(LightningModule):
    """An MLP that ``LearnedOptimizer`` trains.

    Args:
        weights: name of trained weights.
        steps: length of the schedule.
    """

    def __init__(self, weights: str, steps: int) -> None:
        super().__init__()
        self.model = make_model()
        self.weights = weights
        self.steps = steps
        self.losses: list[float] = []

    @override
    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        images, classes = batch
        loss = cross_entropy(self.model(images), classes)
        self.losses.append(loss.item())
        return loss  # Lightning hands it to the optimizer in a closure

    @override
    def configure_optimizers(self) -> tuple[list, list]:
        example_inputs = (data()[0][:2].to(self.device),)
        optimizer = LearnedOptimizer.from_pretrained(self.weights, self.model, example_inputs)
        # the multiplier of the updates falls from 1 to 0
        schedule = {"scheduler": CosineAnnealingLR(optimizer, self.steps), "interval": "step"}
        return [optimizer], [schedule]


def main(words: list[str] | None = None) -> None:
    """Train, and print the first and the last loss."""
    arguments = options.parse(words, "An MLP on digits, trained by Lightning", steps=200)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

    torch.manual_seed(0)
    module = Digits(arguments.weights, arguments.steps)
    loader = DataLoader(TensorDataset(*data()), BATCH, shuffle=True)
    trainer = Trainer(
        max_steps=arguments.steps,
        gradient_clip_val=10.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)

    first = module.losses[0]
    last = module.losses[-1]
    print(f"loss {first:.4f} at the first step, {last:.4f} at the last of {len(module.losses)}")


if __name__ == "__main__":
    main()
