"""Inner steps of several chains with and without the kernels of forward steps."""

import torch
from torch.func import functional_call, vmap

from learned_opt.core import tree
from learned_opt.core.forward_only import forward_only
from learned_opt.symmetry import PermutationSpec

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-13}  # of the largest entry of a tensor
SPEC = PermutationSpec(
    {
        "weight": ("out", "in"),
        "bias": ("out",),
        "scale": (),
        "square": ("out", "out"),
        "kernel": ("one", "in", "out"),
        "merged": ("head", "size", "in"),
    },
    views={"merged": ((3, 2), (70,))},
)
SHAPES = {
    "weight": (60, 70),
    "bias": (60,),
    "scale": (),
    "square": (60, 60),
    "kernel": (1, 70, 60),
    "merged": (6, 70),
}


def step(optimizer, chains: int = 3, *, fused: bool, steps: int = 2, transposed: bool = False):
    """Updates and state of several chains, each with a theta of its own."""
    source = torch.Generator().manual_seed(0)
    dtype = next(optimizer.parameters()).dtype

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(chains, *shape, generator=source, dtype=torch.float64).to(dtype)

    shapes = {name: optimizer.shapes[name] for name in optimizer.spec.parameters}
    theta = {}
    for name, leaf in optimizer.named_parameters():
        theta[name] = leaf.detach() + 0.1 * draw(*leaf.shape)
    params = {name: draw(*shape) for name, shape in shapes.items()}
    grads = {name: draw(*shape) for name, shape in shapes.items()}
    if transposed:
        for tensors in (params, grads):
            for name, tensor in tensors.items():
                tensors[name] = tensor.transpose(1, -1).contiguous().transpose(1, -1)

    state = tree.stack([optimizer.init_state(tree.tree_map(lambda p: p[0], params))] * chains)
    loss = torch.tensor(1.0, dtype=dtype)

    def of_chain(theta, grads, state, params):
        return functional_call(optimizer, theta, (grads, state, params, loss))

    updates = {}
    for _ in range(steps):
        with forward_only(fused):
            updates, state = vmap(of_chain)(theta, grads, state, params)
    return updates, state


def check_equal(left, right, tolerance: float) -> None:
    for a, b in zip(tree.leaves(left), tree.leaves(right), strict=True):
        assert a.shape == b.shape
        scale = a.abs().max().item() if a.numel() else 0.0
        torch.testing.assert_close(b, a, rtol=0, atol=tolerance * scale)
