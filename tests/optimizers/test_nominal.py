"""Steps in units of the tensors' sizes: closed forms and invariances."""

from functools import partial

import pytest
import torch

from learned_opt.core.tree import tree_map
from learned_opt.optimizers.hand.hand_designed import HandDesigned
from learned_opt.optimizers.hand.matrix import Muon
from learned_opt.optimizers.hand.references import make_adam
from learned_opt.optimizers.linear_algebra import orthogonalise
from learned_opt.optimizers.nominal import Relative
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry.atoms import PIECES
from learned_opt.symmetry.calls import PICKED
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf import Pointwise
from tests.cases import SPECS, spec_tensors

SPEC = SPECS["mlp"]
LOSS = torch.tensor(1.0)


def tensors(seed: int, scale: float = 1.0) -> dict:
    return {name: scale * value.squeeze(-1) for name, value in spec_tensors(SPEC, 1, seed).items()}


def make(init: str = "zero", **settings: float) -> UNFOptimizer:
    torch.manual_seed(0)
    head = partial(Pointwise, init=init)
    nominal = partial(Relative, **settings)
    optimizer = UNFOptimizer(
        SPEC, head=head, channels=6, alpha=0.1, normalisation="channel", nominal=nominal
    )
    return optimizer.double()


def steps(
    optimizer: torch.nn.Module, params: dict, scale: float = 1.0, number: int = 5
) -> list[dict]:
    """Updates on a fixed stream of gradients, parameters held still."""
    state = optimizer.init_state(params)
    updates = []
    for seed in range(1, number + 1):
        update, state = optimizer(tensors(seed, scale), state, params, LOSS)
        updates.append(update)
    return updates


def size_of(param: torch.Tensor, floor: float) -> torch.Tensor:
    return (param.square().mean() * (param.ndim > 1) + floor**2).sqrt()


def test_without_a_learned_part_it_is_adam_in_units_of_each_tensor() -> None:
    """The tolerance is theta's: hyper-parameters are stored as float32 logs and logits."""
    params = tensors(0)
    ours = steps(make(beta2=0.99, floor=0.1, period=20.0), params)
    adam = steps(make_adam(SPEC, lr=0.1, beta2=0.99, eps=1e-12).double(), params)
    for t, (update, adam_update) in enumerate(zip(ours, adam, strict=True), start=1):
        for name, value in adam_update.items():
            expected = value * size_of(params[name], 0.1) / (1 + t / 20) ** 0.5
            torch.testing.assert_close(update[name], expected, rtol=1e-5, atol=1e-7)


