"""Several tasks in one outer step: the mean of what each task would give alone."""

import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from learned_opt.commands import evaluate, lab, train
from learned_opt.core import tree
from learned_opt.core.rng import draw_key, generator
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.mixed import MixedEstimator
from learned_opt.evaluation.results import read_evaluation
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_sgdm
from tasks.quadratic import Quadratic
from tests.cases import ESTIMATORS, FAMILIES, OPTIMIZERS, spec_of
from tests.commands.test_cli import TINY, refused
from tests.helpers.known_meta_gradients import HORIZON, LOG_LR, GradientDescent
from tests.helpers.made_folders import only_folder_of

THETA = {"log_lr": torch.tensor(LOG_LR, dtype=torch.float64)}
CONDITIONS = {"round": 1.0, "narrow": 100.0}
WEIGHTS = {"round": 3.0, "narrow": 1.0}


def quadratics(kind=BPTT, weights=None, **settings) -> MixedEstimator:
    optimizer = GradientDescent(spec_of(Quadratic(dim=2)))
    estimators = {}
    for name, condition in CONDITIONS.items():
        family = Quadratic(dim=2, condition=condition, random_init=False, dtype=torch.float64)
        inner = Unroll(family, optimizer.rebind(spec_of(family)), compile=False)
        values = {
            "truncation": Constant(HORIZON),
            "num_tasks": 3,
            "unroll_length": HORIZON,
        } | settings
        estimators[name] = kind(inner, **values)
    return MixedEstimator(estimators, weights or WEIGHTS)


def analytic(condition: float) -> tuple[float, float]:
    """Mean loss over the horizon and its derivative by log lr, for curvatures 1 and 1 /
    condition.
    """
    h = np.array([1.0, 1 / condition])
    lr = np.exp(LOG_LR)
    times = np.arange(HORIZON)[:, None]
    losses = 0.5 * h * (1 - lr * h) ** (2 * times)
    slopes = -times * lr * h**2 * (1 - lr * h) ** (2 * times - 1)
    return losses.sum(1).mean(), slopes.sum(1).mean()


def test_full_bptt_on_a_mix_is_the_weighted_mean_of_the_analytic_gradients() -> None:
    mixed = quadratics()
    estimate, _ = mixed.estimate(THETA, mixed.init_state(THETA, generator("start")), generator(0))
    round_, narrow = (analytic(condition) for condition in CONDITIONS.values())
    expected = [(3 * a + b) / 4 for a, b in zip(round_, narrow, strict=True)]
    assert estimate.meta_loss.item() == pytest.approx(expected[0], abs=1e-12)
    assert estimate.gradient["log_lr"].item() == pytest.approx(expected[1], abs=1e-12)
    assert [part.meta_loss.item() for part in estimate.parts.values()] == pytest.approx(
        [round_[0], narrow[0]], abs=1e-12
    )
    assert estimate.num_inner_steps == mixed.num_inner_steps == 2 * 3 * HORIZON


def networks(kind) -> tuple[MixedEstimator, dict]:
    torch.manual_seed(0)
    families = {name: FAMILIES[name]() for name in ("mlp", "cnn", "irnn")}
    optimizer = OPTIMIZERS["deep_set"](spec_of(families["mlp"]))
    estimators = {
        name: kind(
            Unroll(family, optimizer.rebind(spec_of(family)), compile=False),
            Constant(4),
            3,
            2,
            sigma=0.01,
        )
        for name, family in families.items()
    }
    return MixedEstimator(estimators, {"mlp": 1.0, "cnn": 2.0, "irnn": 0.5}), dict(
        optimizer.named_parameters()
    )


MIXED_ONCE = ("es", "nres_control", "guided_es", "inverse_variance", "bptt")  # one of each kind
MIXES = [
    pytest.param(kind, id=name, marks=() if name in MIXED_ONCE else pytest.mark.slow)
    for name, kind in ESTIMATORS.items()
]


@pytest.mark.parametrize("kind", MIXES)
def test_every_estimator_mixes_bit_for_bit(kind) -> None:
    """On networks, over restarts: the mix is the weighted mean of estimates made alone with
    the same keys.
    """
    mixed, theta = networks(kind)
    theta = {name: leaf.detach() for name, leaf in theta.items()}
    root = draw_key(generator("start"))
    state = mixed.init_state(theta, generator("start"))
    alone = {
        task: estimator.init_state(theta, generator(root, task))
        for task, estimator in mixed.estimators.items()
    }
    for step in range(3):  # a restart comes after two
        starts = mixed.unroll_starts(theta, state, generator(step))
        estimate, state = mixed.estimate(theta, state, generator(step))
        root = draw_key(generator(step))
        singles = []
        for task, estimator in mixed.estimators.items():
            (start,) = estimator.unroll_starts(theta, alone[task], generator(root, task)).values()
            assert start.root == starts[task].root
            assert all(
                torch.equal(start.theta[name], leaf) for name, leaf in starts[task].theta.items()
            )
            single, alone[task] = estimator.estimate(theta, alone[task], generator(root, task))
            assert torch.equal(estimate.parts[task].meta_loss, single.meta_loss)
            singles.append(single)
        for name, leaf in estimate.gradient.items():
            parts = [
                w / 3.5 * single.gradient[name]
                for w, single in zip((1, 2, 0.5), singles, strict=True)
            ]
            assert torch.equal(leaf, torch.stack(parts).sum(0))
        assert tree.global_norm(estimate.gradient) > 0
    assert all(
        torch.equal(a, b) for a, b in zip(tree.leaves(alone), tree.leaves(state), strict=True)
    )


