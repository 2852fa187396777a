"""What a step of a deployed optimizer costs.

It is measured against ``torch.optim.AdamW`` and against a plain loop over tensors.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from learned_opt.deploy.optimizer import LearnedOptimizer
from learned_opt.evaluation.cost.layer_costs import peak_live_bytes
from learned_opt.evaluation.cost.plain_loop import PlainLoop
from learned_opt.evaluation.cost.timing import Progress, Times, interleave, prefixed
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.infer import infer_permutation_spec
from learned_opt.symmetry.spec import PermutationSpec

NO_SPEC = PermutationSpec({"any": ("entry",)})  # pointwise optimizers move to any weight space
NUM_STEPS = 1000  # of the training, for optimizers that must know
REFERENCE = "AdamW foreach"
Make = Callable[[dict[str, nn.Parameter]], torch.optim.Optimizer]
RIVALS: dict[str, Make] = {
    REFERENCE: lambda params: torch.optim.AdamW(params.values(), lr=1e-3, foreach=True),
    "AdamW fused": lambda params: torch.optim.AdamW(params.values(), lr=1e-3, fused=True),
}


class DeployedStep:
    """One step of an optimizer on parameters of its own, as a call for the timer.

    Args:
        shapes: of the parameters, by name.
        make: constructor of the optimizer from parameters by name.
    """

    def __init__(self, shapes: Mapping[str, torch.Size], make: Make) -> None:
        source = torch.Generator().manual_seed(0)
        params = {}
        for name, shape in shapes.items():
            params[name] = nn.Parameter(0.05 * torch.randn(shape, generator=source))

        for param in params.values():
            param.grad = 1e-3 * torch.randn(param.shape, generator=source)

        self.optimizer = make(params)
        self.num_params = _num_params(shapes)

    def __call__(self, number: int = 0) -> None:
        """Make one step of the optimizer."""
        if isinstance(self.optimizer, LearnedOptimizer):
            self.optimizer.step(loss=1.0)
        else:
            self.optimizer.step()

    def state_bytes(self) -> float:
        """Bytes of state for each parameter."""
        total = 0
        for leaf in tree_leaves(dict(self.optimizer.state)):
            if isinstance(leaf, Tensor):
                total += leaf.numel() * leaf.element_size()
        return total / self.num_params

    def temporary_bytes(self) -> float:
        """Bytes for each parameter that a step holds beside the state."""
        return peak_live_bytes(self) / self.num_params


def measure(
    networks: Mapping[str, tuple[nn.Module, Tensor]],
    learned: Mapping[str, Callable[..., Any]],
    repeats: int,
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """Rows of the table, network by network.

    Args:
        networks: by name, each with an input; only shapes count.
        learned: by name, constructors ``(spec)`` of meta-optimizers: pointwise ones as
            ``PlainLoop`` takes them, or others that fit every weight space.
        repeats: timed rounds, in which AdamW and the ways to run one learned optimizer take
            turns.
        progress: gets a line on the work that begins.

    Yields:
        dict: the figures by the headings of ``reporting.deployed_report``.

    Raises:
        ValueError: ``repeats`` is not positive, or an optimizer is pointwise without joint
            normalisation, or fits but one weight space.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}.")

    torch.manual_seed(0)
    optimizers = {}
    for name, make in learned.items():
        optimizers[name] = make(NO_SPEC).with_num_steps(NUM_STEPS)
    for name, optimizer in optimizers.items():
        if _has_kernel(optimizer) and optimizer.separable and optimizer.normalisation != "joint":
            raise ValueError(
                f"learned[{name}] is pointwise, so that it must have joint normalisation, "
                f"got {optimizer.normalisation!r}."
            )

    for network, (module, example) in networks.items():
        shapes = {key: param.shape for key, param in module.named_parameters()}
        spec = infer_permutation_spec(module, example)
        for number, (name, optimizer) in enumerate(optimizers.items()):
            of_network = prefixed(progress, network)
            rows = _rows(shapes, name, optimizer, spec, repeats, of_network)
            for row in rows:
                if row["optimizer"] in RIVALS and number > 0:
                    continue  # they have a row already
                yield {"network": _label(network, shapes), **row}


def _rows(
    shapes: Mapping[str, torch.Size],
    name: str,
    optimizer: Any,
    spec: PermutationSpec,
    repeats: int,
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """Figures of the rivals, and of all ways to run one learned optimizer."""
    makes = dict(RIVALS)
    for way, make in _ways(optimizer, spec).items():
        makes[f"{name} {way}"] = make

    steps = {key: DeployedStep(shapes, make) for key, make in makes.items()}
    times: dict[Any, Times] = {}
    # processor time: what other programs do in between does not count
    interleave(steps, repeats, times, progress, time.process_time)

    ms = {key: 1e3 * (times[key].typical or 0.0) for key in steps}
    num_theta = sum(p.numel() for p in optimizer.parameters())
    for key, step in steps.items():
        is_rival = key in RIVALS
        has_loop = f"{name} loop" in makes and not is_rival
        yield {
            "optimizer": key,
            "theta": 0 if is_rival else num_theta,
            "ms": ms[key],
            "/ AdamW": ms[key] / ms[REFERENCE],
            "/ loop": ms[key] / ms[f"{name} loop"] if has_loop else None,
            "state B": step.state_bytes(),
            "temp B": step.temporary_bytes(),
        }


def _ways(optimizer: Any, spec: PermutationSpec) -> dict[str, Make]:
    """The ways to run one learned optimizer."""
    if not optimizer.separable:
        bound = optimizer.rebind(spec)
        return {"default": lambda params: LearnedOptimizer(params.items(), bound)}
    if not _has_kernel(optimizer):
        return {"default": lambda params: LearnedOptimizer(params.values(), optimizer)}
    return {
        "fused": lambda params: LearnedOptimizer(params.values(), optimizer, fused=True),
        "default": lambda params: LearnedOptimizer(params.values(), optimizer),
        "loop": lambda params: PlainLoop(params.values(), optimizer),
    }


def _has_kernel(optimizer: MetaOptimizer) -> bool:
    """Whether a step in place is written for its class."""
    return type(optimizer).step_ is not MetaOptimizer.step_


def _label(network: str, shapes: Mapping[str, torch.Size]) -> str:
    return f"{network}, {_num_params(shapes) / 1e6:.2f}M in {len(shapes)} tensors"


def _num_params(shapes: Mapping[str, torch.Size]) -> int:
    return sum(shape.numel() for shape in shapes.values())
