"""Regression, autoencoders, contrastive pairs, next word: permutation specs and training."""

import math
from functools import partial

import pytest
from hydra.utils import instantiate

import learned_opt
from learned_opt.estimators.pes import PES
from learned_opt.evaluation import step_times
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf.layers import Pointwise
from tasks.base import TaskFamily
from tests.cases import FAMILIES, spec_of
from tests.compose.test_configs import final

# of each family in tests/cases.py: axes that share a free name, and parameters with fixed axes
GRU_READ = [f"cell.read.{gate}.{kind}" for gate in "rzn" for kind in ("weight", "bias")]
GRU_KEEP = [f"cell.keep.{gate}.{kind}" for gate in "rzn" for kind in ("weight", "bias")]
UNITS_OF_GRU = {(name, 0) for name in GRU_READ + GRU_KEEP}
UNITS_OF_GRU |= {(f"cell.keep.{gate}.weight", 1) for gate in "rzn"} | {("head.weight", 1)}
HIDDEN = {("encoder.1.weight", 0), ("encoder.1.bias", 0)}
DECODED = {("decoder.0.weight", 0), ("decoder.0.bias", 0), ("decoder.2.weight", 2)}
FREE = {
    "regression": [{("layers.0.weight", 0), ("layers.0.bias", 0), ("layers.1.weight", 1)}],
    "autoencoder": [
        HIDDEN | {("encoder.3.weight", 1)},
        {("encoder.3.weight", 0), ("encoder.3.bias", 0), ("decoder.0.weight", 1)},
        DECODED,
    ],
    "vae": [
        HIDDEN | {("mean.weight", 1), ("log_variance.weight", 1)},
        {
            ("mean.weight", 0),
            ("mean.bias", 0),
            ("log_variance.weight", 0),
            ("log_variance.bias", 0),
            ("decoder.0.weight", 1),
        },
        DECODED,
    ],
    "contrastive": [
        {
            ("encoder.layers.0.weight", 0),
            ("encoder.layers.0.bias", 0),
            ("encoder.layers.1.weight", 1),
        },
        {("encoder.layers.1.weight", 0), ("encoder.layers.1.bias", 0)},
    ],
    "gru_tied": [
        UNITS_OF_GRU,
        {("embed.weight", 1), ("head.weight", 0), ("head.bias", 0)}
        | {(f"cell.read.{gate}.weight", 1) for gate in "rzn"},
    ],
}
FIXED = {
    "regression": {"layers.0.weight", "layers.1.weight", "layers.1.bias"},
    "autoencoder": {"encoder.1.weight", "decoder.2.weight", "decoder.2.bias"},
    "vae": {"encoder.1.weight", "decoder.2.weight", "decoder.2.bias"},
    "contrastive": {"encoder.layers.0.weight"},
    "gru_tied": {"embed.weight", "bias"},
}


@pytest.mark.parametrize("name", FREE)
def test_hidden_axes_are_free_and_those_of_data_are_fixed(name) -> None:
    """``spec_of`` proves each on the family's loss."""
    spec: PermutationSpec = spec_of(FAMILIES[name]())
    free = [set(spec.occurrences(axis)) for axis in spec.names if axis not in spec.fixed]
    assert sorted(map(sorted, free)) == sorted(map(sorted, FREE[name]))
    fixed = [parameter for axis in spec.fixed for parameter, _ in spec.occurrences(axis)]
    assert set(fixed) == FIXED[name]


TINY = {
    "regression": [],
    "autoencoder": ["network.hidden_size=4", "network.code_size=2"],
    "vae": ["network.hidden_size=4", "network.code_size=2"],
    "contrastive": ["network.hidden_sizes=[4]", "task.batch_size=20"],
    "next_word": [
        "data.vocab_size=40",
        "data.num_tokens=2000",
        "task.batch_size=4",
        "task.length=2",
    ],
}
HELDOUT = {
    "regression": {"mean_absolute_error"},
    "autoencoder": set(),
    "vae": {"reconstruction", "kl_divergence"},
    "contrastive": {"accuracy"},
    "next_word": set(),
}


@pytest.mark.parametrize("name", TINY)
def test_the_yaml_meta_trains_and_evaluates(name, monkeypatch) -> None:
    # one inner step is timed once: how long it takes is nothing that is looked at
    monkeypatch.setattr(step_times.time_steps.__wrapped__, "__defaults__", (1, 1))
    family: TaskFamily = instantiate(final(f"+task={name}", *TINY[name]).task)
    result = learned_opt.meta_train(
        family,
        partial(UNFOptimizer, head=Pointwise, channels=4),
        partial(PES, num_tasks=2, unroll_length=2, sigma=0.03),
        2,
        horizon=4,
        compile=False,
        progress=False,
    )
    assert all(value.isfinite().all() for value in result.theta.values())

    rows = learned_opt.evaluate(result, family, horizon=4, seeds=2, compile=False, progress=False)
    figures = {"initial_loss", "mean_loss", "test_loss"} | HELDOUT[name]
    assert figures <= set(rows.columns)
    assert rows[sorted(figures)].map(math.isfinite).all(axis=None)
