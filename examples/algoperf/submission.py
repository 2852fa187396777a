"""A submission to AlgoPerf (PyTorch, self-tuning) that trains with a learned optimizer.

The five functions of its API and ``prepare_for_eval``; choose the optimizer by ``OPTIMIZER`` and
``WEIGHTS``. Tested against a stand-in workload, NOT on the benchmark itself.

Source: github.com/mlcommons/algorithmic-efficiency, version 0.6, its documentation of submissions.
"""

import importlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.nn import functional as across_ranks

from learned_opt import LearnedOptimizer
from learned_opt.deploy.inputs import unwrap

OPTIMIZER = "unf-transfer"  # packaged name, folder or hub id; or celo, celo_adam, velo
WEIGHTS: str | None = None  # the authors' file, of the last three

# examples of a step, over all devices
BATCH_SIZES = {
    "criteo1tb": 262_144,
    "fastmri": 32,
    "imagenet_resnet": 1024,
    "imagenet_vit": 1024,
    "librispeech_conformer": 256,
    "librispeech_deepspeech": 256,
    "ogbg": 512,
    "wmt": 128,
    "mnist": 16,
}


class LateOptimizer:
    """A learned optimizer that is made at the first step.

    Its permutation spec is inferred from what the model reads, which is not known before.

    Args:
        model: what it trains.
        num_steps: steps of the whole training.
    """

    def __init__(self, model: nn.Module, num_steps: int) -> None:
        self.model = model
        self.num_steps = num_steps
        self.optimizer: torch.optim.Optimizer | None = None
        self.saved: dict[str, Any] | None = None
        self.inputs: tuple[Tensor, ...] | None = None
        self.hook = unwrap(model).register_forward_pre_hook(self._see)

    def _see(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Keep what the model reads, where it is tensors alone."""
        if all(isinstance(value, Tensor) for value in inputs):
            self.inputs = tuple(value.detach() for value in inputs)
        self.hook.remove()

    def made(self) -> torch.optim.Optimizer:
        """The optimizer; the model must have run.

        Raises:
            ValueError: it does not fit the model.
        """
        if self.optimizer is None:
            options = {"weights": WEIGHTS, "num_steps": self.num_steps}
            self.optimizer = LearnedOptimizer.from_pretrained(
                OPTIMIZER, self.model, self.inputs, **options
            )
            if self.saved is not None:
                self.optimizer.load_state_dict(self.saved)
        return self.optimizer

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return self.optimizer.state_dict() if self.optimizer else self.saved or {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.saved = state or None
        if self.optimizer and self.saved:
            self.optimizer.load_state_dict(self.saved)


def get_batch_size(workload_name: str) -> int:
    """Examples of a step.

    Raises:
        ValueError: the workload is none of the benchmark.
    """
    if workload_name not in BATCH_SIZES:
        choices = ", ".join(BATCH_SIZES)
        raise ValueError(f"workload_name must be one of {choices}, got {workload_name!r}.")
    return BATCH_SIZES[workload_name]


def init_optimizer_state(
    workload: Any, model_params: nn.Module, model_state: Any, hyperparameters: Any, rng: Any
) -> dict[str, LateOptimizer]:
    """The state that all other functions get."""
    return {"optimizer": LateOptimizer(model_params, workload.step_hint)}


def update_params(
    workload: Any,
    current_param_container: nn.Module,
    current_params_types: Any,
    model_state: Any,
    hyperparameters: Any,
    batch: dict[str, Tensor],
    loss_type: Any,
    optimizer_state: dict[str, LateOptimizer],
    eval_results: list[tuple[int, float]],
    global_step: int,
    rng: Any,
    train_state: dict[str, Any] | None = None,
) -> tuple[dict[str, LateOptimizer], nn.Module, Any]:
    """One step."""
    modes = importlib.import_module("algoperf.spec").ForwardPassMode  # the benchmark's package
    model = current_param_container
    model.train()
    logits, new_model_state = workload.model_fn(
        model, batch, model_state, modes.TRAIN, rng, update_batch_norm=True
    )
    loss = _mean_loss(workload.loss_fn(batch["targets"], logits, batch.get("weights")))

    optimizer = optimizer_state["optimizer"].made()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step(loss.detach)  # some learned optimizers read it
    return optimizer_state, model, new_model_state


def _mean_loss(losses: dict[str, Any]) -> Tensor:
    """Mean over the examples of all ranks."""
    summed = losses["summed"]
    count = torch.as_tensor(losses["n_valid_examples"], device=summed.device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # gradients go through it; DDP then takes their mean over ranks
        summed = across_ranks.all_reduce(summed)
        count = across_ranks.all_reduce(count)
    return summed / count


def prepare_for_eval(
    workload: Any,
    current_param_container: nn.Module,
    current_params_types: Any,
    model_state: Any,
    hyperparameters: Any,
    loss_type: Any,
    optimizer_state: dict[str, LateOptimizer],
    eval_results: list[tuple[int, float]],
    global_step: int,
    rng: Any,
) -> tuple[dict[str, LateOptimizer], nn.Module, Any]:
    """Nothing: the weights that are trained are those that are evaluated."""
    return optimizer_state, current_param_container, model_state


def data_selection(
    workload: Any,
    input_queue: Iterator[dict[str, Tensor]],
    optimizer_state: dict[str, LateOptimizer],
    current_param_container: nn.Module,
    model_state: Any,
    hyperparameters: Any,
    global_step: int,
    rng: Any,
) -> dict[str, Tensor]:
    """The next batch."""
    return next(input_queue)
