"""What a step of a deployed optimizer costs, against ``torch.optim.AdamW`` and against a plain loop over tensors."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from learned_opt.deploy.optimizer import LearnedOptimizer
from learned_opt.evaluation.cost.layer_costs import peak_bytes
from learned_opt.evaluation.cost.timing import Times, interleave
from learned_opt.optimizers.features import MOMENTUM_DECAYS, ema, time_features
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.reporting import tables
from learned_opt.symmetry.infer import infer_permutation_spec
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.layers import Pointwise

NO_SPEC = PermutationSpec({"any": ("entry",)})  # pointwise optimizers move to any weight space
REFERENCE = "AdamW foreach"
Make = Callable[[dict[str, nn.Parameter]], torch.optim.Optimizer]
RIVALS: dict[str, Make] = {
    REFERENCE: lambda params: torch.optim.AdamW(params.values(), lr=1e-3, foreach=True),
    "AdamW fused": lambda params: torch.optim.AdamW(params.values(), lr=1e-3, fused=True),
}
HEADINGS = ("network", "optimizer", "theta", "ms", "/ AdamW", "/ loop", "state B", "temp B")
NOTES = """\
ms: processor time of a step on one thread, median of interleaved rounds, random gradients. loop: the same learned
optimizer as plain PyTorch, tensor by tensor, where it is pointwise; exact: LearnedOptimizer as it is, fused: with
fused=True. Bytes of each parameter: state that is kept, and the most that other tensors made in a step held at once
(no buffers in kernels)."""


class PlainLoop(torch.optim.Optimizer):
    """A pointwise ``UNFOptimizer`` as one would first write it: tensor by tensor, all features, then layer by layer.

    Args:
        params: parameters.
        meta_optimizer: with pointwise layers and joint normalisation.
    """

    def __init__(self, params: Iterable[nn.Parameter], meta_optimizer: UNFOptimizer) -> None:
        super().__init__(params, {})
        self.meta_optimizer = meta_optimizer.requires_grad_(False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step, equal to that of ``LearnedOptimizer`` to rounding."""
        meta = self.meta_optimizer
        layers = [cast(Pointwise, layer) for layer in meta.function.layers]
        for param in (param for group in self.param_groups for param in group["params"]):
            state = self.state[param]
            if not state:
                state["step"], state["momentum"] = (
                    torch.zeros((), dtype=torch.int64),
                    torch.zeros_like(param),
                )
                state["momenta"] = [torch.zeros_like(param) for _ in MOMENTUM_DECAYS]
            state["momenta"] = [
                ema(m, param.grad, d)
                for m, d in zip(state["momenta"], MOMENTUM_DECAYS, strict=True)
            ]
            channels = torch.stack([param, param.grad, *state["momenta"]], -1).clamp(-1, 1)
            channels = channels * torch.rsqrt(1e-5 + channels.square().mean())
            times = time_features(state["step"], param.dtype).expand(*param.shape, -1)
            hidden = torch.cat([channels, times], -1)
            for i, layer in enumerate(layers):
                hidden = (hidden.relu() if i else hidden) @ layer.weight + layer.affine()[1]
            state["momentum"] = ema(state["momentum"], param.grad, meta.logit_gamma.sigmoid())
            param.sub_(
                meta.log_alpha.exp()
                * (state["momentum"] + meta.log_beta.exp() * hidden.squeeze(-1))
            )
            state["step"] = state["step"] + 1


class Step:
    """One step of an optimizer on parameters of its own, as a call for the timer."""

    def __init__(self, shapes: Mapping[str, torch.Size], make: Make) -> None:
        source = torch.Generator().manual_seed(0)
        params = {
            name: nn.Parameter(0.05 * torch.randn(shape, generator=source))
            for name, shape in shapes.items()
        }
        for param in params.values():
            param.grad = 1e-3 * torch.randn(param.shape, generator=source)
        self.optimizer, self.num_params = (
            make(params),
            sum(shape.numel() for shape in shapes.values()),
        )

    def __call__(self, number: int = 0) -> None:
        """Take it."""
        self.optimizer.step()

    def state_bytes(self) -> float:
        """Bytes of state for each parameter."""
        kept = [
            leaf for leaf in tree_leaves(dict(self.optimizer.state)) if isinstance(leaf, Tensor)
        ]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept) / self.num_params

    def temporary_bytes(self) -> float:
        """Bytes for each parameter that a step holds beside the state."""
        return peak_bytes(self) / self.num_params


