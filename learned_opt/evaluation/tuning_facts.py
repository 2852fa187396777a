"""What tuning runs depend on, as JSON values, by which their archive finds them again."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.evaluation.seeded_runs import FINAL_WINDOW
from learned_opt.inner.unroll import Unroll

KEY = ("tune", "fingerprint")  # of the draws

# Modules that have moved keep the name under which their runs were first archived: another name
# would be another file, and all runs of earlier versions would have to be run again.
HAND = "learned_opt.optimizers.hand"
ARCHIVED_MODULES = {
    f"{HAND}.hand_designed": HAND,
    f"{HAND}.adafactor": "learned_opt.optimizers.rules.adafactor",
    f"{HAND}.adagrad": "learned_opt.optimizers.rules.adagrad",
    f"{HAND}.adam": "learned_opt.optimizers.rules.adam",
    f"{HAND}.lion": "learned_opt.optimizers.rules.lion",
    f"{HAND}.matrix": "learned_opt.optimizers.rules.matrix",
    f"{HAND}.schedule_free": "learned_opt.optimizers.rules.schedule_free",
    f"{HAND}.sgd": "learned_opt.optimizers.rules.sgd",
    f"{HAND}.soap": "learned_opt.optimizers.rules.soap",
    f"{HAND}.torch_optim": "learned_opt.optimizers.rules.torch_optim",
    f"{HAND}.trust_ratio": "learned_opt.optimizers.rules.trust_ratio",
}


def fingerprint(unroll: Unroll, constructor: Callable[..., Any], horizon: int) -> dict[str, Any]:
    """What tuning runs depend on: task, optimizer without its learning rate, horizon.

    A family's description leaves some things out (the sizes of a network, say), so the shapes of
    its parameters and the loss at a random point of them, to four digits, are part of it.

    Args:
        unroll: the inner loop of the optimizer.
        constructor: of the optimizer, a class or ``functools.partial`` of one.
        horizon: inner steps.

    Raises:
        ValueError: the constructor holds something that has no description.
    """
    chains = unroll.start([KEY])
    task = tree.tree_map(lambda leaf: leaf[0], chains["task"])
    params = tree.tree_map(lambda leaf: leaf[0], chains["params"])
    batches = unroll.batches([KEY], chains, 1)
    batch = tree.tree_map(lambda leaf: leaf[0, 0], batches)

    # away from the start, where symmetries of initial weights could hide a difference
    source = generator(*KEY, "point")
    point = {}
    for name, param in params.items():
        point[name] = param + 0.1 * torch.randn(param.shape, generator=source).to(param)

    with torch.no_grad():
        loss = unroll.family.loss(point, batch, task).item()

    return {
        "task": unroll.family.describe(),
        "shapes": {name: list(param.shape) for name, param in params.items()},
        "loss": f"{loss:.3e}",
        "optimizer": describe(constructor),
        "horizon": horizon,
        "final_window": FINAL_WINDOW,
        "precision": unroll.precision,
    }


def describe(value: Any) -> Any:
    """What a constructor and its arguments are, as JSON values.

    A learning rate at the top is left out.

    Raises:
        ValueError: a part has no name that another process would find it by, and is no plain
            value.
    """
    if isinstance(value, partial):
        keywords = {name: part for name, part in value.keywords.items() if name != "lr"}
        return {
            "call": describe(value.func),
            "args": describe(value.args),
            **describe(keywords),
        }

    if is_dataclass(value) and not isinstance(value, type):
        attributes = {field.name: getattr(value, field.name) for field in fields(value)}
        return {"call": describe(type(value)), **describe(attributes)}

    if isinstance(value, Mapping):
        return {str(name): describe(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [describe(part) for part in value]

    if value is None or isinstance(value, bool | int | float | str):
        return value
    return _name(value)


def _name(value: Any) -> str:
    """Where a class or function is found, e.g. ``package.module.Class``."""
    name = getattr(value, "__qualname__", "<")
    if "<" in name:  # defined inside of a function
        raise ValueError(
            f"an archive of tuning runs needs an optimizer that it can name, got {value!r}."
        )

    module = ARCHIVED_MODULES.get(value.__module__, value.__module__)
    return f"{module}.{name}"