def test_a_task_that_diverges_spoils_no_other() -> None:
    mixed = quadratics(num_tasks=2)
    state = mixed.init_state(THETA, generator("start"))
    state["narrow"]["chains"]["params"]["x"][0] = torch.nan
    estimate, _ = mixed.estimate(THETA, state, generator(0))
    assert estimate.num_nonfinite == estimate.parts["narrow"].num_nonfinite == 1
    assert estimate.finite.shape == (1, 4)
    assert estimate.gradient["log_lr"].isfinite()
    state["narrow"]["chains"]["params"]["x"][1] = torch.nan
    estimate, _ = mixed.estimate(THETA, state, generator(0))  # nothing of one task
    assert estimate.meta_loss == estimate.parts["round"].meta_loss
    assert estimate.parts["narrow"].meta_loss.isnan()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"round": 1.0}, "weights must be of the tasks of the mix; missing: narrow"),
        ({"round": 1.0, "narrow": 0.0}, r"weight\[narrow\] must be positive, got 0.0"),
    ],
)
def test_bad_weights_are_named(weights, message) -> None:
    with pytest.raises(ValueError, match=message):
        quadratics(weights=weights)


@pytest.mark.slow
def test_nine_tasks_compile() -> None:
    """The compiler allows 8 programs for one code object; three tasks and two baselines for
    each make nine.
    """
    for dim in range(2, 11):
        family = Quadratic(dim=dim)
        inner = Unroll(family, make_sgdm(spec_of(family)), compile=True)
        chains = inner.start([("chain", 0)])
        theta = tree.expand({name: p.detach() for name, p in inner.optimizer.named_parameters()}, 1)
        losses, _ = inner.run(theta, chains, inner.batches([("chain", 0)], chains, 2))
        assert losses.isfinite().all()
        assert not inner._compiled_step.failed


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory) -> Path:
    """The folder of a tiny run on a mix of two."""
    folder = tmp_path_factory.mktemp("mix")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(
            sys, "argv", ["learned_opt", "+task=mix", "~mix.rnn", "mix.cnn.weight=2", *TINY]
        )
        train.main()
    return only_folder_of(folder / "runs/mix")


def test_a_run_on_a_mix_reports_every_task(mixed_run) -> None:
    frame = read_evaluation(mixed_run / "evaluation.json").frame
    pairs = set(zip(frame["task"], frame["optimizer"], strict=True))
    assert pairs >= set(product(("mlp", "cnn"), ("deep_set", "sgdm")))
    header = (mixed_run / "metrics.csv").read_text().splitlines()[0]
    assert {
        f"meta_loss/{split}/{task}" for split in ("train", "valid") for task in ("mlp", "cnn")
    } <= set(header.split(","))
    described = json.loads((mixed_run / "theta.json").read_text())
    assert (
        list(described["specs"])
        == list(described["tasks"])
        == list(described["evaluation"])
        == ["mlp", "cnn"]
    )
    page = (mixed_run / "report.md").read_text()
    assert "# deep_set on mlp, cnn" in page
    assert "## Result: cnn" in page


def test_theta_of_a_mix_is_evaluated_on_one_of_its_tasks(mixed_run, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["+task=cnn", "network.channels=[8,16]", "task.batch_size=64"]
    monkeypatch.setattr(
        sys, "argv", ["evaluate", *words, f"theta={mixed_run}/theta.safetensors", *TINY]
    )
    evaluate.main()
    file = only_folder_of(tmp_path / "runs/cnn-evaluate") / "evaluation.json"
    before = read_evaluation(mixed_run / "evaluation.json").frame
    again = read_evaluation(file).frame
    expected = before[before["task"] == "cnn"]["mean_loss"]
    assert again["mean_loss"].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (
            train.main,
            ["meta_optimizer=unf"],
            "meta_optimizer unf cannot go from task mlp to task cnn: theta of this optimizer",
        ),
        pytest.param(
            train.main,
            ["mix.mlp.weight=-1"],
            "weight[mlp] must be positive, got -1.",
            marks=pytest.mark.slow,
        ),
        (train.main, ["mix.mpl.weight=1"], "unknown key 'mix.mpl.weight'. Did you mean 'mlp'?"),
        (lab.main, [], "this command takes one task, got a mix of mlp, cnn, rnn."),
    ],
)
def test_bad_mixes_are_one_sentence_and_exit_code_2(
    monkeypatch, capsys, tmp_path, main, words, message
) -> None:
    assert message in refused(monkeypatch, capsys, tmp_path, main, "+task=mix", *words)
