"""Train a predictor on the training split, stop on the validation split, judge on the test split.

Legend: M networks of a split, n networks of the test split, C channels of a weight.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.core.tree import Tree
from learned_opt.evaluation.prediction.zoo import SPLITS, Zoo
from learned_opt.symmetry.spec import PermutationSpec

STOP_BY = ("loss", "tau")
LEAST_DEVIATION = 1e-12  # of a tensor that is the same in all networks
Data = tuple[Tree, Tensor]  # inputs, leaves (M, *shape, C), and success rates (M,)


@dataclass(frozen=True)
class Settings:
    """How predictors are trained.

    Args:
        lr: learning rate of Adam.
        batch_size: networks in a batch.
        max_epochs: passes over the training split at most.
        patience: epochs without a better validation figure after which training stops.
        weight_decay: of AdamW, in units of the learning rate.
        stop_by: the validation figure, ``loss`` or ``tau``.

    Raises:
        ValueError: a value is not positive, ``weight_decay`` is negative, or ``stop_by`` is none of
            the two.
    """

    lr: float
    batch_size: int
    max_epochs: int
    patience: int
    weight_decay: float = 0.0
    stop_by: str = "loss"

    def __post_init__(self) -> None:
        for name in ("lr", "batch_size", "max_epochs", "patience"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}.")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}.")
        if self.stop_by not in STOP_BY:
            raise ValueError(f"stop_by must be one of {STOP_BY}, got {self.stop_by!r}.")


@dataclass(frozen=True)
class Prediction:
    """What one training of a predictor came to.

    Args:
        tau: Kendall's tau-b between predictions and success rates on the test split.
        valid_tau: that of the validation split, by which predictors may be chosen.
        loss: binary cross-entropy there, in nats.
        epochs: passes over the training split until the best validation figure.
        seconds: that the training took.
        predicted: success rates predicted there, ``(n,)``.
    """

    tau: float
    valid_tau: float
    loss: float
    epochs: int
    seconds: float
    predicted: Tensor


def prepare(
    zoo: Zoo,
    gradients_of: Callable[[Tree], Tree] | None = None,
    num_train: int | None = None,
) -> dict[str, Data]:
    """The three splits, each tensor shifted and scaled as a whole.

    Shift and scale are the tensor's mean and deviation on what is trained on.

    Args:
        zoo: the networks.
        gradients_of: weights -> gradients, leaves ``(M, *shape)``, see ``probe``, as a second
            channel; None for the weights alone. Their sizes differ by orders from network to
            network, so that of what is scaled the inverse hyperbolic sine is taken.
        num_train: how many networks of the training split are taken, drawn so that a larger number
            has those of a smaller one and others; None for all.

    Raises:
        ValueError: a split has fewer than two networks, all of them are equally successful, a
            success is no rate, or the training split has fewer networks than ``num_train``.
    """
    splits = {split: zoo.select(split) for split in SPLITS}
    if num_train is not None:
        splits["train"] = _drawn(splits["train"], num_train)

    for split, (_, success) in splits.items():
        if len(success) < 2:
            raise ValueError(
                f"the {split} split of the zoo has {len(success)} networks; build a larger zoo."
            )
        # the loss of the predictors is a cross-entropy
        no_rates = success[(success < 0) | (success > 1)]
        if len(no_rates):
            raise ValueError(
                f"success must be a rate from 0 to 1 to be predicted, the {split} split of the zoo "
                f"holds {no_rates[0]:.4g}."
            )
        if success.min() == success.max():
            raise ValueError(
                f"all networks of the {split} split have the success {success[0]:.4g}: "
                "nothing to rank."
            )

    channels = [{split: params for split, (params, _) in splits.items()}]
    if gradients_of is not None:
        channels.append({split: gradients_of(params) for split, (params, _) in splits.items()})

    scaled = [_scaled(channel) for channel in channels]
    if gradients_of is not None:
        scaled[1] = tree.tree_map(torch.asinh, scaled[1])

    data = {}
    for split, (_, success) in splits.items():
        of_split = [channel[split] for channel in scaled]
        inputs = tree.tree_map(lambda *leaves: torch.stack(leaves, -1), *of_split)
        data[split] = (inputs, success)
    return data


def _drawn(train: Data, num_train: int) -> Data:
    """``num_train`` networks of the training split, those of a smaller number among them."""
    num_networks = len(train[1])
    if not 2 <= num_train <= num_networks:
        raise ValueError(
            f"train_sizes must be from 2 to {num_networks}, the networks of the training split, "
            f"got {num_train}."
        )
    # networks of a shard are alike: the first ones would be of few kinds
    order = torch.randperm(num_networks, generator=generator(0, "train_sizes"))
    return _rows(train, order[:num_train])


def _scaled(splits: Mapping[str, Tree]) -> dict[str, Tree]:
    """Each tensor of all splits, shifted and scaled by that of the training split."""
    means = {name: value.mean() for name, value in splits["train"].items()}
    deviations = {name: value.std() for name, value in splits["train"].items()}

    scaled = {}
    for split, values in splits.items():
        scaled[split] = {}
        for name, value in values.items():
            deviation = deviations[name].clamp(min=LEAST_DEVIATION)
            scaled[split][name] = (value - means[name]) / deviation
    return scaled


def fit(
    constructor: Callable[..., nn.Module],
    spec: PermutationSpec,
    data: Mapping[str, Data],
    settings: Settings,
    seed: int,
) -> Prediction:
    """Train one predictor; its loss is the binary cross-entropy against the success rate.

    Args:
        constructor: ``(spec, in_channels=C)`` of the predictor, whose outputs are logits ``(M,)``.
        spec: permutation spec of the networks.
        data: from ``prepare``.
        settings: of the training.
        seed: of initial weights and the order of batches.
    """
    start = perf_counter()
    torch.manual_seed(seed)
    inputs, _ = data["train"]
    predictor = constructor(spec, in_channels=tree.leaves(inputs)[0].shape[-1])
    optimizer = torch.optim.AdamW(
        predictor.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )

    best = torch.inf
    best_epoch = 0
    best_weights = copy.deepcopy(predictor.state_dict())
    for epoch in range(settings.max_epochs):
        order_source = generator(seed, "epoch", epoch)
        _train_epoch(predictor, optimizer, data["train"], settings.batch_size, order_source)

        judgement = _judge(predictor, data["valid"], settings.batch_size)
        figure = judgement.loss if settings.stop_by == "loss" else -judgement.tau
        if figure < best:
            best = figure
            best_epoch = epoch + 1
            # a copy, as training goes on writing into the same tensors
            best_weights = copy.deepcopy(predictor.state_dict())
        elif epoch + 1 - best_epoch >= settings.patience:
            break

    predictor.load_state_dict(best_weights)
    valid = _judge(predictor, data["valid"], settings.batch_size)
    test = _judge(predictor, data["test"], settings.batch_size)
    return Prediction(
        tau=test.tau,
        valid_tau=valid.tau,
        loss=test.loss,
        epochs=best_epoch,
        seconds=perf_counter() - start,
        predicted=test.scores.sigmoid(),
    )


def _train_epoch(
    predictor: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Data,
    batch_size: int,
    source: torch.Generator,
) -> None:
    predictor.train()
    order = torch.randperm(len(train[1]), generator=source)
    for index in order.split(batch_size):
        params, success = _rows(train, index)
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(predictor(params), success).backward()
        optimizer.step()


class Judgement(NamedTuple):
    """How a predictor does on a split: its loss, Kendall's tau-b, and its scores ``(M,)``."""

    loss: float
    tau: float
    scores: Tensor


@torch.no_grad()
def _judge(predictor: nn.Module, data: Data, batch_size: int) -> Judgement:
    predictor.eval()
    _, success = data

    batches = []
    for index in torch.arange(len(success)).split(batch_size):
        params, _ = _rows(data, index)
        batches.append(predictor(params))
    scores = torch.cat(batches)

    loss = binary_cross_entropy_with_logits(scores, success).item()
    tau: Any = stats.kendalltau(scores.numpy(), success.numpy())
    # scores that are all the same rank nothing
    statistic = 0.0 if math.isnan(tau.statistic) else float(tau.statistic)
    return Judgement(loss, statistic, scores)


def _rows(data: Data, index: Tensor) -> Data:
    params, success = data
    return tree.tree_map(lambda leaf: leaf[index], params), success[index]
