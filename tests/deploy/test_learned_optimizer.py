"""LearnedOptimizer: the steps of meta-training, under every habit of a PyTorch training loop."""

import copy
import pickle
from functools import partial

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn

from learned_opt import LearnedOptimizer
from learned_opt.core import tree
from learned_opt.optimizers.hand.hand_designed import HandDesigned
from learned_opt.optimizers.hand.sgd import Momentum
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec, infer_permutation_spec
from learned_opt.unf import Pointwise
from tests.cases import OPTIMIZERS

SPEC = PermutationSpec({"w": ("a",)})  # of no model; separable optimizers move to any
DATA = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
DEEP_SET = partial(UNFOptimizer, head=Pointwise, channels=6, beta=0.1)


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def deep_set(**options) -> UNFOptimizer:
    torch.manual_seed(0)
    return DEEP_SET(SPEC, **options)


def equivariant(network: nn.Module, name: str = "unf") -> UNFOptimizer:
    """An optimizer with a UNF head, bound to a network."""
    torch.manual_seed(0)
    return OPTIMIZERS[name](infer_permutation_spec(network, DATA))


def backward(network: nn.Module, data: torch.Tensor = DATA) -> torch.Tensor:
    loss = network(data).square().mean()
    loss.backward()
    return loss


def train(
    network: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3
) -> list[torch.Tensor]:
    for _ in range(steps):
        optimizer.zero_grad()
        backward(network)
        optimizer.step()
    return [p.detach().clone() for p in network.parameters()]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


class ReadsLoss(HandDesigned):
    """Scales its update by the loss."""

    separable = False

    def forward(self, grads, state, params, loss):
        updates, state = super().forward(grads, state, params, loss)
        return tree.tree_map(lambda update: update * loss, updates), state


