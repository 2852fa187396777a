"""A mixture of experts that is larger than the memory that it needs.

    python -m examples.moe_on_disk --experts 1000 --keep 10

It saves a mixture, runs it once whole and once with no more than ``--keep`` experts in memory, each
in a process of its own, and prints the peak memory of both and the largest difference of their
outputs. Peaks are read from ``/proc``, so that it runs on Linux only.

Source: the claim of Kratsios et al. 2024 (arXiv 2402.03460) that only the expert in use need be
loaded; how it is read from disk is ours.
"""

import argparse
import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
import torch

from tasks.networks.moe import NearestPrototypeMoE
from tasks.networks.moe_loading import load_moe, save_moe

INPUTS = 16


def peak_bytes() -> int:
    """Most memory that this process has had so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no line VmHWM.")


@torch.no_grad()
def run(path: Path, load: str, keep: int, num_batches: int) -> tuple[np.ndarray, int]:
    """Outputs of a saved mixture, and by how many bytes it raised the peak of this process."""
    source = torch.Generator().manual_seed(0)
    before = peak_bytes()
    mixture = load_moe(path, load, max_active=keep).eval()

    outputs = []
    for _ in range(num_batches):
        inputs = torch.randn(64, INPUTS, generator=source)
        outputs.append(mixture(inputs))
    return torch.cat(outputs).numpy(), peak_bytes() - before


def run_apart(*arguments: object) -> tuple[np.ndarray, int]:
    """``run`` in a fresh process, whose peak knows of nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run, arguments)


def main(words: list[str] | None = None) -> None:
    """Save a mixture, run it in both ways and print peaks and difference."""
    parser = argparse.ArgumentParser(description="A mixture with its experts on disk")
    parser.add_argument("--experts", type=int, default=1000, help="experts of the mixture")
    parser.add_argument("--width", type=int, default=256, help="hidden units and outputs of each")
    parser.add_argument("--keep", type=int, default=10, help="experts kept in memory")
    parser.add_argument("--batches", type=int, default=20, help="batches of 64 inputs")
    arguments = parser.parse_args(words)

    width = arguments.width
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixture.safetensors"
        mixture = NearestPrototypeMoE(INPUTS, width, arguments.experts, depth=2, width=width)
        save_moe(mixture, path)
        print(f"{arguments.experts} experts on disk: {path.stat().st_size:,} bytes")

        whole, whole_peak = run_apart(path, "all", arguments.keep, arguments.batches)
        kept, kept_peak = run_apart(path, "active", arguments.keep, arguments.batches)

    print(f"peak with all experts: {whole_peak:,} bytes")
    print(f"peak with {arguments.keep} experts kept: {kept_peak:,} bytes")
    print(f"largest difference of outputs: {np.abs(whole - kept).max():.1e}")


if __name__ == "__main__":
    main()
