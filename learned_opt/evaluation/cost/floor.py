"""The bare work of an inner step: its products and its memory traffic, and nothing else.

Legend: M chains, N weights of an inner network, C channels.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from learned_opt.core import tree
from learned_opt.core.compiled import Compiled
from learned_opt.core.tree import Tree
from learned_opt.inner.unroll import Unroll
from learned_opt.unf.fused import pointwise_stack

aten = torch.ops.aten
FACTORS = {  # positions of the two matrices among the arguments
    aten.mm: (0, 1),
    aten.bmm: (0, 1),
    aten.addmm: (1, 2),
    aten.baddbmm: (1, 2),
}
TRIES = 5
LARGEST_BLOCK = 2**26  # numbers in the buffers of a product; larger ones go piece by piece
SMALLEST_SHARE = 0.01  # of the arithmetic; smaller products cost little but the call
Shape = tuple[int, int, int]  # M, C_in, C_out


class Floor:
    """The floor of one inner step of all chains, as a call that makes several of them.

    It adds up three things: loss and gradient of the inner network, compiled by themselves;
    every matrix product that the meta-optimizer makes, on buffers of the same shapes; and one
    read and one write of everything that a chain carries from step to step.

    Products with matrices of equal sizes are merged into one over all tensors of the inner
    network, in as many blocks of chains as are fastest (small ones stay in the cache, as features
    between layers can). Draws, normalisation, activations and reductions are free. The products
    are those of the library (``torch.bmm``); a kernel made for one size can be faster than these.

    Args:
        unroll: task and meta-optimizer.
        theta: meta-parameters.
        num_chains: M.
        num_steps: inner steps of one call.
    """

    def __init__(self, unroll: Unroll, theta: Tree, num_chains: int, num_steps: int) -> None:
        self.num_steps = num_steps
        self.device = unroll.device

        keys = [("floor", i) for i in range(num_chains)]
        self.chains = unroll.start(keys)
        batches = unroll.batches(keys, self.chains, 1)
        self.batch = tree.tree_map(lambda leaf: leaf[0], batches)

        network = vmap(grad_and_value(unroll.family.loss))
        self._network = Compiled(network)
        gradients, losses = network(self.chains["params"], self.batch, self.chains["task"])
        self.products = matrix_products(unroll, theta, self.chains, gradients, losses)
        self._blocks = [self._fastest(shape, rows) for shape, rows in self.products.items()]

        carried = tree.leaves(self.chains["params"]) + tree.leaves(self.chains["opt_state"])
        num_bytes = sum(leaf.nbytes for leaf in carried)
        self._source = torch.zeros(num_bytes, dtype=torch.uint8, device=self.device)
        self._target = torch.zeros_like(self._source)

    @torch.no_grad()
    def __call__(self, number: int) -> None:
        """Do the bare work of ``num_steps`` inner steps."""
        del number  # all rounds are alike
        for _ in range(self.num_steps):
            self._network(self.chains["params"], self.batch, self.chains["task"])
            for block in self._blocks:
                block()
            self._target.copy_(self._source)  # the traffic of what chains carry
        self._wait()

    def _fastest(self, shape: Shape, rows: int) -> Callable[[], None]:
        """The product in the number of blocks that was fastest, in powers of two."""
        chains, inner, outer = shape
        blocks = []
        for power in range(chains.bit_length()):
            count = 2**power
            if chains % count == 0:
                size = (chains // count, rows, inner, outer)
                blocks.append(_product(*size, count=count, device=self.device))

        for block in blocks:
            block()  # warms up

        seconds = {block: self._least_seconds(block) for block in blocks}
        return min(blocks, key=seconds.__getitem__)

    def _least_seconds(self, call: Callable[[], None]) -> float:
        """The shortest of a few calls."""
        seconds = []
        for _ in range(TRIES):
            self._wait()
            start = time.perf_counter()
            call()
            self._wait()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _product(
    chains: int, rows: int, inner: int, outer: int, *, count: int, device: torch.device
) -> Callable[[], None]:
    """``(chains, rows, inner) @ (chains, inner, outer)``, ``count`` times on the same buffers.

    The rows of a large product are taken in pieces, so that its buffers leave memory to the step.
    """
    numbers = chains * rows * (inner + outer)
    pieces = math.ceil(numbers / LARGEST_BLOCK)
    piece = math.ceil(rows / pieces)
    left = torch.zeros((chains, piece, inner), device=device)
    right = torch.zeros((chains, inner, outer), device=device)
    out = torch.zeros((chains, piece, outer), device=device)

    def multiply() -> None:
        for _ in range(count * pieces):
            torch.bmm(left, right, out=out)

    return multiply


@torch.no_grad()
def matrix_products(
    unroll: Unroll, theta: Tree, chains: Tree, gradients: Tree, losses: Tensor
) -> dict[Shape, int]:
    """The products of one step of the meta-optimizer, those of equal sizes merged.

    Args:
        unroll: holds the meta-optimizer.
        theta: meta-parameters.
        chains: M chains.
        gradients: of the inner parameters.
        losses: ``(M,)``.

    Returns:
        dict[Shape, int]: ``(M, C_in, C_out) -> rows``.
    """

    def step(theta: Tree, gradient: Tree, chain: Tree, loss: Tensor) -> Any:
        arguments = [gradient, chain["opt_state"], chain["params"], loss]
        if unroll.optimizer.needs_factors:
            arguments.append({})  # products of factors are no part of the floor
        return functional_call(unroll.optimizer, theta, tuple(arguments))

    # a chain has a theta of its own, as in ES
    many = tree.contiguous(tree.expand(theta, len(losses)))
    with _Products() as products:
        vmap(step)(many, gradients, chains, losses)

    work = {}
    for shape, rows in products.rows.items():
        num_chains, inner, outer = shape
        work[shape] = rows * num_chains * inner * outer

    least = SMALLEST_SHARE * sum(work.values())
    return {shape: rows for shape, rows in products.rows.items() if work[shape] > least}


class _Products(TorchDispatchMode):
    """Notes the shapes of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: Counter[Shape] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func.overloadpacket in FACTORS:
            left, right = FACTORS[func.overloadpacket]
            self._note(args[left], args[right])
        elif func is pointwise_stack._opoverload:
            inputs, weights = args[:2]
            for features in inputs:
                for weight in weights:
                    self._note(features, weight)

        return func(*args, **(kwargs or {}))

    def _note(self, left: Tensor, right: Tensor) -> None:
        """One product of ``([M,] rows, *)`` and ``([M,] C_in, C_out)``."""
        chains = left.shape[0] if left.ndim == 3 else 1
        self.rows[chains, right.shape[-2], right.shape[-1]] += left.shape[-2]
