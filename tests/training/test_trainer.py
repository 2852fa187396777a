"""Meta-training under Lightning: the surrogate, resume, checkpoints, a theta on disk."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import lightning
import pytest
import torch

from learned_opt.core import tree
from learned_opt.deploy.weights import load_metadata, load_theta, save_theta
from learned_opt.estimators.base import MetaGradient
from learned_opt.estimators.mixed import MixedEstimator
from learned_opt.estimators.pes import PES
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.training.callbacks.checkpoints import Checkpoints
from learned_opt.training.callbacks.signals import Signals
from learned_opt.training.callbacks.throughput import Throughput
from learned_opt.training.callbacks.validation import Validation
from learned_opt.training.checkpoint_files import check_fits, find_checkpoint
from learned_opt.training.checkpoint_io import WholeFiles
from learned_opt.training.inner_problem import InnerProblem
from learned_opt.training.quiet_lightning import quiet_lightning
from learned_opt.training.trainer import MetaTrainer, surrogate_loss
from tests.cases import FAMILIES, OPTIMIZERS, spec_of

STEPS = 6


def make_module(
    optimizer: str = "unf", steps: int = STEPS, tasks: tuple[str, ...] = ("mlp",)
) -> MetaTrainer:
    families = {task: FAMILIES[task]() for task in tasks}
    torch.manual_seed(0)
    meta = OPTIMIZERS[optimizer](spec_of(families["mlp"]))

    estimators, problems = {}, {}
    for task, family in families.items():
        unroll = Unroll(family, meta.rebind(spec_of(family)), compile=False)
        estimators[task] = PES(unroll, Constant(4), 3, 2, 0.01)
        label = task if len(tasks) > 1 else ""
        problems[label] = InnerProblem(task, unroll, 4, 2, estimators[task], {"task": task})
    estimator = estimators["mlp"]
    if len(tasks) > 1:
        estimator = MixedEstimator(estimators, dict.fromkeys(tasks, 1.0))

    def outer(parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.01)

    def schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

    return MetaTrainer(meta, estimator, outer, schedule, seed=0, max_steps=steps, problems=problems)


def fit(
    module: MetaTrainer, folder, *callbacks, steps: int = STEPS, ckpt=None, every=100
) -> lightning.Trainer:
    """Train in a run folder with checkpoints and further callbacks."""
    quiet_lightning()
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[Checkpoints(every, keep=2), *callbacks],
        plugins=[WholeFiles()],
    )
    trainer.fit(module, ckpt_path=ckpt, weights_only=True)
    return trainer


def test_surrogate_has_the_loss_as_value_and_the_estimate_as_gradient() -> None:
    theta = {"a": torch.randn(3, requires_grad=True), "b": torch.randn((), requires_grad=True)}
    gradient = {"a": torch.tensor([1.0, -2.0, 3.0]), "b": torch.tensor(0.5)}
    loss = surrogate_loss(theta, MetaGradient(gradient, torch.tensor(7.0), 0, torch.tensor(0)))
    loss.backward()
    assert loss.item() == pytest.approx(7.0, abs=1e-5)
    assert all(torch.equal(theta[k].grad, gradient[k]) for k in theta)


@pytest.mark.parametrize(
    "made", [("unf", ("mlp",)), ("deep_set", ("mlp", "cnn", "irnn"))], ids=["one", "mix"]
)
def test_resuming_equals_going_on_bit_for_bit(tmp_path, made) -> None:
    optimizer, tasks = made
    make = partial(make_module, optimizer, tasks=tasks)
    straight = make()
    fit(straight, tmp_path / "straight")
    first = make()
    clocks = (Throughput(), Throughput())
    fit(first, tmp_path / "halves", clocks[0], steps=STEPS // 2)
    second = make()
    ckpt = find_checkpoint(tmp_path / "halves")
    check_fits(ckpt, second.meta_optimizer, second.estimator)
    fit(second, tmp_path / "halves", clocks[1], ckpt=ckpt)
    assert 0 < clocks[0].seconds < clocks[1].seconds  # the time of both halves
    assert all(torch.equal(straight.theta[k], second.theta[k]) for k in straight.theta)
    assert any(not torch.equal(first.theta[k], second.theta[k]) for k in first.theta)
    states = straight.estimator_state, second.estimator_state
    assert all(torch.equal(a, b) for a, b in zip(*map(tree.leaves, states), strict=True))


def test_metrics_are_logged(tmp_path) -> None:
    trainer = fit(make_module(), tmp_path, Validation(every=3), Throughput())
    names = {
        "meta_loss/train",
        "meta_loss/valid",
        "final_loss/valid",
        "meta_grad_norm",
        "inner_steps_per_second",
    }
    assert names <= set(trainer.callback_metrics)
    assert all(trainer.callback_metrics[name].isfinite() for name in names)


def test_a_mix_logs_every_task_and_refuses_the_chains_of_other_tasks(tmp_path) -> None:
    module = make_module("deep_set", tasks=("mlp", "cnn"))
    trainer = fit(module, tmp_path)
    logged = {task: trainer.callback_metrics[f"meta_loss/train/{task}"] for task in ("mlp", "cnn")}
    assert trainer.callback_metrics["meta_loss/train"].item() == pytest.approx(
        sum(logged.values()).item() / 2
    )
    ckpt = find_checkpoint(tmp_path)
    for tasks, message in (
        (("mlp", "irnn"), r"irnn/chains/params/embed.weight is missing there and \(6, 5, 3\) here"),
        (("mlp",), r"chains/params/layers.0.weight is missing there and \(6, 5, 32\) here"),
    ):
        other = make_module("deep_set", tasks=tasks)
        with pytest.raises(ValueError, match=f"is of another run: {message}"):
            check_fits(ckpt, other.meta_optimizer, other.estimator)


def test_interrupt_ends_after_the_step_and_leaves_a_whole_checkpoint(tmp_path, capsys) -> None:
    class Interrupt(lightning.Callback):
        def on_train_batch_start(self, trainer, *_) -> None:
            if trainer.global_step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    signals = Signals()
    trainer = fit(make_module(), tmp_path, signals, Interrupt())
    assert signals.stopped_by == signal.SIGINT
    assert trainer.global_step == 3
    assert signal.getsignal(signal.SIGINT) is before
    assert "Ctrl-C again" in capsys.readouterr().err
    resumed, straight = make_module(), make_module()
    fit(resumed, tmp_path, ckpt=find_checkpoint(tmp_path))
    fit(straight, tmp_path / "straight")
    assert all(torch.equal(straight.theta[k], resumed.theta[k]) for k in straight.theta)


def test_checkpoints_that_do_not_fit_are_refused(tmp_path) -> None:
    fit(make_module("sgdm"), tmp_path, steps=1)
    module = make_module("unf")
    unf = module.meta_optimizer
    pes = module.estimator
    ckpt = find_checkpoint(tmp_path)
    with pytest.raises(
        ValueError, match=r"another architecture: missing: .*log_alpha.*unexpected: log_lr"
    ):
        check_fits(ckpt, unf, pes)
    for nowhere in (Path("nowhere.ckpt"), tmp_path / "checkpoints"):
        with pytest.raises(ValueError, match=f"there is none at {nowhere}"):
            find_checkpoint(nowhere)
    (tmp_path / "cut.ckpt").write_bytes(ckpt.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"damaged or not a checkpoint"):
        check_fits(tmp_path / "cut.ckpt", unf, pes)
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"no checkpoint of meta-training"):
        check_fits(tmp_path / "other.ckpt", unf, pes)


def test_theta_survives_the_disk(tmp_path) -> None:
    written, read = make_module().meta_optimizer, make_module().meta_optimizer
    with torch.no_grad():
        for parameter in written.parameters():
            parameter.normal_()
    path = save_theta(
        tmp_path, dict(written.named_parameters()), {"specs": {"mlp": written.spec.as_dict()}}
    )
    load_theta(path, read)
    theta = dict(read.named_parameters())
    assert all(torch.equal(theta[k], p) for k, p in written.named_parameters())
    assert json.loads(path.with_suffix(".json").read_text())["format"] == 2


def test_a_theta_that_fits_every_spec_goes_to_another_network(tmp_path) -> None:
    trained = make_module("deep_set").meta_optimizer
    cnn = spec_of(FAMILIES["cnn"]())
    path = save_theta(
        tmp_path, dict(trained.named_parameters()), {"specs": {"mlp": trained.spec.as_dict()}}
    )
    torch.manual_seed(1)
    read = OPTIMIZERS["deep_set"](cnn)
    load_theta(path, read)
    assert read.spec == cnn
    assert all(
        torch.equal(dict(read.named_parameters())[k], p) for k, p in trained.named_parameters()
    )


def test_theta_files_of_format_1_are_read(tmp_path) -> None:
    written, read = make_module("deep_set").meta_optimizer, make_module("deep_set").meta_optimizer
    metadata = {"spec": written.spec.as_dict(), "task": {"task": "mlp"}}
    path = save_theta(tmp_path, dict(written.named_parameters()), metadata)
    path.with_suffix(".json").write_text(json.dumps({"format": 1, **metadata}))
    assert list(load_metadata(path)["tasks"]) == ["mlp"]
    load_theta(path, read)


def test_a_theta_that_does_not_fit_is_refused(tmp_path) -> None:
    optimizer = make_module().meta_optimizer
    path = save_theta(
        tmp_path, dict(optimizer.named_parameters()), {"specs": {"mlp": optimizer.spec.as_dict()}}
    )
    cnn = FAMILIES["cnn"]()
    other = OPTIMIZERS["unf"](spec_of(cnn))
    with pytest.raises(
        ValueError, match=r"another network.*missing: convs.0.weight.*unexpected: layers.0.weight"
    ):
        load_theta(path, other)
    wider = type(optimizer)(optimizer.spec, channels=7)
    with pytest.raises(
        ValueError, match=r"log_alpha|has shape \(19, 6\), the optimizer needs \(19, 7\)"
    ):
        load_theta(path, wider)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"is damaged"):
        load_theta(path, optimizer)
    path.with_suffix(".json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"has format 99, this version reads 2"):
        load_theta(path, optimizer)
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"lacks its theta.json"):
        load_theta(path, optimizer)
