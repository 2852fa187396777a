"""Every meta-optimizer through the contract, and each against its closed form or reference."""

import pytest
import torch
from torch.func import functional_call, grad_and_value, vmap

from learned_opt.core import tree
from learned_opt.optimizers import features
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import Pointwise, UNFLinear
from tests.cases import (
    CHAINS_ONLY,
    FAMILIES,
    FITS_EVERY_SPEC,
    NOT_DIFFERENTIABLE,
    OPTIMIZERS,
    PAIRS,
    PAIRS_ONCE,
    POINTWISE,
    SPECS,
    TELLS_POSITIONS_APART,
    others_slow,
    spec_of,
    spec_tensors,
)

SPEC = SPECS["mlp"]


def tensors(seed: int, spec: PermutationSpec = SPEC, dtype: torch.dtype = torch.float64) -> dict:
    return {name: value.squeeze(-1) for name, value in spec_tensors(spec, 1, seed, dtype).items()}


def make(name: str, spec: PermutationSpec = SPEC) -> torch.nn.Module:
    torch.manual_seed(0)
    return OPTIMIZERS[name](spec).double()


def warm_state(optimizer: torch.nn.Module, steps: int = 3) -> tuple[dict, dict]:
    """Parameters and opt_state after a few steps on random gradients."""
    params = tensors(0, optimizer.spec)
    state = optimizer.init_state(params)
    for seed in range(1, steps + 1):
        updates, state = optimizer(tensors(seed, optimizer.spec), state, params, torch.tensor(1.0))
        params = tree.add(params, updates)
    return params, state


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_shapes_dtypes_and_step_are_kept(name) -> None:
    optimizer = make(name)
    params, state = warm_state(optimizer)
    updates, after = optimizer(tensors(9), state, params, torch.tensor(1.0))
    for key, value in params.items():
        assert updates[key].shape == value.shape
        assert updates[key].dtype == value.dtype
        assert updates[key].isfinite().all()
    for old, new in zip(tree.leaves(state), tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    assert (state["step"].item(), after["step"].item()) == (3, 4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_vmap_over_theta_equals_loop(name) -> None:
    optimizer = make(name)
    params, state = warm_state(optimizer)
    theta = dict(optimizer.named_parameters())
    scales = [0.9, 1.0, 1.1]
    many = tree.stack([tree.tree_map(lambda leaf, s=s: leaf.detach() * s, theta) for s in scales])
    grads = tensors(9)
    loss = torch.tensor(1.0)
    batched, _ = vmap(lambda t: functional_call(optimizer, t, (grads, state, params, loss)))(many)
    for i in range(len(scales)):
        alone, _ = functional_call(
            optimizer, {k: v[i] for k, v in many.items()}, (grads, state, params, loss)
        )
        for key, value in alone.items():
            torch.testing.assert_close(batched[key][i], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_meta_parameter_gets_a_gradient(name) -> None:
    optimizer = make(name)
    params, state = warm_state(optimizer, steps=6)  # RAdam starts to use its second moment
    updates, _ = optimizer(tensors(9), state, params, torch.tensor(1.0))
    sum((update**2).sum() for update in updates.values()).backward()
    hidden = NOT_DIFFERENTIABLE.get(name, set())
    for key, parameter in optimizer.named_parameters():
        has_gradient = parameter.grad is not None and parameter.grad.abs().max() > 0
        assert has_gradient == (key not in hidden), key


@pytest.mark.parametrize(
    ("name", "spec_name"),
    [
        (n, s)
        for n in OPTIMIZERS
        for s in ("mlp", "cnn", "rank3")
        if n not in CHAINS_ONLY or s in ("mlp", "cnn")
    ],
)
def test_steps_commute_with_permutation(name, spec_name) -> None:
    """Four steps, so that what the state remembers must be permuted as well."""
    spec = SPECS[spec_name]
    optimizer = make(name, spec)
    params = tensors(0, spec)
    element = spec.draw(
        params, torch.Generator().manual_seed(1), with_fixed=name not in TELLS_POSITIONS_APART
    )
    moved = spec.apply(params, element)
    states = optimizer.init_state(params), optimizer.init_state(moved)
    for seed in range(1, 5):
        grads = tensors(seed, spec)
        loss = torch.tensor(1.0)
        updates, state = optimizer(grads, states[0], params, loss)
        moved_updates, moved_state = optimizer(spec.apply(grads, element), states[1], moved, loss)
        states = state, moved_state
        params, moved = tree.add(params, updates), tree.add(moved, moved_updates)
        for key, value in spec.apply(updates, element).items():
            torch.testing.assert_close(moved_updates[key], value, rtol=0, atol=1e-10)
        smallest = min(update.abs().max() for update in updates.values())
        assert seed == 1 or smallest > 1e-6  # SOAP's first step is none


def test_a_permuted_gradient_alone_changes_the_step() -> None:
    """Negative control of the test above."""
    optimizer = make("unf")
    params, state = warm_state(optimizer)
    grads = tensors(9)
    broken = {k: v.roll(1, 0) if k == "layers.0.weight" else v for k, v in grads.items()}
    updates, _ = optimizer(grads, state, params, torch.tensor(1.0))
    moved, _ = optimizer(broken, state, params, torch.tensor(1.0))
    assert (moved["layers.0.weight"] - updates["layers.0.weight"].roll(1, 0)).abs().max() > 1e-3


@pytest.mark.parametrize("head", [UNFLinear, Pointwise])
def test_beta_zero_is_sgdm_bit_for_bit(head) -> None:
    learned = UNFOptimizer(SPEC, head=head, alpha=0.3, beta=0.0, gamma=0.8)
    plain = make_sgdm(SPEC, lr=0.3, gamma=0.8)
    params = tensors(0, dtype=torch.float32)
    states = learned.init_state(params), plain.init_state(params)
    for seed in range(1, 6):
        grads = tensors(seed, dtype=torch.float32)
        left, state_left = learned(grads, states[0], params, torch.tensor(1.0))
        right, state_right = plain(grads, states[1], params, torch.tensor(1.0))
        states = state_left, state_right
        assert all(torch.equal(left[k], right[k]) for k in params)
        params = tree.add(params, left)


def test_momenta_and_time_features() -> None:
    params = {"w": torch.zeros(2, dtype=torch.float64)}
    momenta = features.init_momenta(params)
    for _ in range(7):  # a constant gradient g gives g (1 - decay^7)
        momenta = features.update_momenta(
            momenta, {"w": torch.tensor([1.0, -2.0], dtype=torch.float64)}
        )
    decays = torch.tensor(features.MOMENTUM_DECAYS, dtype=torch.float64)
    expected = (1 - decays**7)[:, None] * torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(momenta["w"], expected)
    time = features.time_features(torch.tensor(30), torch.float64)
    assert time.shape == (11,)
    assert time[3] == 0  # tau = 30
    assert time[0] == pytest.approx(1.0)
    assert features.NUM_FEATURES == 19


def test_normalisations() -> None:
    params = {"w": torch.full((4,), 5.0)}
    grads = {"w": torch.full((4,), 0.1)}
    momenta = {"w": torch.zeros(6, 4)}
    joint = features.tensor_features(params, grads, momenta, "joint")["w"]
    rms = (1e-5 + (1.0**2 + 0.1**2) / 8) ** 0.5  # the parameter is clipped to 1, six channels are 0
    torch.testing.assert_close(joint[0], torch.tensor([1.0, 0.1, 0, 0, 0, 0, 0, 0]) / rms)
    channel = features.tensor_features(params, grads, momenta, "channel")["w"]
    torch.testing.assert_close(channel[0], torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rebound_theta_makes_the_steps_of_one_that_is_built_there(name) -> None:
    """Or is refused: no optimizer that reads its spec may inherit the default of the base class."""
    optimizer = make(name)
    other = SPECS["square"]
    if name not in FITS_EVERY_SPEC:
        with pytest.raises(ValueError, match="belongs to one weight space"):
            optimizer.rebind(other)
        return

    moved = optimizer.rebind(other)
    built = make(name, other)
    built.load_state_dict(optimizer.state_dict())
    params = tensors(0, other)
    states = [moved.init_state(params), built.init_state(params)]
    for seed in (1, 2):
        grads = tensors(seed, other)
        updates, states[0] = moved(grads, states[0], params, torch.tensor(1.0))
        expected, states[1] = built(grads, states[1], params, torch.tensor(1.0))
        assert tree.difference(list(expected), list(updates)) == ""
        assert all(torch.equal(updates[key], value) for key, value in expected.items())
        params = tree.add(params, updates)
    assert optimizer.spec == SPEC


def test_rebind() -> None:
    other = SPECS["square"]
    for pointwise in (make(name) for name in (*POINTWISE, "deep_set")):
        moved = pointwise.rebind(other)
        assert (moved.spec, pointwise.spec) == (other, SPEC)
        pairs = zip(moved.named_parameters(), pointwise.named_parameters(), strict=True)
        assert all(a == b and p is q for (a, p), (b, q) in pairs)  # one theta
    with pytest.raises(ValueError, match="belongs to one weight space"):
        UNFOptimizer(SPEC).rebind(other)


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: make_sgdm(SPEC, lr=-1), "lr must be positive, got -1"),
        (lambda: make_adam(SPEC, beta2=1.0), "beta2 must lie between 0 and 1, got 1.0"),
        (lambda: make_adam(SPEC, eps=0), "eps must be positive"),
        (lambda: UNFOptimizer(SPEC, alpha=0), "alpha must be positive"),
        (lambda: UNFOptimizer(SPEC, beta=-1), "beta must not be negative"),
        (lambda: UNFOptimizer(SPEC, gamma=1), "gamma must lie between 0 and 1"),
        (lambda: UNFOptimizer(SPEC, num_layers=0), "num_layers must be at least 1"),
        (lambda: UNFOptimizer(SPEC, normalisation="none"), "normalisation must be one of"),
    ],
)
def test_bad_values_are_named(make_bad, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()


MOVED = [pair for pair in PAIRS if pair[1] in ("unf", "unf_fold", "nfn")]
MOVED_ONCE = {("cnn", "unf_fold"), ("gru", "unf_fold"), ("cnn", "nfn"), *PAIRS_ONCE}


@pytest.mark.parametrize(("family_name", "name"), others_slow(MOVED, MOVED_ONCE))
def test_a_whole_inner_step_commutes_with_the_symmetries_of_each_network(family_name, name) -> None:
    """Gradients are taken at the permuted weights, so this also proves the spec.

    In float32, with updates of order 0.01.
    """
    family = FAMILIES[family_name]()
    spec = spec_of(family)
    source = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    optimizer = OPTIMIZERS[name](spec)
    task = family.sample(source)
    params = family.init(source, task)
    # noise of the units of a layer, such as dropout, stays where it is when they are permuted
    batch = family.without_noise(family.batch(source, task))
    element = spec.draw(params, source)

    def step(params: dict) -> dict:
        grads, loss = grad_and_value(family.loss)(params, batch, task)
        return optimizer(grads, optimizer.init_state(params), params, loss)[0]

    updates = step(params)
    moved = step(spec.apply(params, element))
    for key, value in spec.apply(updates, element).items():
        torch.testing.assert_close(moved[key], value, rtol=1e-3, atol=1e-5)
    assert max(update.abs().max() for update in updates.values()) > 1e-3


EMPTY = {"empty": ("none", "input"), "nothing": ("none",)}  # parameters of 0 entries


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_without_entries_spoil_no_step(name) -> None:
    if name == "nfn":
        pytest.skip("an empty matrix that reads the input is no chain of layers")

    axes = {"weight": ("output", "input"), "bias": ("output",)}
    params = {"weight": torch.randn(3, 4), "bias": torch.randn(3)}
    extra = {"empty": torch.zeros(0, 4), "nothing": torch.zeros(0)}
    spec = PermutationSpec(axes | EMPTY, {"input", "none"}).measure(params | extra)
    optimizer = OPTIMIZERS[name](spec)

    current = params | extra
    state = optimizer.init_state(current)
    for seed in range(3):
        source = torch.Generator().manual_seed(seed)
        grads = {key: torch.randn(leaf.shape, generator=source) for key, leaf in current.items()}
        with torch.no_grad():
            updates, state = optimizer(grads, state, current, torch.tensor(1.0))
        current = tree.add(current, updates)

    assert all(leaf.isfinite().all() for leaf in current.values())
    assert {key: leaf.shape for key, leaf in current.items()} == {
        key: leaf.shape for key, leaf in (params | extra).items()
    }
    assert not torch.equal(current["weight"], params["weight"])
