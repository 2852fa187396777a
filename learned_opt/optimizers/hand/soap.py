"""Adam in the eigenbasis of Shampoo's preconditioner."""

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.optimizers.features import ema
from learned_opt.optimizers.hand.adam import Moments
from learned_opt.optimizers.hand.base import Rule, RuleState, StepInfo, log_parameter, root
from learned_opt.optimizers.linear_algebra import eigenvectors


class SOAP(Rule):
    """Adam on gradients turned into the eigenvectors of averages of ``g g^T``, one basis per axis.

    Vectors get Adam. The first step only finds the basis and moves nothing. From then on one round
    of power iteration (a product and a QR decomposition) follows the averages at every step, not at
    every tenth, since chains side by side may stand at different steps; for the same reason the
    first step's eigenvectors are computed at every step. The meta-gradient takes bases as
    constants.

    Args:
        beta1: decay of the momentum, which is kept unturned.
        beta2: decay of the second moment, which is kept turned, and of the averages.
        eps: added to the root of the second moment.
        largest: longest axis that has a basis; longer ones stay as they are.

    Source: Vyas et al. 2024 (arXiv 2409.11321), algorithm 3, with the order of steps of the
    authors' code and f = 1. ``pytorch_optimizer.SOAP`` makes the same steps with
    ``precondition_frequency=1, weight_decay=0``; its defaults are 10 and 0.01. Decay is an argument
    of ``HandDesigned``.
    """

    def __init__(
        self, beta1: float = 0.95, beta2: float = 0.95, eps: float = 1e-8, largest: int = 1024
    ) -> None:
        super().__init__()
        self.moments = Moments(beta1, beta2)
        self.log_eps = log_parameter("eps", eps)
        self.largest = largest

    @override
    def init_state(self, param: Tensor) -> RuleState:
        state = self.moments.init_state(param)
        for axis in self._turned_axes(param):
            basis = torch.eye(param.shape[axis], dtype=param.dtype, device=param.device)
            state[f"average{axis}"] = torch.zeros_like(basis)
            state[f"basis{axis}"] = basis
        return state

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        axes = self._turned_axes(param)
        bases = {axis: state[f"basis{axis}"] for axis in axes}
        is_first = info.step == 1
        num_updates = (info.step - 1).clamp_min(1)
        beta1 = self.moments.beta1
        beta2 = self.moments.beta2

        momentum = ema(state["first"], grad, beta1)
        second = ema(state["second"], _turn(grad, bases).square(), beta2)  # in the old bases
        scale = (1 - beta2**num_updates).sqrt() / (1 - beta1**num_updates)
        turned = _turn(momentum, bases) / (root(second) + self.log_eps.exp())
        bases_back = {axis: basis.mT for axis, basis in bases.items()}
        update = -info.lr * scale * _turn(turned, bases_back)

        # the first step finds the bases and nothing else
        update = torch.where(is_first, 0.0, update)
        momentum = torch.where(is_first, 0.0, momentum)
        second = torch.where(is_first, 0.0, second)

        following = {"first": momentum, "second": second}
        for axis in axes:
            unfolded = grad.movedim(axis, 0).flatten(1)
            average = ema(state[f"average{axis}"], unfolded @ unfolded.mT, beta2)
            basis, order = next_basis(average.detach(), bases[axis])
            basis = torch.where(is_first, eigenvectors(average.detach()), basis)
            following[f"average{axis}"] = average
            following[f"basis{axis}"] = basis
            # entries of the second moment follow the eigenvectors that they belong to
            following["second"] = following["second"].index_select(axis, order)

        return update, following

    def _turned_axes(self, param: Tensor) -> list[int]:
        """The axes that have a basis: those of matrices and up that are not too long."""
        if param.ndim < 2:
            return []
        return [axis for axis, size in enumerate(param.shape) if size <= self.largest]


def next_basis(average: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """One round of power iteration.

    Args:
        average: symmetric ``(n, n)``.
        basis: orthogonal ``(n, n)``, its columns near eigenvectors.

    Returns:
        tuple[Tensor, Tensor]: an orthogonal matrix nearer to the eigenvectors, the largest
        eigenvalue first, and which column of ``basis`` each of its columns comes from.
    """
    product = average @ basis
    order = (basis * product).sum(0).argsort(descending=True)
    return torch.linalg.qr(product.index_select(1, order)).Q, order


def _turn(tensor: Tensor, bases: dict[int, Tensor]) -> Tensor:
    """Write a tensor in the bases of its axes."""
    for axis, basis in bases.items():
        tensor = (tensor.movedim(axis, -1) @ basis).movedim(-1, axis)
    return tensor