def test_orthogonal_steps_are_muons_for_matrices_and_adams_for_vectors() -> None:
    """At the first step every average is a multiple of the gradient, Nesterov's too."""
    params = tensors(0)
    (ours,) = steps(make(orthogonal=True, floor=0.1, period=20.0), params, number=1)
    (muon,) = steps(HandDesigned(SPEC, partial(Muon, gamma=0.9), lr=0.1).double(), params, number=1)
    for name, value in muon.items():
        rate = size_of(params[name], 0.1) / (1 + 1 / 20) ** 0.5
        unit = value / 0.2 if value.ndim > 1 else value  # Muon's steps are a fifth of order one
        torch.testing.assert_close(ours[name], unit * rate, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_without_an_added_part_a_tensor_at_rest_stays(orthogonal) -> None:
    """What was learned can scale the direction only."""
    params = tensors(0)
    zero = tree_map(torch.zeros_like, params)
    for additive in (True, False):
        optimizer = make("lecun", orthogonal=orthogonal, additive=additive)
        updates, _ = optimizer(zero, optimizer.init_state(params), params, LOSS)
        assert any((update != 0).any() for update in updates.values()) is additive


def test_without_the_added_output_it_is_the_same_with_that_output_at_zero() -> None:
    factor_only = make("lecun", orthogonal=True, additive=False)
    both = make("lecun", orthogonal=True)
    theta = dict(factor_only.named_parameters())
    with torch.no_grad():
        for name, param in both.named_parameters():
            last = param.shape != theta[name].shape
            param.zero_()[..., -1:].copy_(theta[name]) if last else param.copy_(theta[name])

    factor_steps = steps(factor_only, tensors(0))
    both_steps = steps(both, tensors(0))
    for left, right in zip(factor_steps, both_steps, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("additive", "least", "most"), [(True, 3.0, 4.0), (False, 0.8, 1.25)])
def test_what_is_added_grows_with_the_width_and_factors_do_not(additive, least, most) -> None:
    """Spectral norm of a step over that of its direction; the learned output is of rank one."""
    norms = []
    for width in (16, 256):
        direction = torch.linalg.qr(torch.randn(width, width)).Q * width**0.5
        signs = torch.randn(2, width, 1).sign()
        learned = torch.stack([torch.ones(width, width), signs[0] @ signs[1].mT], -1)
        nominal = Relative(orthogonal=True, additive=additive, limit=100.0, period=1e9)
        trees = ({"weight": value} for value in (direction, learned, torch.ones(width, width)))
        step = nominal.updates(*trees, {}, torch.tensor(0.5))["weight"]
        norms.append(torch.linalg.matrix_norm(step, 2) / torch.linalg.matrix_norm(direction, 2))
    assert least < norms[1] / norms[0] < most


@pytest.mark.parametrize("orthogonal", [False, True])
def test_scaling_the_loss_changes_nothing(orthogonal) -> None:
    runs = (steps(make("lecun", orthogonal=orthogonal), tensors(0), scale) for scale in (1.0, 1e4))
    for plain, scaled in zip(*runs, strict=True):
        for name, value in plain.items():
            torch.testing.assert_close(scaled[name], value, rtol=1e-6, atol=1e-9)


def test_scaling_a_matrix_scales_its_steps() -> None:
    """``loss(scale x)`` from ``x / scale``: scale times the gradient, 1 / scale times the step."""
    plain = steps(make("lecun", floor=1e-9), tensors(0), 1.0)
    scaled = steps(make("lecun", floor=1e-9), tensors(0, 1 / 100.0), 100.0)
    for plain_step, scaled_step in zip(plain, scaled, strict=True):
        for name, value in plain_step.items():
            expected = value / 100 if value.ndim > 1 else value
            torch.testing.assert_close(scaled_step[name], expected, rtol=1e-6, atol=1e-12)


def test_no_step_is_longer_than_the_limit() -> None:
    optimizer = make("lecun", limit=2.0)
    params = tensors(0)
    with torch.no_grad():
        optimizer.log_beta.fill_(4.0)  # whatever was learned
    for updates in steps(optimizer, params):
        for name, update in updates.items():
            assert update.square().mean().sqrt() <= 1.0001 * 0.1 * 2.0 * size_of(params[name], 0.1)
    assert max(update.square().mean().sqrt() for update in updates.values()) > 0.05  # it is reached


def test_rows_of_an_orthogonal_step_are_limited() -> None:
    """A large vocabulary of which a batch has two words: all of the direction lies in two rows."""
    spec = PermutationSpec({"words": ("word", "channel")})
    grads = {"words": torch.zeros(200, 4)}
    grads["words"][[3, 50]] = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    params = {"words": torch.ones(200, 4)}

    rows = {}
    for limit in (None, 2.0):
        nominal = partial(Relative, orthogonal=True, row_limit=limit, floor=1e-6, limit=100.0)
        head = partial(Pointwise, init="zero")
        optimizer = UNFOptimizer(spec, head=head, alpha=1.0, nominal=nominal)
        updates, _ = optimizer(grads, optimizer.init_state(params), params, LOSS)
        rows[limit] = updates["words"].square().mean(1).sqrt() * (1 + 1 / 30) ** 0.5
    assert rows[None].max() > 5
    assert rows[2.0].max().item() == pytest.approx(2.0, rel=1e-5)
    assert (rows[2.0] > 0).sum() == 2


@pytest.mark.parametrize("orthogonal", [False, True])
def test_weights_without_gradient_stay_and_have_finite_meta_gradients(orthogonal) -> None:
    optimizer = make(orthogonal=orthogonal)
    params = tensors(0)
    state = optimizer.init_state(params)
    for _ in range(3):
        updates, state = optimizer(tree_map(torch.zeros_like, params), state, params, LOSS)
    assert all((update == 0).all() for update in updates.values())
    sum((update + 1).square().sum() for update in updates.values()).backward()
    assert all(p.grad.isfinite().all() for p in optimizer.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta2": 1.0}, "beta2 must lie between 0 and 1, got 1.0"),
        ({"orthogonal": "perhaps"}, "orthogonal must be true or false, got 'perhaps'"),
        ({"additive": 2}, "additive must be true or false, got 2"),
        ({"floor": 0.0}, "floor must be positive, got 0.0"),
        ({"period": -1.0}, "period must be positive, got -1.0"),
        ({"power": 0.0}, "power must be positive, got 0.0"),
        ({"limit": 0.0}, "limit must be positive, got 0.0"),
        ({"row_limit": 0.0}, "row_limit must be positive, got 0.0"),
    ],
)
def test_bad_values_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Relative(**settings)


