"""Each predictor on each training split with each seed; finished trainings are kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from learned_opt.core import tree
from learned_opt.evaluation.prediction.fit import Data, Prediction, Settings, fit
from learned_opt.evaluation.prediction.kept_fits import kept_or_made
from learned_opt.symmetry.spec import PermutationSpec


@dataclass(frozen=True)
class Predictor:
    """A predictor that is to be trained.

    Args:
        name: what it is called in tables.
        constructor: ``(spec, in_channels=C)`` of the module.
        config: of the constructor, of what JSON can hold.
    """

    name: str
    constructor: Callable[..., nn.Module]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """A predictor that was trained on one training split.

    Args:
        predictor: its name.
        num_train: networks it was trained on.
        num_parameters: of the predictor.
        predictions: one for each seed.
    """

    predictor: str
    num_train: int
    num_parameters: int
    predictions: Sequence[Prediction]

    @property
    def taus(self) -> list[float]:
        """Kendall's tau on the test split, for each seed."""
        return [prediction.tau for prediction in self.predictions]


def run_trials(
    folder: Path,
    predictors: Sequence[Predictor],
    spec: PermutationSpec,
    splits: Sequence[Mapping[str, Data]],
    settings: Settings,
    *,
    num_seeds: int,
    origin: Mapping[str, Any],
    print_line: Callable[[str], None],
) -> list[Trial]:
    """Train all predictors, but for the trainings that ``folder`` keeps.

    Args:
        folder: of the zoo.
        predictors: to be compared.
        spec: permutation spec of the networks.
        splits: from ``prepare``, for each size of the training split.
        settings: how predictors are trained.
        num_seeds: trainings of each predictor on each split.
        origin: where the data come from: checksums of the zoo, and its probe.
        print_line: takes a line for each training.
    """
    trials = []
    for data in splits:
        inputs, success = data["train"]
        num_train = len(success)
        in_channels = tree.leaves(inputs)[0].shape[-1]
        for predictor in predictors:
            identity = {
                "origin": dict(origin),
                "spec": spec.as_dict(),
                "num_train": num_train,
                "predictor": dict(predictor.config),
                "settings": asdict(settings),
            }
            predictions = []
            for seed in range(num_seeds):
                title = f"{predictor.name} {num_train} seed {seed}"
                make = partial(fit, predictor.constructor, spec, data, settings, seed)
                prediction = kept_or_made(folder, title, identity | {"seed": seed}, make)
                predictions.append(prediction)
                print_line(
                    f"{predictor.name}, {num_train} networks, seed {seed}: tau {prediction.tau:.4f}"
                )

            module = predictor.constructor(spec, in_channels=in_channels)
            num_parameters = tree.num_elements(dict(module.named_parameters()))
            trials.append(Trial(predictor.name, num_train, num_parameters, predictions))

    return trials
