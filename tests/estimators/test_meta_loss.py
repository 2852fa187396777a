"""What an unroll counts as: reductions, normalisers and clipping in closed form; losses on
held-out batches.
"""

import numpy as np
import pytest
import torch

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.es import ES
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from tasks.language import NextToken
from tasks.networks.mlp import MLP
from tasks.quadratic import Quadratic
from tasks.supervised import Classification
from tests.cases import ESTIMATORS, OPTIMIZERS, SEQUENCE_NETWORKS, images, spec_of, tokens
from tests.helpers.known_meta_gradients import (
    CURVATURES,
    HORIZON,
    LOG_LR,
    SIGMA,
    THETA,
    GradientDescent,
    analytic_gradient,
    mean_loss,
    unroll,
)

LOSSES = [mean_loss([LOG_LR] * HORIZON, t, t + 1) for t in range(HORIZON)]
GRADIENTS = [analytic_gradient(t, t + 1, 0) for t in range(HORIZON)]


def exact(meta_loss: MetaLoss, inner: Unroll | None = None):
    estimator = BPTT(inner or unroll(), Constant(HORIZON), 1, HORIZON, meta_loss=meta_loss)
    return estimator.estimate(THETA, estimator.init_state(THETA, generator("start")), generator(0))


def test_a_table_of_losses() -> None:
    losses = torch.tensor([[4.0, 1.0], [2.0, 9.0], [8.0, 3.0]])
    initial = torch.tensor([4.0, 2.0])
    expected = {
        MetaLoss(): [14 / 3, 13 / 3],
        MetaLoss("final"): [8, 3],
        MetaLoss("min"): [2, 1],
        MetaLoss("mean", normaliser="initial"): [14 / 12, 13 / 6],
        MetaLoss("final", normaliser="log"): [np.log(2), np.log(1.5)],
        MetaLoss("mean", clip=5.0): [11 / 3, 9 / 3],
        MetaLoss("final", normaliser="initial", clip=1.6): [1.6, 1.5],
    }
    for meta_loss, values in expected.items():
        torch.testing.assert_close(
            meta_loss(losses, initial), torch.tensor(values, dtype=torch.float32)
        )
    learnt = MetaLoss(normaliser="log")(torch.zeros(3, 1), torch.ones(1))
    assert learnt.item() == pytest.approx(
        np.log(1e-6)
    )  # a loss of nought counts as a millionth of the first
    assert MetaLoss(normaliser="initial")(torch.ones(3, 2), torch.tensor([0.0, -1.0])).isnan().all()


@pytest.mark.parametrize(("kind", "steps"), [("final", [5]), ("min", [5]), ("mean", range(6))])
def test_reductions(kind, steps) -> None:
    """The quadratic's loss falls at every step, so that the last is the lowest."""
    estimate, _ = exact(MetaLoss(kind))
    assert estimate.meta_loss.item() == pytest.approx(np.mean([LOSSES[t] for t in steps]), abs=1e-9)
    gradient = np.mean([GRADIENTS[t] for t in steps])
    assert estimate.gradient["log_lr"].item() == pytest.approx(gradient, abs=1e-9)


def test_normalisers_and_clipping_have_the_analytic_gradient() -> None:
    estimate, _ = exact(MetaLoss(normaliser="initial"))
    assert estimate.gradient["log_lr"].item() == pytest.approx(
        np.mean(GRADIENTS) / LOSSES[0], abs=1e-9
    )
    estimate, _ = exact(MetaLoss(normaliser="log"))
    assert estimate.meta_loss.item() == pytest.approx(
        np.mean(np.log(np.array(LOSSES) / LOSSES[0])), abs=1e-9
    )
    logs = np.mean(np.array(GRADIENTS) / np.array(LOSSES))
    assert estimate.gradient["log_lr"].item() == pytest.approx(logs, abs=1e-9)
    clip = (LOSSES[1] + LOSSES[2]) / 2
    estimate, _ = exact(MetaLoss(clip=clip))
    assert estimate.meta_loss.item() == pytest.approx(
        (2 * clip + sum(LOSSES[2:])) / HORIZON, abs=1e-9
    )
    assert estimate.gradient["log_lr"].item() == pytest.approx(
        sum(GRADIENTS[2:]) / HORIZON, abs=1e-9
    )


