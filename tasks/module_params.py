"""Initial weights of any module, drawn anew for every chain by the module's code."""

import copy
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from tasks.base import Params

RESETS = ("reset_parameters", "_reset_parameters")  # attention and Transformer have the second
LARGE = 64  # entries of a tensor whose deviation is known well enough to compare
RATIO = 1.5  # of two deviations that are one scheme of initialisation

log = logging.getLogger(__name__)

ModuleSource = nn.Module | Callable[[], nn.Module]


class InitialParams:
    """Draws the initial parameters of a module; those that need no gradient are constants.

    Of a constructor every draw is a new module. Of a module that stands already, a copy is reset:
    its layers' ``reset_parameters``, inner layers first. What no layer resets stays as it is.

    Args:
        source: a constructor without arguments, or a module, which is copied and never changed.

    Attributes:
        module: a module of these parameters, apart from all draws.

    Raises:
        ValueError: it is neither, it cannot be constructed or copied, it has no parameters to
            train, or these are complex, without a size yet, or not on the CPU.

    >>> initial = InitialParams(lambda: nn.Linear(2, 3))
    >>> first = initial.draw(torch.Generator().manual_seed(0))
    >>> again = initial.draw(torch.Generator().manual_seed(0))
    >>> torch.equal(first["weight"], again["weight"])
    True
    """

    def __init__(self, source: ModuleSource) -> None:
        # nobody else changes a copy
        self.source = _copied(source) if isinstance(source, nn.Module) else source
        with seeded(0):
            self.module = self._copy()

        check_params(self.module)
        if isinstance(source, nn.Module):
            self._tell_what_stays(source)
        else:
            self._check_construction()

    def draw(self, generator: torch.Generator) -> Params:
        """Fresh parameters on the CPU, in the order of ``named_parameters()``.

        Args:
            generator: CPU generator; torch's global one is left as it is.

        Raises:
            ValueError: a constructor returns another module than before.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        with seeded(seed):
            module = self._copy()
            if isinstance(self.source, nn.Module):
                module.apply(_reset)

        params = _trained(module)
        for name, parameter in _trained(self.module).items():
            if name not in params or params[name].shape != parameter.shape:
                raise ValueError(
                    f"module must have the same parameters whenever it is constructed, but "
                    f"{name!r} of shape {tuple(parameter.shape)} was not there again."
                )
        return {name: parameter.detach().clone() for name, parameter in params.items()}

    def _copy(self) -> nn.Module:
        """A module that nobody else has."""
        if isinstance(self.source, nn.Module):
            return _copied(self.source)
        return _constructed(self.source)

    def _check_construction(self) -> None:
        """Refuse a constructor that hands out the same layers again."""
        with seeded(0):
            other = _trained(self._copy())
        for name, parameter in _trained(self.module).items():
            if other.get(name) is parameter:
                raise ValueError(
                    f"module must be a constructor that makes new layers whenever it is called, "
                    f"but {name!r} is the same parameter again; hand in the module itself, or "
                    "make its layers inside of the constructor."
                )

    def _tell_what_stays(self, source: nn.Module) -> None:
        """Log which parameters do not start as the module's author means them to."""
        kind = type(source).__name__
        advice = f"hand in a constructor, as functools.partial({kind}, ...), to draw them anew"

        blank = _copied(source)
        with torch.no_grad():
            for parameter in _trained(blank).values():
                parameter.fill_(torch.nan)
        with seeded(0):
            blank.apply(_reset)

        kept = []
        rescaled = []
        original = _trained(source)
        for name, parameter in _trained(blank).items():
            if parameter.isnan().any():
                kept.append(name)
            elif _differ_in_scale(parameter, original[name]):
                rescaled.append(name)

        if kept:
            log.warning(
                "module %s: no layer resets %s, which every chain starts with as they are; %s",
                kind,
                ", ".join(kept),
                advice,
            )
        if rescaled:
            log.warning(
                "module %s: reset_parameters of its layers draws %s from another distribution than "
                "they came with; %s",
                kind,
                ", ".join(rescaled),
                advice,
            )


def check_params(module: nn.Module) -> None:
    """Refuse parameters and buffers that inner training cannot hold.

    Raises:
        ValueError: names the parameter, and says what to do.
    """
    kind = type(module).__name__
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"parameter {name!r} of module {kind} has no size yet; give its layer all sizes, "
                "as Linear in the place of LazyLinear."
            )

    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_complex():
            raise ValueError(
                f"{name!r} of module {kind} must be real, got {tensor.dtype}; keep real and "
                "imaginary parts as two tensors."
            )
        if tensor.device.type != "cpu":
            raise ValueError(
                f"module must be on the cpu, from where it is moved to the device of the run, but "
                f"{name!r} of {kind} is on {tensor.device}; use module.cpu()."
            )

    if not _trained(module):
        raise ValueError(f"module {kind} has no parameter with requires_grad, so nothing to train.")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All global generators of random numbers start from a seed, and are then what they were."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    named = module.named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def _constructed(constructor: Callable[[], nn.Module]) -> nn.Module:
    name = getattr(constructor, "__name__", repr(constructor))
    if not callable(constructor):
        raise ValueError(
            f"module must be an nn.Module or a constructor of one, got {constructor!r}."
        )

    try:
        module = constructor()
    except TypeError as error:
        raise ValueError(
            f"module {name} must be constructed without arguments ({error}); give them by "
            f"functools.partial({name}, ...)."
        ) from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"module {name} must return an nn.Module, got {type(module).__name__}.")
    return module


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        kind = type(module).__name__
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"module {kind} cannot be copied ({reason}); hand in a constructor, as "
            f"functools.partial({kind}, ...)."
        ) from error


def _reset(layer: nn.Module) -> None:
    for name in RESETS:
        reset = getattr(layer, name, None)
        if callable(reset):
            reset()
            return


def _differ_in_scale(left: Tensor, right: Tensor) -> bool:
    if left.numel() < LARGE or not left.is_floating_point():
        return False
    deviations = left.detach().std(), right.detach().std()
    return bool(max(deviations) > RATIO * min(deviations))
