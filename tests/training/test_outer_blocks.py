"""Blocks of the outer optimizer: settings, stages, rates by signal, and an average of theta."""

from collections.abc import Sequence
from functools import partial

import lightning
import pytest
import torch
from torch import nn

from learned_opt.compose.outer_optimizer import build_outer
from learned_opt.optimizers.blocks import names_by_block
from learned_opt.optimizers.schedule import Cosine
from learned_opt.training.block_schedule import After, block_schedule
from learned_opt.training.callbacks.signal_rates import SignalRates
from learned_opt.training.callbacks.theta_average import ThetaAverage
from learned_opt.training.checkpoint_files import check_groups, find_checkpoint
from learned_opt.training.parameter_groups import parameter_groups
from learned_opt.training.trainer import MetaTrainer
from tests.commands.test_cli import TINY, shell
from tests.training.test_callbacks import composed
from tests.training.test_trainer import STEPS, fit, make_module

BLOCKS = {
    "equivariant": {"lr": 0.002, "betas": [0.99, 0.999], "weight_decay": 0.5},
    "pointwise": {},
    "scalars": {"lr": 0.02},
}
ADAMW = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.0)


def with_blocks(blocks=BLOCKS, **schedule) -> MetaTrainer:
    module = make_module()
    module.outer_optimizer = ADAMW
    module.blocks = dict(blocks)
    module.schedule = partial(block_schedule, **schedule)
    return module


def beside() -> list[lightning.Callback]:
    return [ThetaAverage(0.8), SignalRates(0.7, smallest=0.05)]


def equal(left: dict, right: dict) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def test_every_tensor_is_in_one_group_with_its_settings() -> None:
    module = with_blocks()
    optimizer = module.configure_optimizers()["optimizer"]
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert list(groups) == list(BLOCKS)
    assert groups["equivariant"]["betas"] == (0.99, 0.999)
    assert groups["pointwise"]["betas"] == (0.9, 0.999)
    assert (groups["pointwise"]["weight_decay"], groups["scalars"]["lr"]) == (0.0, 0.02)
    taken = [id(tensor) for group in groups.values() for tensor in group["params"]]
    assert sorted(taken) == sorted(map(id, module.meta_optimizer.parameters()))
    assert {tensor.ndim for tensor in groups["scalars"]["params"]} == {0}


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"tables": {}, "*": {}}, r"blocks\[tables\] names no tensor of theta, and no block of it"),
        ({"*": {}, "scalars": {}}, r"blocks\[scalars\] takes no tensor of theta: blocks before"),
        ({"scalars": {}}, r"none of scalars takes function.layers.0.weight"),
        ({"*": {"lr": -1.0}}, r"blocks\[\*\] of the outer optimizer: Invalid learning rate: -1.0"),
        ({"*": {"rate": 1.0}}, r"blocks\[\*\] of the outer optimizer: .*argument 'rate'"),
    ],
)
def test_blocks_that_do_not_fit_are_one_sentence(blocks, message) -> None:
    with pytest.raises(ValueError, match=message):
        with_blocks(blocks).configure_optimizers()


def test_the_steps_are_those_of_torch_with_the_settings_of_each_block(tmp_path) -> None:
    plain = make_module()
    plain.outer_optimizer = ADAMW
    plain.schedule = block_schedule
    one_block = with_blocks({"*": {}})
    fit(plain, tmp_path / "plain")
    fit(one_block, tmp_path / "blocks")
    assert equal(plain.theta, one_block.theta)


def test_decay_takes_coefficients_without_gradient_to_zero() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    theta = {"head.equivariant.table": weight, "log_lr": nn.Parameter(torch.tensor(1.0))}
    groups = parameter_groups(theta, {"equivariant": {"weight_decay": 0.5}, "*": {}}, ADAMW)
    optimizer = ADAMW(groups)
    for tensor in theta.values():
        tensor.grad = torch.zeros_like(tensor)
    for _ in range(10):
        optimizer.step()
    assert weight[0, 0].item() == pytest.approx((1 - 0.01 * 0.5) ** 10)
    assert theta["log_lr"].item() == 1.0


