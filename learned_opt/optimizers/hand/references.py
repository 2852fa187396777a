"""The two optimizers that everything else is compared with, and those of torch, for Python code.

Configs name a rule and ``HandDesigned`` instead, see ``configs/meta_optimizer``.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from learned_opt.optimizers.hand.adam import Adam
from learned_opt.optimizers.hand.hand_designed import HandDesigned
from learned_opt.optimizers.hand.sgd import Momentum
from learned_opt.optimizers.hand.torch_optim import TorchOptim
from learned_opt.symmetry.spec import PermutationSpec


def make_sgdm(spec: PermutationSpec, lr: float = 0.1, gamma: float = 0.9) -> HandDesigned:
    """SGD with momentum on a weight space.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        lr: learning rate; 1 / (1 - gamma) times that of ``torch.optim.SGD`` gives the same steps.
        gamma: decay of the momentum.

    Returns:
        HandDesigned: the optimizer, whose rule is ``hand.sgd.Momentum``.

    >>> from learned_opt.symmetry import PermutationSpec
    >>> optimizer = make_sgdm(PermutationSpec({"w": ("row", "column")}), lr=1.0)
    >>> sorted(name for name, _ in optimizer.named_parameters())
    ['log_lr', 'rule.logit_gamma']
    """
    return HandDesigned(spec, partial(Momentum, gamma), lr)


def make_adam(
    spec: PermutationSpec,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> HandDesigned:
    """Adam on a weight space.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        lr: learning rate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.

    Returns:
        HandDesigned: the optimizer, whose rule is ``hand.adam.Adam``.
    """
    return HandDesigned(spec, partial(Adam, beta1, beta2, eps), lr)


def make_torch(
    spec: PermutationSpec, path: str, lr: float = 1e-3, settings: Mapping[str, Any] | None = None
) -> HandDesigned:
    """A class of ``torch.optim`` on a weight space; its chains run one after another.

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        path: the class, e.g. ``torch.optim.Adamax``.
        lr: learning rate.
        settings: its arguments but for the learning rate; plain values.

    Returns:
        HandDesigned: the optimizer, whose rule is ``hand.torch_optim.TorchOptim``.

    Raises:
        ValueError: it cannot be used as a rule.
    """
    return HandDesigned(spec, partial(TorchOptim, path, settings), lr)
