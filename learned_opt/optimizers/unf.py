"""The learned optimizer of the UNF paper: a nominal optimizer plus an equivariant function."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map
from learned_opt.optimizers import features
from learned_opt.optimizers.base import (
    MetaOptimizer,
    check_at_least_one,
    init_num_steps,
    init_step,
)
from learned_opt.optimizers.features import NO_FEATURES, Features, JoinedFeatures, Reading
from learned_opt.optimizers.fused import momentum_step
from learned_opt.optimizers.fused_equivariant import fused_for
from learned_opt.optimizers.hand.base import log_parameter, logit_parameter
from learned_opt.optimizers.nominal import Momentum, Nominal
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import with_modules
from learned_opt.unf.layers import Pointwise, UNFLinear
from learned_opt.unf.stack import UNF


class UNFOptimizer(MetaOptimizer):
    """``update = -alpha (m + beta f(params, grads, momenta, time))``, m the nominal momentum.

    alpha, beta and the decay gamma of m are part of theta, as log alpha, log beta and logit gamma.
    beta = 0 is SGD with momentum bit for bit. f is a stack of ``num_layers`` layers with ReLU:
    ``trunk`` layers and one ``head``. Pointwise trunk and UNF head is the paper's hybrid
    (DS-DS-DS-UNF); UNF for both is the all-UNF optimizer; pointwise for both is Deep Set; an NFN
    head is the paper's other baseline.

    Args:
        spec: permutation spec of the inner parameters.
        trunk: constructor ``(spec, in_channels, out_channels)`` of the first layers.
        head: constructor of the last layer.
        num_layers: layers of f.
        channels: width of f.
        alpha: step size at the start, in units of parameters per unit of momentum.
        beta: weight of f at the start; 0 leaves f out for good, since log beta is learned.
        gamma: decay of the nominal momentum at the start.
        normalisation: ``joint`` or ``channel``, see ``features.tensor_features``.
        fixed_axes: ``permute``, ``encode`` or ``fold``, see ``unf.fixed``.
        nominal: constructor of the hand-designed part; the paper's, as above, or another of
            ``nominal``, which puts its own formula in the place of ``m + beta f``.
        extra_features: name -> constructor of what f reads beside the paper's inputs.
        falls_linearly: steps fall along a line to zero at the end of the training, where its length
            is known (``num_steps``), in the place of what the nominal part does without. The line
            begins at its ``share_of_line``.

    Raises:
        ValueError: a value is out of its range, ``normalisation`` is none of the two, or
            ``falls_linearly`` neither true nor false.

    Source: Zhou et al. 2024 (arXiv 2402.05232), section 4.3; the nominal momentum is an average
    (decay g, weight 1 - g) as in the authors' code.

    >>> from learned_opt.symmetry import PermutationSpec
    >>> spec = PermutationSpec({"weight": ("output", "input"), "bias": ("output",)})
    >>> optimizer = UNFOptimizer(spec, channels=8)
    >>> params = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    >>> updates, state = optimizer(params, optimizer.init_state(params), params, torch.tensor(1.0))
    >>> updates["weight"].shape
    torch.Size([3, 2])
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
        extra_features: Mapping[str, Callable[[], Features]] = NO_FEATURES,
        falls_linearly: bool = False,
    ) -> None:
        super().__init__(spec)
        check_at_least_one(num_layers=num_layers, channels=channels)
        if beta < 0:
            raise ValueError(f"beta must not be negative, got {beta}.")
        if normalisation not in features.NORMALISATIONS:
            raise ValueError(
                f"normalisation must be one of {', '.join(features.NORMALISATIONS)}, "
                f"got {normalisation!r}."
            )

        if falls_linearly not in (True, False):
            raise ValueError(f"falls_linearly must be true or false, got {falls_linearly!r}.")

        self.is_silent = False  # whether f is zero everywhere, see simplified
        self.reads_num_steps = falls_linearly
        self.nominal = nominal()
        self.update_scale = self.nominal.update_scale
        self.extra = JoinedFeatures(extra_features) if extra_features else None
        num_features = features.NUM_FEATURES + self.nominal.num_features
        if self.extra is not None:
            num_features += self.extra.num_channels
            self.factor_needs = self.extra.factor_needs
        widths = (num_features, *[channels] * (num_layers - 1), self.nominal.num_outputs)
        self.function = UNF(spec, widths, trunk, head, fixed_axes=fixed_axes)
        self.separable = self.function.pointwise
        if self.extra is not None:
            self.separable &= self.extra.separable
        self.normalisation = normalisation
        self.log_alpha = log_parameter("alpha", alpha)
        if beta:  # log beta is learned, and that of 0 stays where it is
            self.log_beta = log_parameter("beta", beta)
        else:
            self.log_beta = nn.Parameter(torch.tensor(-torch.inf))
        self.logit_gamma = logit_parameter("gamma", gamma)

    @override
    def init_state(self, params: Tree) -> Tree:
        step = init_step(params)
        state = {
            "step": step,
            **self.nominal.init_state(params, self.spec),
        }
        if not self.is_silent:
            state["momenta"] = features.init_momenta(params)
            if self.extra is not None:
                state["extra"] = self.extra.init_state(params)
        if self.num_steps is not None:
            state["num_steps"] = init_num_steps(self, step)
        return state

    @override
    def forward(
        self, grads: Tree, state: Tree, params: Tree, loss: Tensor, factors: Any = None
    ) -> tuple[Tree, Tree]:
        del loss
        gamma = self.logit_gamma.sigmoid()
        alpha = self.log_alpha.exp()
        beta = self.log_beta.exp()
        step = state["step"] + 1

        directions, nominal_state = self.nominal.advance(grads, state, step, gamma, self.spec)
        outputs, learned_state = None, {}
        if not self.is_silent:
            outputs, learned_state = self._learned(grads, state, directions, params, factors)

        # in the order of init_state: a state of another order would be compiled for anew
        next_state = {"step": step, **nominal_state, **learned_state}
        if "num_steps" in state:
            next_state["num_steps"] = state["num_steps"]
            left = (1 - state["step"] / state["num_steps"]).clamp_min(0)
            share = left * self.nominal.share_of_line(state["num_steps"])
        else:
            share = self.nominal.share(step)

        steps = self.nominal.updates(directions, outputs, params, nominal_state, beta)
        size = -alpha * share
        return tree_map(lambda towards: towards * size, steps), next_state

    def _learned(
        self, grads: Tree, state: Tree, directions: Tree, params: Tree, factors: Any
    ) -> tuple[Tree, Tree]:
        """The outputs of f, ``(*shape, num_outputs)``, and what it remembers."""
        # a direction in units of its tensor is of order one already
        others = [directions] if self.nominal.num_features else []
        more, extra = None, {}
        if self.extra is not None:
            reading = Reading(grads, params, state["step"] + 1, factors, self.spec)
            more, extra["extra"] = self.extra(reading, state["extra"])

        time = features.time_features(state["step"], self.log_alpha.dtype)
        kind = features.NORMALISATIONS[self.normalisation]
        fused = fused_for(self.function, self.spec, kind, time, params)
        if fused is not None:
            outputs, momenta = fused(grads, state["momenta"], others, more)
        else:
            momenta = features.update_momenta(state["momenta"], grads)
            inputs = features.tensor_features(params, grads, momenta, self.normalisation, *others)
            if more is not None:
                inputs = features.join(inputs, more)
            # views split axes that the spec knows as several, e.g. the heads of an attention
            outputs = self.spec.unview(self.function(self.spec.view(inputs), time))
        return outputs, {"momenta": momenta, **extra}

    @override
    def step_(
        self, grads: Tree, state: Tree, params: Tree, rates: Mapping[str, tuple[float, float]]
    ) -> bool:
        # the kernel knows pointwise layers on the paper's inputs and nominal part, on the CPU
        is_paper = isinstance(self.nominal, Momentum) and self.extra is None
        if self.is_silent or not self.separable or not is_paper:
            return False

        time = features.time_features(state["step"], self.log_alpha.dtype)
        weights, biases = self.function.affine(time)
        alpha = self.log_alpha.exp().item()
        beta = self.log_beta.exp().item()
        gamma = self.logit_gamma.sigmoid().item()
        return momentum_step(
            list(params.values()),
            [grads[name] for name in params],
            [state["momentum"][name] for name in params],
            [state["momenta"][name] for name in params],
            weights,
            biases,
            (alpha, beta, gamma),
            features.NORMALISATIONS[self.normalisation],
            [rates[name] for name in params],
        )

    @override
    def rebind(self, spec: PermutationSpec) -> Self:
        if spec == self.spec and spec.fixed_sizes == self.spec.fixed_sizes:
            return super().rebind(spec)
        if not self.function.fits_every_spec:
            raise ValueError(
                "theta of this optimizer belongs to one weight space; "
                "it cannot move to another spec."
            )
        return with_modules(super().rebind(spec), function=self.function.rebind(spec))

    @override
    def simplified(self) -> Self:
        other = with_modules(self, function=self.function.simplified())
        if self.is_silent or self.function.is_silent or not self.log_beta.exp():
            other.is_silent = True
            other.factor_needs = frozenset()
            other.separable = True
            return other

        other.separable = other.function.separable
        if self.extra is not None:
            other.separable &= self.extra.separable
        return other

    @override
    def part(self, parameters: Collection[str]) -> Self:
        part = self.spec.part(parameters)
        other = with_modules(self, function=self.function.part(part))
        other.spec = part
        return other

    @override
    def rules(self, params: Tree) -> dict[str, str]:
        rules = {}
        for name, param in params.items():
            rules[name] = self.nominal.rule(name, param.ndim, self.spec)
        return rules

    @override
    def with_rules(self, rules: Mapping[str, str]) -> Self:
        if not rules:
            return self
        return with_modules(self, nominal=self.nominal.with_rules(rules))
