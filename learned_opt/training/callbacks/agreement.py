"""Ranks must hold the same theta to the last bit; a difference would make estimates worthless."""

import hashlib
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from learned_opt.estimators.share import Share


class RanksDisagree(RuntimeError):
    """The ranks of a run are not of one run any more."""


class Agreement(Callback):
    """Compares theta and the outer step of all ranks at the start and every so many outer steps.

    Args:
        every: outer steps between two comparisons.

    Raises:
        ValueError: it is not positive.
        RanksDisagree: they differ; raised on all ranks.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}.")
        self.every = every

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        compare(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            compare(trainer, pl_module)


def compare(trainer: Trainer, module: LightningModule) -> None:
    """Compare the digests of all ranks.

    Raises:
        RanksDisagree: they differ.
    """
    share = Share(trainer.global_rank, trainer.world_size)
    if share.num_ranks == 1:
        return

    digests = torch.zeros(share.num_ranks, dtype=torch.int64, device=module.device)
    digests[share.rank] = digest(module, trainer.global_step)
    of_ranks = share.total(digests).tolist()

    if len(set(of_ranks)) > 1:
        values = ", ".join(f"rank {rank} has {value:016x}" for rank, value in enumerate(of_ranks))
        raise RanksDisagree(
            f"the ranks differ in theta at outer step {trainer.global_step}: {values}."
        )


def digest(module: LightningModule, step: int) -> int:
    """63 bits that depend on every bit of the parameters and on the outer step."""
    sums = hashlib.sha256(str(step).encode())
    for name, parameter in module.named_parameters():
        flat = parameter.detach().cpu().reshape(-1).contiguous()
        sums.update(name.encode())
        sums.update(flat.view(torch.uint8).numpy().tobytes())
    return int.from_bytes(sums.digest()[:8], "big") >> 1