@pytest.mark.parametrize("kind", ESTIMATORS.values(), ids=ESTIMATORS)
def test_the_initial_loss_is_that_of_the_restart(kind) -> None:
    """Every chain starts from the same loss here, so that each estimate is the plain one
    over it, restarts included.
    """
    settings = [MetaLoss(), MetaLoss(normaliser="initial")]
    estimators = [
        kind(unroll(), Constant(HORIZON), 3, 2, SIGMA, meta_loss=each) for each in settings
    ]
    states = [estimator.init_state(THETA, generator("start")) for estimator in estimators]
    for step in range(5):
        results = [
            e.estimate(THETA, s, generator(step)) for e, s in zip(estimators, states, strict=True)
        ]
        states = [state for _, state in results]
        plain, normalised = (estimate for estimate, _ in results)
        torch.testing.assert_close(normalised.meta_loss * LOSSES[0], plain.meta_loss)
        torch.testing.assert_close(
            normalised.gradient["log_lr"] * LOSSES[0], plain.gradient["log_lr"]
        )
        assert states[1]["initial_loss"].tolist() == pytest.approx([LOSSES[0]] * 3)


def test_a_chain_that_explodes_does_not_swamp_the_mean() -> None:
    """One pair of four has losses of 1e11 and more, which alone would make the mean."""
    estimates = []
    for clip in (None, 1.0):
        es = ES(unroll(), Constant(HORIZON), 4, HORIZON, SIGMA, meta_loss=MetaLoss(clip=clip))
        state = es.init_state(THETA, generator("start"))
        state["chains"]["params"]["x"][2] *= 1e6
        estimates.append(es.estimate(THETA, state, generator(0))[0])
    assert estimates[0].meta_loss > 1e8
    assert estimates[1].meta_loss <= 1
    assert estimates[1].num_nonfinite == 0


def noisy(split: str) -> tuple[Unroll, MetaLoss]:
    family = Quadratic(dim=2, noise=0.5, random_init=False, dtype=torch.float64)
    return Unroll(family, GradientDescent(spec_of(family)), compile=False), MetaLoss(split=split)


def test_losses_on_held_out_batches_are_those_of_the_same_params() -> None:
    """Replayed by hand: the params move on training batches, the losses are taken on others."""
    inner, meta_loss = noisy("valid")
    estimator = ES(inner, Constant(HORIZON), 1, HORIZON, SIGMA, meta_loss=meta_loss)
    state = estimator.init_state(THETA, generator("start"))
    start = estimator.unroll_start(THETA, state, generator(0))
    losses, _ = estimator.population.run(start)
    streams = [generator(start.root, 0, word) for word in ("batch", "valid")]
    shifts = []
    for stream in streams:
        batches = [inner.family.batch(stream, {}) for _ in range(HORIZON)]
        shifts.append([batch["shift"].numpy() for batch in batches])
    for chain, log_lr in enumerate(start.theta["log_lr"].tolist()):
        x = np.ones(2)
        values = []
        for train, valid in zip(*shifts, strict=True):
            values.append(0.5 * np.sum(np.array(CURVATURES) * (x + valid) ** 2))
            x = x - np.exp(log_lr) * np.array(CURVATURES) * (x + train)
        assert losses[chain, 0].item() == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize("kind", ESTIMATORS.values(), ids=ESTIMATORS)
def test_the_split_of_the_losses_changes_no_chain(kind) -> None:
    results = []
    for split in ("train", "valid"):
        inner, meta_loss = noisy(split)
        estimator = kind(inner, Constant(HORIZON), 3, 2, SIGMA, meta_loss=meta_loss)
        results.append(
            estimator.estimate(THETA, estimator.init_state(THETA, generator("start")), generator(0))
        )
    (train, train_state), (valid, valid_state) = results
    assert train.meta_loss != valid.meta_loss
    assert train.gradient["log_lr"] != valid.gradient["log_lr"]
    chains = train_state["chains"], valid_state["chains"]
    assert all(torch.equal(a, b) for a, b in zip(*map(tree.leaves, chains), strict=True))


