"""Celo, Celo-Adam, Celo2 and VeLO against the steps of their authors' programs."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from learned_opt import LearnedOptimizer
from learned_opt.core import tree
from learned_opt.deploy import construct, published, published_layout
from learned_opt.optimizers import celo
from learned_opt.optimizers.celo2 import Celo2
from learned_opt.optimizers.features import Reading
from learned_opt.optimizers.relative_step import clip_gradients
from learned_opt.optimizers.velo_features import VeLOFeatures
from learned_opt.symmetry import PermutationSpec
from tests.helpers.flax_file import flax_bytes

ORACLES = Path(__file__).parents[3] / "shared" / "oracles"
if not ORACLES.is_dir():
    pytest.skip("the shared oracles are not here", allow_module_level=True)

NAMES = ("b0", "b1", "conv_hwio", "conv_oihw", "scalar", "square", "w0", "w1")
approx = partial(pytest.approx, rel=1e-5)
SPEC = PermutationSpec(dict.fromkeys(NAMES, ("a",) * 4))


def oracle(name: str) -> dict[str, np.ndarray]:
    with np.load(ORACLES / f"{name}.npz") as file:
        return dict(file)


def ours(array: np.ndarray) -> torch.Tensor:
    """A tensor of JAX (positions, in, out) as torch stores it (out, in, positions)."""
    tensor = torch.from_numpy(np.array(array, dtype=np.float32))
    if tensor.ndim < 2:
        return tensor
    return tensor.permute(tensor.ndim - 1, tensor.ndim - 2, *range(tensor.ndim - 2)).contiguous()


def from_file(name: str, file: str, **settings) -> torch.nn.Module:
    """The optimizer of an authors' file."""
    read = published.read(ORACLES / "celo" / file)
    return with_theta(name, read, **settings)


def with_theta(name: str, read: published.Published, **settings) -> torch.nn.Module:
    node = {**read.metadata["meta_optimizer"], **settings}
    optimizer = construct.build(node, SPEC)
    assert read.metadata["optimizer_name"] == name
    optimizer.load_state_dict(read.theta)
    return optimizer


def velo_file(folder: Path, data: dict) -> Path:
    """The random weights of the oracle, laid out as VeLO's authors do."""
    theta = {}
    for key, array in data.items():
        if key.startswith("theta/"):
            _, part, name = key.split("/", 2)
            keys = name.rsplit("/", 1)
            branch = theta.setdefault(part, {})
            for inner in keys[:-1]:
                branch = branch.setdefault(inner, {})
            branch[keys[-1]] = array
    path = folder / "params"
    path.write_bytes(flax_bytes({"params": theta, "gen_id": "oracle", "step": 70_000}))
    return path


@torch.no_grad()
def walk(optimizer: torch.nn.Module, start: dict, data: dict, num_steps: int, count: int):
    """Parameters and states behind every step on the gradients of an oracle."""
    params = start
    optimizer = optimizer.with_num_steps(num_steps)
    state = optimizer.init_state(params)
    for step in range(count):
        grads = {name: ours(data[f"grads/{name}"][step]) for name in NAMES}
        loss = torch.tensor(data["loss"][step])
        updates, state = optimizer(grads, state, params, loss)
        params = tree.add(params, updates)
        yield step, params, state


def start_of(data: dict, prefix: str) -> dict:
    return {name: ours(data[f"{prefix}params/{name}"][0]) for name in NAMES}


def check_params(params: dict, data: dict, prefix: str, step: int, tolerance: float) -> None:
    for name in NAMES:
        expected = ours(data[f"{prefix}params/{name}"][step + 1])
        torch.testing.assert_close(params[name], expected, rtol=0, atol=tolerance, msg=name)