def measure(
    networks: Mapping[str, tuple[nn.Module, Tensor]],
    learned: Mapping[str, Callable[..., UNFOptimizer]],
    repeats: int,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Rows of the table, network by network.

    Args:
        networks: by name, each with an input; only shapes count.
        learned: constructors of pointwise optimizers, or of others that fit every weight space, by name.
        repeats: timed rounds, in which AdamW and the ways to run one learned optimizer take turns.
        say: called with a line on what is being done.

    Yields:
        dict: the figures, with the keys of HEADINGS.

    Raises:
        ValueError: ``repeats`` is not positive, or an optimizer is pointwise without joint normalisation, or fits but
            one weight space.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}.")
    torch.manual_seed(0)
    optimizers = {name: make(NO_SPEC) for name, make in learned.items()}
    for name, optimizer in optimizers.items():
        if optimizer.separable and optimizer.normalisation != "joint":
            raise ValueError(
                f"learned.{name} is pointwise, so that it must have joint normalisation."
            )
    for network, (module, example) in networks.items():
        shapes = {key: param.shape for key, param in module.named_parameters()}
        label = f"{network}, {sum(shape.numel() for shape in shapes.values()) / 1e6:.2f}M in {len(shapes)} tensors"
        spec = infer_permutation_spec(module, example)
        for number, (name, optimizer) in enumerate(optimizers.items()):
            makes = {
                **RIVALS,
                **{f"{name} {way}": make for way, make in _ways(optimizer, spec).items()},
            }
            steps = {key: Step(shapes, make) for key, make in makes.items()}
            times: dict[Any, Times] = {}
            interleave(
                steps,
                repeats,
                times,
                lambda text, network=network: say(f"{network}, {text}"),
                time.process_time,
            )
            ms = {key: 1e3 * (times[key].typical or 0.0) for key in steps}
            for key in [key for key in steps if key not in RIVALS or number == 0]:
                yield {
                    "network": label,
                    "optimizer": key,
                    "theta": 0 if key in RIVALS else sum(p.numel() for p in optimizer.parameters()),
                    "ms": ms[key],
                    "/ AdamW": ms[key] / ms[REFERENCE],
                    "/ loop": ms[key] / ms[f"{name} loop"]
                    if optimizer.separable and key not in RIVALS
                    else None,
                    "state B": steps[key].state_bytes(),
                    "temp B": steps[key].temporary_bytes(),
                }


def _ways(optimizer: UNFOptimizer, spec: PermutationSpec) -> dict[str, Make]:
    if not optimizer.separable:
        bound = optimizer.rebind(spec)
        return {"exact": lambda params: LearnedOptimizer(params.items(), bound)}
    return {
        "fused": lambda params: LearnedOptimizer(params.values(), optimizer, fused=True),
        "exact": lambda params: LearnedOptimizer(params.values(), optimizer),
        "loop": lambda params: PlainLoop(params.values(), optimizer),
    }


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """A row as people read it."""
    digits = {
        "theta": ",.0f",
        "ms": ".3g" if row["ms"] < 1000 else ",.0f",
        "/ AdamW": ".2f",
        "/ loop": ".3f",
    }
    digits |= dict.fromkeys(("state B", "temp B"), ".1f")
    cells = {heading: row[heading] for heading in HEADINGS}
    return {
        h: "-" if not v and h in ("theta", "/ loop") else format(v, digits.get(h, ""))
        for h, v in cells.items()
    }


def write(folder: Path, rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> None:
    """Write ``deployed.json`` and ``deployed.md``."""
    tables.write_json(folder / "deployed.json", {**facts, "rows": rows})
    page = tables.markdown_table(HEADINGS, (shown(row).values() for row in rows))
    text = "\n".join(f"{name}: {value}  " for name, value in facts.items())
    (folder / "deployed.md").write_text(
        f"# Cost of deployed optimizers\n\n{page}\n\n{NOTES}\n\n{text}\n"
    )