@torch.no_grad()
def test_held_out_losses_compiled_and_one_by_one() -> None:
    """float64; what differs is the order of sums."""
    inner, _ = noisy("valid")
    compiled = Unroll(inner.family, inner.optimizer, compile=True)
    keys = [("key", i) for i in range(3)]
    theta = {"log_lr": THETA["log_lr"] + torch.arange(3) / 10}
    chains = inner.start(keys)
    streams = [inner.batches(keys, chains, 4, split) for split in ("train", "valid")]
    losses, _ = inner.run(theta, chains, streams[0], measured=streams[1])
    torch.testing.assert_close(
        compiled.run(theta, chains, streams[0], measured=streams[1])[0], losses
    )
    one = [tree.tree_map(lambda leaf: leaf[1:2], part) for part in (theta, chains)]
    alone = [tree.tree_map(lambda leaf: leaf[:, 1:2], stream) for stream in streams]
    torch.testing.assert_close(inner.run(*one, alone[0], measured=alone[1])[0][:, 0], losses[:, 1])


def rows(family, split: str) -> set[int]:
    drawn = [next(iter(family.batch(generator(i), {}, split).values())) for i in range(60)]
    return set(torch.cat(drawn).tolist())


def test_validation_rows_are_training_data_that_is_not_trained_on() -> None:
    data = images()
    family = Classification(
        "noise", lambda *shape: MLP(*shape, (5,)), data, batch_size=7, valid_fraction=0.2
    )
    assert (rows(family, "train"), rows(family, "valid")) == (set(range(24)), set(range(24, 30)))
    assert family.describe() | {"num_train": 24, "num_valid": 6} == family.describe()
    order = torch.stack(
        [
            (data.train_images == image).flatten(1).all(1).nonzero()[0, 0]
            for image in family.train[0]
        ]
    )
    assert sorted(order.tolist()) == list(range(30))  # the same rows, in another order
    assert order.tolist() != list(range(30))
    assert torch.equal(data.train_labels[order], family.train[1])
    assert torch.equal(family.test[0], data.test_images)
    plain = Classification("noise", lambda *shape: MLP(*shape, (5,)), data, batch_size=7)
    assert plain.train[0] is data.train_images  # untouched where it is not asked for
    assert "num_valid" not in plain.describe()


def test_windows_of_text_do_not_reach_into_the_other_split() -> None:
    family = NextToken(
        "noise", SEQUENCE_NETWORKS["gru"], tokens(), length=4, batch_size=3, valid_fraction=0.2
    )
    train = rows(family, "train")
    valid = rows(family, "valid")
    assert max(train) + 4 < 120 <= min(valid)  # a window has length + 1 tokens
    assert max(valid) + 4 < 150


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (
            lambda: MetaLoss("last"),
            "reduction must be one of mean, final, min, got 'last'.",
        ),
        (
            lambda: MetaLoss(split="test"),
            "split must be one of train, valid, got 'test'.",
        ),
        (
            lambda: MetaLoss(normaliser="max"),
            "normaliser must be one of none, initial, log, got 'max'.",
        ),
        (
            lambda: Classification("noise", MLP, images(), valid_fraction=1.0),
            "valid_fraction must be at least 0 and below 1, got 1.0.",
        ),
        (
            lambda: Classification("noise", MLP, images(), valid_fraction=0.01),
            "valid_fraction 0.01 leaves 0 of 30 rows for validation.",
        ),
        (
            lambda: NextToken(
                "noise", SEQUENCE_NETWORKS["gru"], tokens(), length=4, valid_fraction=0.02
            ),
            "length must lie between 1 and 2, the shorter text's tokens, got 4.",
        ),
    ],
)
def test_bad_values_are_named(make_bad, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()


def test_a_task_without_validation_data_is_refused() -> None:
    family = Classification("noise", lambda *shape: MLP(*shape, (5,)), images(), batch_size=7)
    inner = Unroll(family, OPTIMIZERS["sgdm"](spec_of(family)), compile=False)
    message = (
        "meta_loss.split is 'valid', but task 'noise' keeps no such data; "
        "set the task's valid_fraction above 0."
    )
    with pytest.raises(ValueError, match=message):
        ES(inner, Constant(HORIZON), 2, 2, SIGMA, meta_loss=MetaLoss(split="valid"))
