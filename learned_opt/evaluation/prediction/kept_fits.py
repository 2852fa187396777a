"""Finished trainings of predictors, kept beside their zoo, so that none is made a second time.

Legend: n networks of the test split.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from learned_opt.core.files import write_json
from learned_opt.core.json_files import read_json
from learned_opt.evaluation.cells import digest
from learned_opt.evaluation.prediction.fit import Prediction

FOLDER = "fits"  # within that of the zoo


def kept_or_made(
    folder: Path, title: str, identity: Mapping[str, Any], make: Callable[[], Prediction]
) -> Prediction:
    """The training that the folder of a zoo holds; made, and kept there, where it holds none.

    Args:
        folder: of the zoo.
        title: of the file, for readers.
        identity: all that the training hangs on, of what JSON can hold. A digest of it is in the
            name of the file, so that another setting is another file.
        make: trains the predictor.

    Raises:
        ValueError: the file that is there is damaged; names it.
    """
    path = folder / FOLDER / f"{title} {digest(identity)}.json"
    if path.is_file():
        return _read(path)

    prediction = make()
    path.parent.mkdir(exist_ok=True)
    content = asdict(prediction) | {"predicted": prediction.predicted.tolist()}
    write_json(path, {"identity": dict(identity), "prediction": content})
    return prediction


def _read(path: Path) -> Prediction:
    content = read_json(path)
    values = content.get("prediction") if isinstance(content, dict) else None
    if not isinstance(values, dict) or set(values) != set(Prediction.__dataclass_fields__):
        raise ValueError(f"{path} is damaged: it holds no prediction. Delete it to train again.")

    predicted = values.pop("predicted")
    is_list = isinstance(predicted, list) and len(predicted) > 0
    numbers = [*values.values(), *(predicted if is_list else [None])]
    if not all(_is_number(value) for value in numbers):
        raise ValueError(f"{path} is damaged: it must hold numbers. Delete it to train again.")
    return Prediction(**values, predicted=torch.tensor(predicted))


def _is_number(value: Any) -> bool:
    is_plain = isinstance(value, int | float) and not isinstance(value, bool)
    return is_plain and math.isfinite(value)