def test_a_block_at_rest_stays_and_begins_its_averages_when_it_moves(tmp_path) -> None:
    stages = {"factors": {"equivariant": After(3)}}
    module = with_blocks(**stages)
    start = {name: tensor.detach().clone() for name, tensor in module.theta.items()}
    trainer = fit(module, tmp_path, steps=3)
    moved = {name for name in start if not torch.equal(start[name], module.theta[name])}
    table = names_by_block(module.theta)["equivariant"]
    assert not moved & set(table)
    assert {"log_alpha", "function.layers.0.weight"} <= moved
    states = trainer.optimizers[0].state
    assert all(module.theta[name] not in states for name in table)

    again = with_blocks(**stages)
    trainer = fit(again, tmp_path, ckpt=find_checkpoint(tmp_path))
    states = trainer.optimizers[0].state
    assert {int(states[again.theta[name]]["step"]) for name in table} == {STEPS - 3}
    assert not all(torch.equal(again.theta[name], start[name]) for name in table)


def test_a_stage_counts_from_its_start_and_names_its_block() -> None:
    theta = {"weight": nn.Parameter(torch.zeros(2, 2)), "log_lr": nn.Parameter(torch.zeros(()))}
    optimizer = torch.optim.SGD(
        parameter_groups(theta, {"pointwise": {}, "*": {}}, torch.optim.SGD), lr=1.0
    )
    schedule = block_schedule(optimizer, {"pointwise": After(2, Cosine(4))})
    rates = []
    for _ in range(6):
        rates.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    half = 0.5 + 0.5**1.5
    assert [rate[0] for rate in rates] == pytest.approx([0, 0, 1, half, 0.5, 1 - half])
    assert {rate[1] for rate in rates} == {1.0}
    with pytest.raises(ValueError, match=r"blocks \(pointwise, \*\), got head"):
        block_schedule(optimizer, {"head": After(2)})
    with pytest.raises(ValueError, match="start of a schedule must be at least 0, got -1"):
        After(-1)


def test_the_average_is_the_weighted_mean_of_all_thetas(tmp_path) -> None:
    class Keep(lightning.Callback):
        def __init__(self) -> None:
            self.thetas: list[dict] = []

        def on_train_batch_end(self, trainer, pl_module, *_, **__) -> None:
            theta = pl_module.detached_theta
            self.thetas.append({name: tensor.clone() for name, tensor in theta.items()})

    module = make_module()
    keep = Keep()
    average = ThetaAverage(0.8)
    assert not average.has_begun
    fit(module, tmp_path, average, keep)
    assert average.has_begun
    weights = torch.tensor([0.8 ** (STEPS - 1 - i) for i in range(STEPS)])
    weights = weights / weights.sum()
    for name, tensor in average.optimizer.named_parameters():
        stacked = torch.stack([theta[name] for theta in keep.thetas], -1)
        torch.testing.assert_close(tensor, (stacked * weights).sum(-1))
    assert equal(module.theta, keep.thetas[-1])  # theta itself is the last
    with pytest.raises(ValueError, match="decay must lie between 0 and 1, got 1"):
        ThetaAverage(1)


def of_series(gradients: Sequence[torch.Tensor], smallest: float = 0.05) -> SignalRates:
    """Rates after estimates of the meta-gradient of one parameter."""
    parameter = nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    rates = SignalRates(0.95, smallest)
    module = make_module()
    module.log_dict = lambda *_, **__: None  # pyright: ignore[reportAttributeAccessIssue]
    for gradient in gradients:
        parameter.grad = gradient
        rates.on_before_optimizer_step(None, module, optimizer)  # pyright: ignore
    return rates


def test_factors_follow_the_signal() -> None:
    source = torch.Generator().manual_seed(0)
    noise = [torch.randn(50, generator=source) for _ in range(150)]
    assert of_series(noise).factors["theta"] < 0.2
    weak = of_series([0.3 + part for part in noise]).factors["theta"]
    # signal to noise of the average over 39 estimates: 0.09 * 39 = 3.5
    assert weak == pytest.approx(3.5 / 4.5, abs=0.1)
    assert of_series([3 + part for part in noise]).factors["theta"] > 0.98
    assert of_series([torch.ones(3)]).factors == {}
    for decay, smallest, message in ((1, 0.1, "decay must lie"), (0.9, 0, "smallest must be")):
        with pytest.raises(ValueError, match=message):
            SignalRates(decay, smallest)


