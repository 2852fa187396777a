"""The submission to AlgoPerf on a stand-in workload with the documented signatures."""

import sys
from enum import Enum
from types import ModuleType

import pytest
import torch
from torch import nn

from examples.algoperf import submission


class Modes(Enum):
    TRAIN = 0
    EVAL = 1


class Workload:
    """What a submission may use of a workload."""

    step_hint = 40

    def model_fn(
        self,
        params,
        augmented_and_preprocessed_input_batch,
        model_state,
        mode,
        rng,
        update_batch_norm,
        dropout_rate=0.0,
    ):
        assert mode is Modes.TRAIN
        assert update_batch_norm
        return params(augmented_and_preprocessed_input_batch["inputs"]), model_state

    def loss_fn(self, label_batch, logits_batch, mask_batch=None, label_smoothing=0.0):
        losses = nn.functional.cross_entropy(logits_batch, label_batch, reduction="none")
        count = len(losses)
        if mask_batch is not None:
            losses = losses * mask_batch
            count = mask_batch.sum()
        return {"summed": losses.sum(), "n_valid_examples": count, "per_example": losses}


def queue():
    source = torch.Generator().manual_seed(0)
    while True:
        targets = torch.randint(3, (16,), generator=source)
        inputs = torch.nn.functional.one_hot(targets, 6).float()
        yield {"inputs": inputs, "targets": targets, "weights": torch.ones(16)}


def train(num_steps: int, state=None, model=None, batches=None):
    workload = Workload()
    if model is None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    state = state or submission.init_optimizer_state(workload, model, None, None, None)
    batches = batches or queue()
    losses = []
    for step in range(num_steps):
        batch = submission.data_selection(workload, batches, state, model, None, None, step, None)
        with torch.no_grad():
            losses.append(nn.functional.cross_entropy(model(batch["inputs"]), batch["targets"]))
        arguments = (workload, model, None, None, None, batch, None, state, [], step, None)
        state, model, model_state = submission.update_params(*arguments)
        assert model_state is None
    arguments = (workload, model, None, None, None, None, state, [], num_steps, None)
    assert submission.prepare_for_eval(*arguments) == (state, model, None)
    return [loss.item() for loss in losses], state, model


@pytest.fixture(autouse=True)
def algoperf(monkeypatch) -> None:
    spec = ModuleType("algoperf.spec")
    spec.ForwardPassMode = Modes
    monkeypatch.setitem(sys.modules, "algoperf", ModuleType("algoperf"))
    monkeypatch.setitem(sys.modules, "algoperf.spec", spec)


def test_it_trains_and_goes_on_from_its_checkpoint() -> None:
    batches = queue()
    losses, state, model = train(30, batches=batches)
    assert losses[-1] < 0.6 * losses[0]

    saved = state["optimizer"].state_dict()
    torch.manual_seed(1)
    copy = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    copy.load_state_dict(model.state_dict())
    fresh = submission.init_optimizer_state(Workload(), copy, None, None, None)
    fresh["optimizer"].load_state_dict(saved)
    more, _, _ = train(3, state, model, queue())
    again, _, _ = train(3, fresh, copy, queue())
    assert more == again


def test_an_example_that_is_masked_counts_nothing() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([1.0, 1.0, 0.0, 1.0])
    losses = Workload().loss_fn(torch.tensor([0, 1, 2, 0]), logits, mask)
    expected = nn.functional.cross_entropy(logits[[0, 1, 3]], torch.tensor([0, 1, 0]))
    assert submission._mean_loss(losses).item() == pytest.approx(expected.item())


def test_batch_sizes() -> None:
    assert submission.get_batch_size("wmt") == 128
    with pytest.raises(ValueError, match=r"workload_name must be one of criteo1tb.*got 'chess'"):
        submission.get_batch_size("chess")
