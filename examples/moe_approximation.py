"""Mixtures of experts that approximate a function to an error that is known beforehand.

    python -m examples.moe_approximation --eps 0.1 --inputs 2

Put your own function in ``waves`` and its bounds in ``SLOPE`` and ``CURVATURE``. It prints how
many experts are needed and how many parameters one input uses, and the largest error that was
measured beside the one that was promised. Each input goes to the expert whose prototype is
nearest, so that the parameters in use do not grow with the number of experts.

Source: the model of Kratsios et al. 2024 (arXiv 2402.03460); these counts of experts are ours.
"""

import argparse
from math import pi

import torch
from torch import Tensor

from tasks.networks.moe import NearestPrototypeMoE
from tasks.networks.moe_approximation import fit_lipschitz, fit_smooth

SLOPE = pi  # largest norm of the gradient of ``waves``
CURVATURE = pi**2  # largest spectral norm of its Hessian


def waves(inputs: Tensor) -> Tensor:
    """The function to approximate, ``(B, n) -> (B, 1)``."""
    return torch.sin(pi * inputs).prod(-1, keepdim=True)


@torch.no_grad()
def largest_error(mixture: NearestPrototypeMoE, num_points: int) -> float:
    """Largest error at random points of [0, 1]^n; the largest of all points may be above it."""
    source = torch.Generator().manual_seed(0)
    points = torch.rand(num_points, mixture.in_features, generator=source)
    return (mixture(points) - waves(points)).abs().max().item()


def main(words: list[str] | None = None) -> None:
    """Fit constant and affine experts, and print their sizes and errors."""
    parser = argparse.ArgumentParser(description="Mixtures of experts with a promised error")
    parser.add_argument("--eps", type=float, default=0.1, help="promised error")
    parser.add_argument("--inputs", type=int, default=2, help="dimension of the function")
    parser.add_argument("--tree", type=int, help="arity of a routing tree; default: compare all")
    parser.add_argument("--points", type=int, default=20_000, help="points to measure at")
    arguments = parser.parse_args(words)

    eps = arguments.eps
    dims = arguments.inputs
    mixtures = {
        "constant": fit_lipschitz(waves, eps, dims, SLOPE, tree_arity=arguments.tree),
        "affine": fit_smooth(waves, eps, dims, CURVATURE, tree_arity=arguments.tree),
    }

    print(f"{'experts':<10}{'number':>8}{'in use':>8}{'stored':>9}{'promised':>10}{'measured':>10}")
    for name, mixture in mixtures.items():
        stored = sum(parameter.numel() for parameter in mixture.parameters())
        sizes = f"{mixture.num_experts:8}{mixture.active_parameters:8}{stored:9}"
        errors = f"{eps:10.4f}{largest_error(mixture, arguments.points):10.4f}"
        print(f"{name:<10}{sizes}{errors}")


if __name__ == "__main__":
    main()