def test_rates_are_scaled_for_the_step_alone(tmp_path) -> None:
    """Plain SGD shows the factor; the schedule goes on from the rate as it is without it."""

    class Watch(lightning.Callback):
        rates: list[float]

        def on_train_batch_end(self, trainer, *_, **__) -> None:
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    watch = Watch()
    watch.rates = []
    scaled, plain = make_module(), make_module()
    for module in (scaled, plain):
        module.outer_optimizer = partial(torch.optim.SGD, lr=0.5)
        module.schedule = block_schedule
    rates = SignalRates(0.5, smallest=1e-6)
    fit(scaled, tmp_path / "scaled", rates, watch, steps=3)
    fit(plain, tmp_path / "plain", steps=3)
    assert watch.rates == [0.5] * 3
    assert rates.factors.keys() == {"theta"}
    assert not equal(scaled.theta, plain.theta)


@pytest.mark.parametrize("staged", [False, True])
def test_all_of_it_is_resumed_bit_for_bit(tmp_path, staged) -> None:
    stages = {"factors": {"equivariant": After(2, Cosine(8))}} if staged else {}
    straight, first, second = (with_blocks(**stages) for _ in range(3))
    ends = []
    for module, folder, steps in ((straight, "straight", STEPS), (first, "halves", STEPS // 2)):
        fit(module, tmp_path / folder, *(callbacks := beside()), steps=steps)
        ends.append(callbacks)
    last = beside()
    ckpt = find_checkpoint(tmp_path / "halves")
    fit(second, tmp_path / "halves", *last, ckpt=ckpt)
    assert equal(straight.theta, second.theta)
    averages = [dict(callbacks[0].optimizer.named_parameters()) for callbacks in (ends[0], last)]
    assert equal(*averages)
    assert ends[0][1].factors == last[1].factors != ends[1][1].factors
    check_groups(ckpt, list(BLOCKS))
    with pytest.raises(ValueError, match="its blocks are equivariant, pointwise, scalars, here t"):
        check_groups(ckpt, [])


@pytest.mark.parametrize("name", ["blocks", "staged", "signal", "adam_average"])
def test_the_choices_of_configs_train_an_equivariant_optimizer(name) -> None:
    cfg = composed(f"outer_optimizer={name}", "name=mlp", "optimizer_name=unf")
    outer = build_outer(cfg.outer_optimizer)
    outer.check(make_module().theta)
    assert isinstance(outer.beside[0], ThetaAverage)
    assert len(outer.beside) == (2 if name == "signal" else 1)


def test_a_block_that_is_null_is_left_out_and_what_is_no_block_is_refused() -> None:
    cfg = composed("outer_optimizer=blocks", "outer_optimizer.blocks.equivariant=null")
    assert list(build_outer(cfg.outer_optimizer).blocks) == ["pointwise", "scalars"]
    for word, message in (
        ("outer_optimizer.blocks.scalars=3", "map each block to its settings.*got 3 for scalars"),
        ("outer_optimizer.average=3", "outer_optimizer.average must be a node of a Lightning"),
    ):
        with pytest.raises(ValueError, match=message):
            build_outer(composed("outer_optimizer=blocks", word).outer_optimizer)


@pytest.mark.slow
def test_two_ranks_go_on_bit_for_bit(tmp_path) -> None:
    tiny = [word for word in TINY if "validation" not in word]
    words = ["+task=mlp", *tiny, "outer_optimizer=signal", "benchmark=none"]
    words += ["trainer=ddp_cpu", "trainer.devices=2", "trainer.max_steps=4"]
    words += ["callbacks.checkpoints.every=2", "callbacks.checkpoints.keep=9"]
    benchmark = [word for word in words if not word.startswith("benchmark.")]
    for folder, more in (("a", []), ("b", ["checkpoint=a/checkpoints/step_2.ckpt"])):
        result = shell(tmp_path, *benchmark, *more, f"hydra.run.dir={folder}")
        assert result.returncode == 0, result.stderr
    for file in ("theta.safetensors", "theta_average.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
