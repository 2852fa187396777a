"""A learned optimizer in the training loops of other libraries."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as checkpoints
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, StochasticWeightAveraging
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import SWALR, AveragedModel
from torch.utils.data import DataLoader

from learned_opt import LearnedOptimizer
from learned_opt.optimizers.hand.references import make_adam
from tests.deploy.test_learned_optimizer import DATA, SPEC, equal, model, train

LIGHTNING = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "accelerator": "cpu",
    "max_epochs": 1,
}
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*", "ignore:.*pin_memory.*"
)


class WithLoss(nn.Module):
    """Returns its loss, as Trainer of Hugging Face wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = model()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.network(x) - labels).square().mean()}


def hugging_face(folder: Path, network: WithLoss, **options: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    arguments = transformers.TrainingArguments(
        folder,
        max_steps=4,
        save_steps=2,
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = [{"x": row, "labels": row[:3]} for row in DATA]
    return transformers.Trainer(network, arguments, train_dataset=rows, **options)


def test_trainer_of_hugging_face_trains_and_resumes(tmp_path) -> None:
    def trainer() -> tuple[Any, WithLoss]:
        network = WithLoss()
        optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network)
        return hugging_face(tmp_path, network, optimizers=(optimizer, None)), network

    whole, network = trainer()
    whole.train()
    assert whole.optimizer.param_groups[0]["lr"] == 0  # of its schedule, which falls from 1
    again, resumed = trainer()
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert equal(list(network.parameters()), list(resumed.parameters()))
    assert not equal(list(network.parameters()), list(WithLoss().parameters()))


def test_trainer_of_hugging_face_constructs_it(tmp_path) -> None:
    network = WithLoss()
    theta = LearnedOptimizer.from_pretrained("unf-transfer", network).meta_optimizer
    options = {"meta_optimizer": theta, "lr": 0.5, "module": network}
    trainer = hugging_face(tmp_path, network, optimizer_cls_and_kwargs=(LearnedOptimizer, options))
    optimizer = trainer.create_optimizer()
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["network.0.weight", "network.2.weight"],
        ["network.0.bias", "network.2.bias"],
    ]
    trainer.train()
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {4}


def test_in_accelerate_with_accumulation(tmp_path) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    network = model()
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    prepared = accelerator.prepare(network, optimizer, DataLoader(DATA, 4), schedule)
    network, wrapped, loader, schedule = prepared
    for batch in loader:
        with accelerator.accumulate(network):
            accelerator.backward(network(batch).square().mean())
            wrapped.step()
            schedule.step()
            wrapped.zero_grad()
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}
    accelerator.save_state(tmp_path)
    before = copy.deepcopy(list(network.parameters()))
    train(network, optimizer, 1)
    accelerator.load_state(tmp_path)
    assert equal(before, list(network.parameters()))
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}


class Module(LightningModule):
    """The smallest training that Lightning runs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = model()

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        dtype = self.network[0].weight.dtype
        return self.network(batch.to(dtype)).float().square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [param for param in self.parameters() if param.requires_grad]
        return LearnedOptimizer.from_pretrained("unf-transfer", self, params=trained)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_in_lightning_with_accumulation(precision, tmp_path) -> None:
    module = Module()
    trainer = Trainer(
        precision=precision, accumulate_grad_batches=2, default_root_dir=tmp_path, **LIGHTNING
    )
    trainer.fit(module, DataLoader(DATA, batch_size=4))
    states = list(trainer.optimizers[0].state.values())
    assert {int(state["step"]) for state in states} == {2}
    assert {state["momentum"].dtype for state in states} == {torch.float32}


class Thaw(BaseFinetuning):
    """Freezes the first layer and adds it in the second epoch."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.network[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.network[0], optimizer)


def test_layers_are_thawed_by_lightning(tmp_path) -> None:
    module = Module()
    options = {**LIGHTNING, "max_epochs": 2}
    trainer = Trainer(callbacks=[Thaw()], default_root_dir=tmp_path, **options)
    trainer.fit(module, DataLoader(DATA, batch_size=8))
    optimizer = trainer.optimizers[0]
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.1]
    assert optimizer.param_groups[1]["param_names"] == ["network.0.weight", "network.0.bias"]
    assert sorted(int(state["step"]) for state in optimizer.state.values()) == [2, 2, 4, 4]


def test_an_average_of_weights_is_kept_beside_it() -> None:
    network = model()
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network)
    averaged = AveragedModel(network)
    schedule = SWALR(optimizer, swa_lr=0.1, anneal_epochs=2)
    passed = []
    for _ in range(4):
        passed.append(train(network, optimizer, 1))
        averaged.update_parameters(network)
        schedule.step()

    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    for number, param in enumerate(averaged.module.parameters()):
        mean = torch.stack([params[number] for params in passed]).mean(0)
        torch.testing.assert_close(param, mean)


def test_lightning_averages_weights(tmp_path) -> None:
    module = Module()
    options = {**LIGHTNING, "max_epochs": 4}
    average = StochasticWeightAveraging(swa_lrs=0.1, swa_epoch_start=2, annealing_epochs=1)
    trainer = Trainer(callbacks=[average], default_root_dir=tmp_path, **options)
    trainer.fit(module, DataLoader(DATA, batch_size=8))
    optimizer = trainer.optimizers[0]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    assert {int(state["step"]) for state in optimizer.state.values()} == {8}


def test_one_cycle_with_its_defaults_and_without_recompiling() -> None:
    """The momentum that it cycles is not read; a compiled step does not depend on the rate."""
    network = model()
    optimizer = LearnedOptimizer(network, make_adam(SPEC, lr=0.1), compile=True)
    schedule = OneCycleLR(optimizer, max_lr=1.0, total_steps=5)
    rates = []
    for _ in range(4):
        train(network, optimizer, 1)
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    spaces = optimizer._weight_spaces()._spaces.values()
    assert [len(space.step.graphs) for space in spaces] == [1]


def test_a_compiled_step_is_the_step() -> None:
    sides = []
    for wrap in (lambda step: step, lambda step: torch.compile(step, backend="eager")):
        network = model()
        optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network)
        step = wrap(optimizer.step)
        for _ in range(2):
            optimizer.zero_grad()
            network(DATA).square().mean().backward()
            step()
        sides.append(list(network.parameters()))
    assert equal(*sides)


def test_a_distributed_checkpoint_of_one_process_with_an_idle_parameter(tmp_path) -> None:
    """It is read into the tensors of a fresh state, which must not be shared by parameters."""

    def side() -> tuple[nn.Sequential, LearnedOptimizer]:
        network = model()
        network.idle = nn.Parameter(torch.ones(2))
        return network, LearnedOptimizer.from_pretrained("unf-transfer", network)

    def train_without(network: nn.Sequential, optimizer: LearnedOptimizer) -> None:
        optimizer.zero_grad()
        network[:3](DATA).square().mean().backward()
        optimizer.step()

    network, optimizer = side()
    train_without(network, optimizer)
    train_without(network, optimizer)
    saved = get_optimizer_state_dict(network, optimizer)
    checkpoints.save(saved, checkpoint_id=tmp_path)
    twin, resumed = side()
    twin.load_state_dict(network.state_dict())
    loaded = get_optimizer_state_dict(twin, resumed)
    checkpoints.load(loaded, checkpoint_id=tmp_path)
    set_optimizer_state_dict(twin, resumed, loaded)
    assert "idle" in saved["state"]
    assert twin.idle not in resumed.state
    train_without(network, optimizer)
    train_without(twin, resumed)
    assert equal(list(network.parameters()), list(twin.parameters()))