def test_rules_change_the_direction_of_the_tensors_that_they_name() -> None:
    params = tensors(0)
    name = next(name for name, param in params.items() if param.ndim > 1)
    orthogonal = make(orthogonal=True)
    mixed = orthogonal.with_rules({name: "adam"})
    adam = make(orthogonal=False)

    assert mixed.rules(params)[name] == "adam"
    assert orthogonal.rules(params)[name] == "orthogonal"
    assert name not in orthogonal.init_state(params)["second"]
    assert next(mixed.parameters()) is next(orthogonal.parameters())

    for got, expected, other in zip(
        steps(mixed, params), steps(orthogonal, params), steps(adam, params), strict=True
    ):
        for tensor, update in got.items():
            assert torch.equal(update, other[tensor] if tensor == name else expected[tensor])


def test_rules_that_cannot_be_are_refused() -> None:
    vector = next(name for name, param in tensors(0).items() if param.ndim == 1)
    with pytest.raises(ValueError, match="must be one of orthogonal, adam, got 'sgd'"):
        make(rules={"weight": "sgd"})
    with pytest.raises(ValueError, match=f"{vector} has 1"):
        make(orthogonal=True).with_rules({vector: "orthogonal"}).init_state(tensors(0))
    with pytest.raises(ValueError, match="Momentum treats all tensors by one rule"):
        UNFOptimizer(SPEC).with_rules({vector: "adam"})
    with pytest.raises(ValueError, match="HandDesigned treats all tensors by one rule"):
        HandDesigned(SPEC, partial(Muon, gamma=0.9), lr=0.1).with_rules({vector: "adam"})


def test_steps_fall_along_a_line_where_the_length_of_the_training_is_known() -> None:
    params = tensors(0)
    head = partial(Pointwise, init="zero")
    nominal = partial(Relative, period=1e12)  # does not fall by itself
    torch.manual_seed(0)
    free = UNFOptimizer(SPEC, head=head, channels=6, nominal=nominal, falls_linearly=True).double()
    known = free.with_num_steps(4)

    pairs = zip(steps(free, params), steps(known, params), strict=True)
    for t, (constant, falling) in enumerate(pairs):
        for name, update in falling.items():
            expected = max(0.0, 1 - t / 4) * constant[name]
            torch.testing.assert_close(update, expected, rtol=1e-9, atol=0)

    nominal = Relative(period=30.0, power=0.5)
    assert nominal.share_of_line(torch.tensor(900)).item() == pytest.approx(0.5)

    with pytest.raises(ValueError, match="falls_linearly must be true or false, got 'yes'"):
        UNFOptimizer(SPEC, falls_linearly="yes")  # pyright: ignore[reportArgumentType]


def test_by_role_embeddings_take_adams_direction_and_stacked_matrices_each_their_own() -> None:
    axes = {"words": ("word", "width"), "packed": ("piece", "head", "size", "width")}
    reasons = {"word": PICKED, "piece": PIECES}
    spec = PermutationSpec(axes, set(reasons), {"packed": ((3, 2, 2), (5,))}, reasons)
    params = {"words": torch.randn(7, 5), "packed": torch.randn(12, 5)}
    grads = {name: torch.randn_like(param) for name, param in params.items()}
    gamma = torch.tensor(0.5)
    step = torch.tensor(1)

    nominal = Relative(orthogonal=True, by_role=True)
    state = nominal.init_state(params, spec)
    directions, _ = nominal.advance(grads, state, step, gamma, spec)
    assert list(state["second"]) == ["words"]
    torch.testing.assert_close(directions["words"], grads["words"].sign(), rtol=1e-3, atol=1e-3)

    for piece, grad in zip(directions["packed"].chunk(3), grads["packed"].chunk(3), strict=True):
        expected = 5**0.5 * orthogonalise(grad * (1 - gamma))
        torch.testing.assert_close(piece, expected)
