"""Learning and repairing one SUBLEQ step."""

from functools import partial

import pytest
import torch
from torch.func import functional_call, grad

from learned_opt.core.rng import generator
from learned_opt.symmetry import infer_permutation_spec
from tasks.networks.looped_relu import LoopedMLP, NoisySubleq, SubleqNetwork
from tasks.subleq.task import SubleqStep, subleq_steps

DATA = subleq_steps(4, 3, num_train=2000, num_test=500, num_runs=16, run_length=32)


def repair(noise: float, compact: bool = False) -> SubleqStep:
    network = partial(NoisySubleq, num_words=4, word_bits=3, noise=noise, compact=compact)
    return SubleqStep("subleq", network, DATA, batch_size=64)


def figures(task: SubleqStep, params: dict) -> dict[str, float]:
    return {name: value.item() for name, value in task.evaluate(params, {}).items()}


def test_examples_are_exact_and_held_out_ones_are_new() -> None:
    network = SubleqNetwork(4, 3)
    for states, following in (DATA.train, DATA.test):
        assert torch.equal(network(states), following)
    seen = {tuple(state) for state in DATA.train[0].tolist()}
    assert len(seen) == 2000
    assert not seen & {tuple(state) for state in DATA.test[0].tolist()}
    assert torch.equal(network(DATA.runs[:-1]), DATA.runs[1:])
    again = subleq_steps(4, 3, num_train=2000, num_test=500, num_runs=16, run_length=32)
    assert torch.equal(again.train[0], DATA.train[0])


@pytest.mark.parametrize("compact", [False, True])
def test_the_exact_network_scores_full_marks(compact) -> None:
    task = repair(0.0, compact)
    scores = figures(task, task.init(generator(0), {}))
    longest = 0
    for run in DATA.runs.unbind(1):
        states = [tuple(state) for state in run.tolist()]
        first_repeat = next(
            (t for t in range(1, len(states)) if states[t] in states[:t]), len(states)
        )
        longest = max(longest, first_repeat - 1)
    assert scores == {"accuracy": 1, "test_loss": 0, "longest_run": longest, "distance": 0}
    assert longest > 8


def test_longest_run_ends_at_the_first_wrong_step() -> None:
    """A network that hands its state on is right only where a machine has halted.

    That counts for no run.
    """
    task = repair(0.0)
    params = task.init(generator(0), {})
    params["layers.22.bias"] = params["layers.22.bias"] + 1  # every bit is 1
    assert figures(task, params)["longest_run"] <= 1


def test_noise_sets_the_distance() -> None:
    task = repair(0.05)
    scores = figures(task, task.init(generator(0), {}))
    assert scores["distance"] == pytest.approx(0.05, rel=0.03)
    assert scores["accuracy"] < 0.5


def test_gradient_descent_repairs() -> None:
    task = repair(0.01)
    params = task.init(generator(1), {})
    before = figures(task, params)
    source = generator(2)
    for _ in range(60):
        gradients = grad(task.loss)(params, task.batch(source, {}), {})
        params = {name: value - 0.003 * gradients[name] for name, value in params.items()}
    after = figures(task, params)
    assert after["test_loss"] < before["test_loss"] / 2
    assert after["accuracy"] > before["accuracy"] + 0.1


def test_hidden_wires_permute_and_state_bits_do_not() -> None:
    network = repair(0.02).network
    spec = infer_permutation_spec(network, DATA.train[0][:3])
    free = [name for name in spec.names if name not in spec.fixed]
    assert len(free) == 22
    assert (
        spec.axes["layers.0.weight"][0]
        == spec.axes["layers.1.weight"][1]
        == spec.axes["layers.0.bias"][0]
    )


def test_looped_mlp_shares_its_weights_and_its_wires() -> None:
    once, twice = (LoopedMLP((3,), 2, width=6, hidden_sizes=(5,), num_loops=k) for k in (1, 2))
    params = once.init(generator(0))
    assert {k: v.shape for k, v in params.items()} == {
        k: v.shape for k, v in twice.init(generator(0)).items()
    }
    x = torch.randn(4, 3, generator=generator(1))
    wires = (x @ params["read.weight"].T + params["read.bias"]).relu()
    for network in (once, twice):
        wires = (wires @ params["loop.0.weight"].T + params["loop.0.bias"]).relu()
        wires = (wires @ params["loop.1.weight"].T + params["loop.1.bias"]).relu()
        expected = wires @ params["write.weight"].T + params["write.bias"]
        torch.testing.assert_close(functional_call(network, params, (x,)), expected)
    spec = infer_permutation_spec(twice, x)
    around = spec.axes["read.weight"][0]
    assert around not in spec.fixed
    assert (
        spec.axes["loop.0.weight"][1]
        == spec.axes["loop.1.weight"][0]
        == spec.axes["write.weight"][1]
        == around
    )


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: repair(-0.1), "noise must not be negative, got -0.1"),
        (
            lambda: NoisySubleq((18,), 18, 8, 4),
            "num_words=8 and word_bits=4 make 35 state bits in and out",
        ),
        (lambda: subleq_steps(4, 2), "a machine of 10 bits has too few states for 34,816 examples"),
        (lambda: subleq_steps(4, 3, num_runs=0), "num_runs must be at least 1, got 0"),
        (lambda: LoopedMLP((3,), 2, num_loops=0), "num_loops must be at least 1, got 0"),
    ],
)
def test_bad_values_are_named(make_bad, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()