def close(tensor: torch.Tensor, array: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(tensor, torch.from_numpy(array), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("run", "num_steps"), [("A", 20), ("B", 1000)])
def test_celo(run, num_steps) -> None:
    data = oracle("celo_steps")
    optimizer = from_file("celo", "theta.state")
    start = start_of(data, f"{run}/")
    rates = []
    for step, params, state in walk(optimizer, start, data, num_steps, 20):
        check_params(params, data, f"{run}/", step, 3e-6)
        for row, key in enumerate(("hidden", "cell")):
            close(state["lstm"][row], data[f"{run}/lstm_{key}"][step + 1], 1e-4)
        rate = optimizer.scheduler.read_rate(state["lstm"][0]).exp()
        rates.append(celo.RATE * rate.item())

    expected = data[f"{run}/lr_mult"]
    assert np.ptp(expected, 1).max() == 0  # one number for all tensors
    np.testing.assert_allclose(rates, expected[:, 0], rtol=0, atol=7.3e-5)
    if run == "A":
        assert (rates[0], rates[1], rates[19]) == approx((0.443601, 0.938187, 0.270491))
        norms = [params[name].norm().item() for name in ("w0", "conv_hwio", "square")]
        assert norms == approx([3.00731, 2.33421, 0.121296])


@torch.no_grad()
def test_the_30_inputs_are_those_of_celo() -> None:
    data = oracle("celo_steps")
    features = VeLOFeatures()
    state = features.init_state(start_of(data, "A/"))
    for step in range(20):
        params = {name: ours(data[f"A/params/{name}"][step]) for name in NAMES}
        grads = {name: ours(data[f"grads/{name}"][step]) for name in NAMES}
        reading = Reading(clip_gradients(grads), params, torch.tensor(step + 1))
        channels, state = features(reading, state)
        if step not in (0, 1, 2, 19):
            continue
        for name in NAMES:
            theirs = data[f"A/features/{name}"][(0, 1, 2, 19).index(step)]
            per_channel = [ours(theirs[..., c]) for c in range(30)]
            expected = torch.stack(per_channel, -1).reshape(channels[name].shape)
            torch.testing.assert_close(channels[name], expected, rtol=0, atol=1.6e-4, msg=name)


def test_roles_of_rows_and_columns_of_a_square_weight_matter() -> None:
    """Negative control: the transposed square, with the roles that it then has, steps elsewhere."""
    data = oracle("celo_steps")
    optimizer = from_file("celo", "theta.state")
    start = start_of(data, "A/")
    turned = {**data, "grads/square": data["grads/square"].swapaxes(1, 2)}
    start["square"] = start["square"].T.contiguous()
    *_, (_, params, _) = walk(optimizer, start, turned, 20, 20)
    difference = params["square"].T - ours(data["A/params/square"][20])
    assert difference.abs().max() > 3e-5


def test_celo_adam() -> None:
    data = oracle("celo_adam_steps")
    inputs = oracle("celo_steps")
    optimizer = from_file("celo_adam", "celo_adam_theta.state")
    for step, params, _ in walk(optimizer, start_of(data, ""), inputs, 20, 20):
        check_params(params, data, "", step, 3e-6)


@pytest.mark.parametrize(("run", "tolerance"), [("base", 2e-5), ("orthogonal", 3e-4)])
@torch.no_grad()
def test_celo2(run, tolerance) -> None:
    """Directions before the learning rate; vectors are moved by the MLP, as in the oracle."""
    data = oracle("celo2_random")
    inputs = oracle("celo_steps")
    orthogonal = run == "orthogonal"
    names = [name for name in NAMES if f"{run}/steps/{name}" in data]
    optimizer = Celo2(SPEC, lr=1.0, vectors=None, orthogonal=orthogonal)
    optimizer.load_state_dict({"log_lr": torch.tensor(0.0), **celo2_theta(data)})

    params = {name: ours(inputs[f"A/params/{name}"][0]) for name in names}
    state = optimizer.init_state(params)
    for step in range(10):
        grads = {name: ours(inputs[f"grads/{name}"][step]) for name in names}
        updates, state = optimizer(grads, state, params, torch.tensor(1.0))
        for name in names:
            expected = -ours(data[f"{run}/steps/{name}"][step])
            torch.testing.assert_close(updates[name], expected, rtol=0, atol=tolerance, msg=name)
        params = {name: params[name] + 0.001 * updates[name] for name in names}


def celo2_theta(data: dict) -> dict[str, torch.Tensor]:
    """The MLP of the oracle; of its three outputs only the first one acts."""
    prefix = "theta/ff_mod_stack/~/"
    arrays = {
        key.removeprefix(prefix): torch.from_numpy(data[key]) for key in data if prefix in key
    }
    assert tree.num_elements(arrays) == 347
    return {
        "function.layers.0.weight": torch.cat([arrays[f"w0__{i}"] for i in range(14)]),
        "function.layers.0.bias": arrays["b0"],
        "function.layers.1.weight": arrays["w1"],
        "function.layers.1.bias": arrays["b1"],
        "function.layers.2.weight": arrays["w2"][:, :1],
        "function.layers.2.bias": arrays["b2"][:1],
    }


@pytest.mark.parametrize(("run", "moved"), [("plain", 0.149134), ("bugged", 0.0253887)])
def test_velo(run, moved, tmp_path) -> None:
    data = oracle("velo_random")
    read = published.read(velo_file(tmp_path, data))
    assert read.num_numbers == 46_337
    bugged = run == "bugged"
    optimizer = with_theta("velo", read, fixed_decays=bugged, fixed_lstm=bugged)
    start = start_of(data, f"{run}/")
    for step, params, state in walk(optimizer, start, data, 50, 10):
        check_params(params, data, f"{run}/", step, 3e-6)
        if not bugged:  # in the oracle its state stays at the start, in ours it does not matter
            hidden = torch.stack([state["lstm"][name][0] for name in NAMES])
            close(hidden, data[f"{run}/lstm_hidden"][step + 1], 1e-5)
    assert (params["w0"] - start["w0"]).norm().item() == approx(moved)


def test_numbers_in_files() -> None:
    """Those that never act are in the files alone."""
    celo_file = published.read(ORACLES / "celo" / "theta.state")
    assert celo_file.num_numbers == 37_089
    assert tree.num_elements(celo_file.theta) == 35_803
    adam_file = published.read(ORACLES / "celo" / "celo_adam_theta.state")
    assert adam_file.num_numbers == 36_865
    full = published_layout.scheduler_layout(30, 512, 256) | published_layout.bank_layout(256)
    assert sum(math.prod(shape) for shape in full.values()) == 2_320_385


@pytest.mark.parametrize(("name", "file"), [("celo", "theta"), ("celo_adam", "celo_adam_theta")])
def test_deployed_steps_are_those_of_the_authors(name, file) -> None:
    inputs = oracle("celo_steps")
    data, prefix = (inputs, "A/") if name == "celo" else (oracle("celo_adam_steps"), "")
    model = torch.nn.ParameterDict(start_of(data, prefix))
    path = ORACLES / "celo" / f"{file}.state"
    optimizer = LearnedOptimizer.from_pretrained(name, model, weights=path, num_steps=20)
    for step in range(20):
        for key, param in model.items():
            param.grad = ours(inputs[f"grads/{key}"][step])
        optimizer.step(loss=float(inputs["loss"][step]))
    check_params(dict(model.items()), data, prefix, 19, 3e-6)


def test_velo_deployed(tmp_path) -> None:
    data = oracle("velo_random")
    model = torch.nn.ParameterDict(start_of(data, "plain/"))
    path = velo_file(tmp_path, data)
    optimizer = LearnedOptimizer.from_pretrained("velo", model, weights=path, num_steps=50)
    for step in range(10):
        for key, param in model.items():
            param.grad = ours(data[f"grads/{key}"][step])
        optimizer.step(loss=float(data["loss"][step]))
    check_params(dict(model.items()), data, "plain/", 9, 3e-6)
