"""The learned optimizer of the UNF paper: a nominal optimizer plus an equivariant function of the features."""

from collections.abc import Callable, Mapping
from math import log
from typing import Self

import torch
from torch import Tensor, nn

from learned_opt.core.tree import Tree, tree_map
from learned_opt.optimizers import features
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.optimizers.fused import momentum_step
from learned_opt.optimizers.nominal import Momentum, Nominal
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import with_modules
from learned_opt.unf.layers import Pointwise, UNFLinear
from learned_opt.unf.stack import UNF


class UNFOptimizer(MetaOptimizer):
    """``update = -alpha (m + beta f(params, grads, momenta, time))``, m the momentum with decay gamma.

    alpha, beta and gamma are part of theta, as log alpha, log beta and logit gamma. beta = 0 is SGDM bit for bit.
    f is a stack of ``num_layers`` layers with ReLU: ``trunk`` layers and one ``head``. Pointwise trunk and UNF head is
    the paper's hybrid (DS-DS-DS-UNF); UNF for both is the all-UNF optimizer; pointwise for both is Deep Set; an
    NFN head is the paper's other baseline.

    Args:
        spec: permutation spec of the inner parameters.
        trunk: constructor ``(spec, in_channels, out_channels)`` of the first layers.
        head: constructor of the last layer.
        num_layers: layers of f.
        channels: width of f.
        alpha: step size at the start, in units of parameters per unit of momentum.
        beta: weight of f at the start; 0 makes the optimizer SGDM for good, since log beta is learned.
        gamma: decay of the nominal momentum at the start.
        normalisation: ``joint`` or ``channel``, see ``features.tensor_features``.
        fixed_axes: ``permute``, ``encode`` or ``fold``, see ``unf.fixed``.
        nominal: constructor of the hand-designed part; the paper's, as above, or another of ``nominal``, which puts its
            own formula in the place of ``m + beta f``.

    Source: Zhou et al. 2024 (arXiv 2402.05232), section 4.3; the nominal momentum is an average (decay g, weight 1 - g)
    as in the authors' code.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        trunk: Callable[..., nn.Module] = Pointwise,
        head: Callable[..., nn.Module] = UNFLinear,
        num_layers: int = 4,
        channels: int = 32,
        alpha: float = 0.1,
        beta: float = 1e-3,
        gamma: float = 0.9,
        normalisation: str = "joint",
        fixed_axes: str = "permute",
        nominal: Callable[[], Nominal] = Momentum,
    ) -> None:
        super().__init__(spec)
        _check(
            alpha=alpha, beta=beta, gamma=gamma, num_layers=num_layers, normalisation=normalisation
        )
        self.nominal = nominal()
        num_features = features.NUM_FEATURES + self.nominal.num_features
        widths = (num_features, *[channels] * (num_layers - 1), self.nominal.num_outputs)
        self.function = UNF(spec, widths, trunk, head, fixed_axes=fixed_axes)
        self.separable = self.function.pointwise
        self.normalisation = normalisation
        self.log_alpha = nn.Parameter(torch.tensor(log(alpha)))
        self.log_beta = nn.Parameter(torch.tensor(log(beta) if beta > 0 else -torch.inf))
        self.logit_gamma = nn.Parameter(torch.tensor(log(gamma / (1 - gamma))))

    def init_state(self, params: Tree) -> Tree:
        """Zero momenta and step."""
        return {
            "step": torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device),
            **self.nominal.init_state(params),
            "momenta": features.init_momenta(params),
        }

    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        """One inner step, see ``MetaOptimizer.forward``."""
        del loss
        gamma, alpha, beta = self.logit_gamma.sigmoid(), self.log_alpha.exp(), self.log_beta.exp()
        momenta, step = features.update_momenta(state["momenta"], grads), state["step"] + 1
        moved = self.nominal.advance(grads, state, gamma)
        direction = self.nominal.direction(moved, step, gamma)
        others = [direction] if self.nominal.num_features else []
        inputs = features.tensor_features(params, grads, momenta, self.normalisation, *others)
        time = features.time_features(state["step"], self.log_alpha.dtype)
        outputs = self.spec.unview(self.function(self.spec.view(inputs), time))
        updates = tree_map(
            lambda d, f, p: -alpha * self.nominal.update(d, f, p, step, beta),
            direction,
            outputs,
            params,
        )
        return updates, {"step": step, **moved, "momenta": momenta}

    def step_(
        self, grads: Tree, state: Tree, params: Tree, rates: Mapping[str, tuple[float, float]]
    ) -> bool:
        """See ``MetaOptimizer.step_``; for pointwise layers with the paper's nominal part, on the CPU."""
        if not self.separable or not isinstance(self.nominal, Momentum):
            return False
        weights, biases = self.function.affine(
            features.time_features(state["step"], self.log_alpha.dtype)
        )
        return momentum_step(
            list(params.values()),
            [grads[name] for name in params],
            [state["momentum"][name] for name in params],
            [state["momenta"][name] for name in params],
            weights,
            biases,
            (
                self.log_alpha.exp().item(),
                self.log_beta.exp().item(),
                self.logit_gamma.sigmoid().item(),
            ),
            self.normalisation == "joint",
            [rates[name] for name in params],
        )

    def rebind(self, spec: PermutationSpec) -> Self:
        """The same theta on another spec, possible when no layer holds coefficients of its own spec."""
        if spec == self.spec and spec.fixed_sizes == self.spec.fixed_sizes:
            return self._on(spec)
        if not self.function.fits_every_spec:
            raise ValueError(
                "theta of this optimizer belongs to one weight space; it cannot move to another spec."
            )
        return with_modules(self._on(spec), function=self.function.rebind(spec))


def _check(*, alpha: float, beta: float, gamma: float, num_layers: int, normalisation: str) -> None:
    if alpha <= 0:
        raise ValueError(f"alpha must be positive, got {alpha}.")
    if beta < 0:
        raise ValueError(f"beta must not be negative, got {beta}.")
    if not 0 < gamma < 1:
        raise ValueError(f"gamma must lie between 0 and 1, got {gamma}.")
    if num_layers < 1:
        raise ValueError(f"num_layers must be at least 1, got {num_layers}.")
    if normalisation not in features.NORMALISATIONS:
        raise ValueError(
            f"normalisation must be one of {features.NORMALISATIONS}, got {normalisation!r}."
        )