@pytest.mark.parametrize("kind", ["deep_set", "fused", "unf"])
def test_a_saved_state_goes_on_bit_for_bit(kind, tmp_path) -> None:
    def make(network: nn.Module) -> LearnedOptimizer:
        return LearnedOptimizer(
            network, equivariant(network) if kind == "unf" else deep_set(), fused=kind == "fused"
        )

    network = model()
    optimizer = make(network)
    train(network, optimizer, 2)
    torch.save(
        {"model": network.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pt"
    )
    expected = train(network, optimizer, 2)
    saved = torch.load(tmp_path / "x.pt")  # weights only: tensors and plain containers
    again = model(seed=9)
    again.load_state_dict(saved["model"])
    resumed = make(again)
    resumed.load_state_dict(saved["optimizer"])
    assert equal(train(again, resumed, 2), expected)


def test_a_state_of_another_theta_is_refused() -> None:
    network = model()
    other = LearnedOptimizer(network, deep_set(alpha=0.2)).state_dict()
    with pytest.raises(ValueError, match="was written with theta"):
        LearnedOptimizer(network, deep_set()).load_state_dict(other)


def test_copies_and_pickles_go_on_alike() -> None:
    network = model()
    optimizer = LearnedOptimizer(network, deep_set())
    train(network, optimizer)
    twin, twins = copy.deepcopy((network, optimizer))
    state = pickle.loads(pickle.dumps(optimizer.state_dict()))
    third, thirds = pickle.loads(pickle.dumps((network, optimizer)))
    thirds.load_state_dict(state)
    expected = train(network, optimizer)
    assert equal(train(twin, twins), expected)
    assert equal(train(third, thirds), expected)
    assert str(twins) == str(optimizer)
    assert str(optimizer).startswith(
        "LearnedOptimizer[UNFOptimizer] (\nParameter Group 0\n    lr: 1.0"
    )


def test_groups_multiply_the_update_and_decay_the_weights() -> None:
    """``p <- (1 - lr weight_decay s) p + lr update``, from the update at lr 1, s its size."""
    plain = model()
    grouped = model()
    before = [p.detach().clone() for p in plain.parameters()]
    plain_after = train(plain, LearnedOptimizer(plain, deep_set()), 1)
    groups = [
        {"params": list(grouped[0].parameters()), "lr": 0.5},
        {"params": list(grouped[2].parameters()), "lr": 2.0, "weight_decay": 0.1},
    ]
    after = train(grouped, LearnedOptimizer(groups, deep_set()), 1)
    for i, (old, new, grouped_new) in enumerate(zip(before, plain_after, after, strict=True)):
        rate, decay = ((0.5, 0.0), (2.0, 0.1))[i // 2]
        size = (new - old).square().mean().sqrt()
        expected = (1 - rate * decay * size) * old + rate * (new - old)
        torch.testing.assert_close(grouped_new, expected)


def test_a_group_can_be_added_and_starts_fresh() -> None:
    network = model()
    optimizer = LearnedOptimizer(network[0].parameters(), deep_set())
    train(network, optimizer, 2)
    optimizer.add_param_group({"params": network[2].parameters(), "lr": 0.1})
    train(network, optimizer, 1)
    assert [int(optimizer.state[p]["step"]) for p in network.parameters()] == [3, 3, 1, 1]
    with pytest.raises(ValueError, match="one weight space"):
        LearnedOptimizer(network, equivariant(network)).add_param_group(
            {"params": [nn.Parameter(torch.zeros(2))]}
        )


def test_separable_optimizers_skip_what_has_no_gradient() -> None:
    network = model()
    alone = model()
    network[0].requires_grad_(False)
    optimizer = LearnedOptimizer(network, deep_set())
    after = train(network, optimizer)
    expected = train(alone, LearnedOptimizer(alone[2], deep_set()))
    assert equal(after[2:], expected[2:])
    assert equal(after[:2], [p.detach() for p in model()[0].parameters()])
    assert len(optimizer.state) == 2


def test_others_see_a_gradient_of_zero_there() -> None:
    frozen = model()
    zeros = model()
    frozen[0].requires_grad_(False)
    backward(frozen)
    backward(zeros)
    for param in zeros[0].parameters():
        param.grad = torch.zeros_like(param)
    for network in (frozen, zeros):
        LearnedOptimizer(network, equivariant(network)).step()
    assert equal(list(frozen[2].parameters()), list(zeros[2].parameters()))
    assert equal(list(frozen[0].parameters()), list(model()[0].parameters()))


def test_nothing_happens_without_any_gradient() -> None:
    network = model()
    for meta in (deep_set(), equivariant(network)):
        LearnedOptimizer(network, meta).step()
        assert equal(list(network.parameters()), list(model().parameters()))


def test_the_loss_reaches_those_that_read_it() -> None:
    spec = infer_permutation_spec(model(), DATA)
    by_loss = model()
    by_closure = model()
    first = LearnedOptimizer(by_loss, ReadsLoss(spec, Momentum, 0.1))
    second = LearnedOptimizer(by_closure, ReadsLoss(spec, Momentum, 0.1))
    loss = backward(by_loss)
    assert first.step(loss=loss) is loss
    returned = second.step(lambda: backward(by_closure))
    assert torch.equal(returned, loss)
    assert equal(list(by_loss.parameters()), list(by_closure.parameters()))
    with pytest.raises(ValueError, match="reads the training loss"):
        first.step()
    with pytest.raises(ValueError, match="got both"):
        first.step(lambda: loss, loss=loss)


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    halves = model()
    whole = model()
    for half in DATA.split(8):
        (halves(half).square().mean() / 2).backward()
    backward(whole)
    for network in (halves, whole):
        LearnedOptimizer(network, deep_set()).step()
    for a, b in zip(halves.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_schedulers_clipping_and_hooks() -> None:
    network = model()
    optimizer = LearnedOptimizer(network, deep_set())
    calls = []
    norms = []
    rates = []
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.register_step_post_hook(lambda *arguments: calls.append(arguments[0]))
    for _ in range(3):
        optimizer.zero_grad()
        backward(network)
        nn.utils.clip_grad_norm_(network.parameters(), 1e-3)
        before = [p.detach().clone() for p in network.parameters()]
        optimizer.step()
        moves = [p - old for p, old in zip(network.parameters(), before, strict=True)]
        norms.append(sum(move.square().sum() for move in moves).item())
        rates.append(scheduler.get_last_lr()[0])
        scheduler.step()
    assert rates == [1.0, 0.5, 0.25]
    assert calls == [optimizer] * 3
    assert norms[0] > norms[1] > norms[2] > 0


def test_a_scaler_skips_steps_that_overflow() -> None:
    network = model()
    optimizer = LearnedOptimizer(network, deep_set())
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(DATA).square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer, loss=loss)
    scaler.update()
    moved = [p.detach().clone() for p in network.parameters()]
    assert not equal(moved, list(model().parameters()))
    network[0].weight.grad.fill_(torch.inf)
    scaler.step(optimizer)
    assert equal(list(network.parameters()), moved)


class Module(LightningModule):
    """The smallest training that Lightning runs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = model()

    def training_step(self, batch, _):
        return self.network(batch).square().mean()

    def configure_optimizers(self):
        optimizer = LearnedOptimizer(self, deep_set())
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*")
def test_in_a_lightning_module(tmp_path) -> None:
    module = Module()
    options = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, gradient_clip_val=1.0, **options)
    trainer.fit(module, torch.utils.data.DataLoader(DATA, batch_size=8))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    optimizer = trainer.optimizers[0]
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert {int(part["step"]) for part in optimizer.state.values()} == {4}
    resumed = Trainer(max_epochs=3, default_root_dir=tmp_path, **options)
    again = Module()
    resumed.fit(
        again, torch.utils.data.DataLoader(DATA, batch_size=8), ckpt_path=tmp_path / "x.ckpt"
    )
    assert {int(part["step"]) for part in resumed.optimizers[0].state.values()} == {6}
