"""Train a predictor on the training split, stop on the validation split, judge on the test split."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from torch.nn import functional

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.core.tree import Tree
from learned_opt.evaluation.prediction.zoo import Zoo
from learned_opt.symmetry.spec import PermutationSpec

Data = tuple[Tree, Tensor]  # weights, leaves (M, *shape), and success rates (M,)


@dataclass(frozen=True)
class Settings:
    """How predictors are trained.

    Args:
        lr: learning rate of Adam.
        batch_size: networks in a batch.
        max_epochs: passes over the training split at most.
        patience: epochs without a lower validation loss after which training stops.

    Raises:
        ValueError: a value is not positive.
    """

    lr: float
    batch_size: int
    max_epochs: int
    patience: int

    def __post_init__(self) -> None:
        for name in ("lr", "batch_size", "max_epochs", "patience"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Prediction:
    """What one training of a predictor came to.

    Args:
        tau: Kendall's tau-b between predictions and success rates on the test split.
        loss: binary cross-entropy there, in nats.
        epochs: passes over the training split until the lowest validation loss.
        predicted: success rates predicted there, ``(n,)``.
    """

    tau: float
    loss: float
    epochs: int
    predicted: Tensor


def prepare(zoo: Zoo) -> dict[str, Data]:
    """The three splits; each tensor is shifted and scaled as a whole, by its mean and deviation on the training split.

    Raises:
        ValueError: a split has fewer than two networks, or all of them are equally successful.
    """
    splits = {split: zoo.select(split) for split in ("train", "valid", "test")}
    for split, (_, success) in splits.items():
        if len(success) < 2:
            raise ValueError(
                f"the {split} split of the zoo has {len(success)} networks; build a larger zoo."
            )
        if success.min() == success.max():
            raise ValueError(
                f"all networks of the {split} split have the success {success[0]:.4g}: nothing to rank."
            )
    train = splits["train"][0]
    means, deviations = ({k: f(v) for k, v in train.items()} for f in (torch.mean, torch.std))
    return {
        split: (
            {k: (v - means[k]) / deviations[k].clamp(min=1e-12) for k, v in params.items()},
            success,
        )
        for split, (params, success) in splits.items()
    }


def fit(
    constructor: Callable[[PermutationSpec], nn.Module],
    spec: PermutationSpec,
    data: dict[str, Data],
    settings: Settings,
    seed: int,
) -> Prediction:
    """Train one predictor; binary cross-entropy against the success rate."""
    torch.manual_seed(seed)
    predictor = constructor(spec)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=settings.lr)
    best, best_epoch, kept = torch.inf, 0, copy.deepcopy(predictor.state_dict())
    for epoch in range(settings.max_epochs):
        predictor.train()
        order = torch.randperm(len(data["train"][1]), generator=generator(seed, "epoch", epoch))
        for index in order.split(settings.batch_size):
            params, success = _rows(data["train"], index)
            optimizer.zero_grad()
            functional.binary_cross_entropy_with_logits(predictor(params), success).backward()
            optimizer.step()
        loss, _ = _judge(predictor, data["valid"], settings.batch_size)
        if loss < best:
            best, best_epoch, kept = loss, epoch + 1, copy.deepcopy(predictor.state_dict())
        elif epoch + 1 - best_epoch >= settings.patience:
            break
    predictor.load_state_dict(kept)
    loss, scores = _judge(predictor, data["test"], settings.batch_size)
    tau: Any = kendalltau(scores.numpy(), data["test"][1].numpy())
    return Prediction(float(tau.statistic), loss, best_epoch, scores.sigmoid())


@torch.no_grad()
def _judge(predictor: nn.Module, data: Data, batch_size: int) -> tuple[float, Tensor]:
    """Loss and scores ``(n,)``."""
    predictor.eval()
    scores = torch.cat(
        [predictor(_rows(data, i)[0]) for i in torch.arange(len(data[1])).split(batch_size)]
    )
    return functional.binary_cross_entropy_with_logits(scores, data[1]).item(), scores


def _rows(data: Data, index: Tensor) -> Data:
    return tree.tree_map(lambda leaf: leaf[index], data[0]), data[1][index]
