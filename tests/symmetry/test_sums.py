"""Concatenated axes: each part permutes by its own permutation, as brute force finds it."""

from collections.abc import Callable
from itertools import permutations, product
from math import factorial, prod

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec, check_spec, infer_permutation_spec
from learned_opt.unf import TypeTied
from tests.cases import others_slow
from tests.helpers.torch_modules import IMAGES, SEQUENCES, VECTORS, Case
from tests.helpers.wirings import Wire

linear = nn.Linear
conv = nn.Conv2d


def joined(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(torch.cat([torch.relu(m.a(x)), torch.tanh(m.b(x))], -1))


def joined_with_input(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(torch.cat([x, torch.relu(m.a(x)), torch.ones(x.shape[0], 1)], -1))


def nested(m: nn.Module, x: Tensor) -> Tensor:
    first = torch.cat([torch.relu(m.a(x)), torch.tanh(m.b(x))], -1)
    return m.out(torch.cat([torch.relu(m.mix(first)), first], -1))


def cut_again(m: nn.Module, x: Tensor) -> Tensor:
    whole = torch.cat([torch.relu(m.a(x)), torch.tanh(m.b(x))], -1)
    left, right = whole.split([m.a.out_features, m.b.out_features], -1)
    return m.left(left) + m.right(right)


def unequal_parts(m: nn.Module, x: Tensor) -> Tensor:
    hidden = m.a(x)
    return m.left(torch.relu(hidden[:, :2])) + m.right(torch.tanh(hidden[:, 2:]))


def normalised(m: nn.Module, x: Tensor) -> Tensor:
    return m.out(m.norm(torch.cat([torch.relu(m.a(x)), torch.tanh(m.b(x))], -1)))


def in_halves(m: nn.Module, x: Tensor) -> Tensor:
    whole = torch.cat([torch.relu(m.a(x)), torch.tanh(m.b(x))], -1)
    return m.out(whole.unflatten(-1, (2, 2)).prod(-2))


def both_directions(m: nn.Module, x: Tensor) -> Tensor:
    return m.head(m.cell(x)[0].mean(1))


def skip(m: nn.Module, x: Tensor) -> Tensor:
    top = torch.relu(m.down(x))
    low = torch.relu(m.low(nn.functional.max_pool2d(top, 2)))
    return m.out(torch.cat([top, nn.functional.interpolate(low, scale_factor=2)], 1))


def flattened(m: nn.Module, x: Tensor) -> Tensor:
    both = torch.cat([torch.relu(m.a(x)), torch.tanh(m.b(x))], 1)
    return m.out(nn.functional.avg_pool2d(both, 4).flatten(1))


def added_parts(m: nn.Module, x: Tensor) -> Tensor:
    # the sums 2 + 3 and 3 + 2 meet: only their common refinement 2 + 1 + 2 is left
    first = torch.cat([torch.relu(m.a(x)), torch.relu(m.b(x))], -1)
    second = torch.cat([torch.tanh(m.c(x)), torch.tanh(m.d(x))], -1)
    return m.out(first * second)


# how many hidden units may permute, by the size of each group that does
JOINED: dict[str, tuple[Case, tuple[int, ...]]] = {
    "unequal": (
        Case(lambda: Wire(joined, a=linear(4, 2), b=linear(4, 3), out=linear(5, 2)), (VECTORS,), 2),
        (2, 3),
    ),
    "equal": (
        Case(lambda: Wire(joined, a=linear(4, 3), b=linear(4, 3), out=linear(6, 2)), (VECTORS,), 2),
        (3, 3),
    ),
    "with_input": (
        Case(lambda: Wire(joined_with_input, a=linear(4, 3), out=linear(8, 2)), (VECTORS,), 1),
        (3,),
    ),
    "nested": (
        Case(
            lambda: Wire(
                nested, a=linear(4, 2), b=linear(4, 3), mix=linear(5, 2), out=linear(7, 2)
            ),
            (VECTORS,),
            3,
        ),
        (2, 3, 2),
    ),
    "cut_again": (
        Case(
            lambda: Wire(
                cut_again, a=linear(4, 2), b=linear(4, 3), left=linear(2, 2), right=linear(3, 2)
            ),
            (VECTORS,),
            2,
        ),
        (2, 3),
    ),
    "unequal_parts": (
        Case(
            lambda: Wire(unequal_parts, a=linear(4, 5), left=linear(2, 2), right=linear(3, 2)),
            (VECTORS,),
            2,
        ),
        (2, 3),
    ),
    "normalised": (
        Case(
            lambda: Wire(
                normalised, a=linear(4, 2), b=linear(4, 3), norm=nn.LayerNorm(5), out=linear(5, 2)
            ),
            (VECTORS,),
            2,
        ),
        (2, 3),
    ),
    "in_halves": (
        Case(
            lambda: Wire(in_halves, a=linear(4, 2), b=linear(4, 2), out=linear(2, 2)),
            (VECTORS,),
            1,
        ),
        (2,),
    ),
    "lstm_directions": (
        Case(
            lambda: Wire(
                both_directions,
                cell=nn.LSTM(4, 2, batch_first=True, bidirectional=True),
                head=linear(4, 2),
            ),
            (SEQUENCES,),
            2,
        ),
        (2, 2),
    ),
    "gru_directions_2_layers": (
        Case(
            lambda: Wire(
                both_directions,
                cell=nn.GRU(4, 2, num_layers=2, batch_first=True, bidirectional=True),
                head=linear(4, 2),
            ),
            (SEQUENCES,),
            4,
        ),
        (2, 2, 2, 2),
    ),
    "unet_skip": (
        Case(
            lambda: Wire(
                skip,
                down=conv(3, 2, 3, padding=1),
                low=conv(2, 3, 3, padding=1),
                out=conv(5, 2, 1),
            ),
            (IMAGES,),
            2,
        ),
        (2, 3),
    ),
    "flattened": (
        Case(
            lambda: Wire(flattened, a=conv(3, 2, 3, padding=1), b=conv(3, 3, 1), out=linear(20, 2)),
            (IMAGES,),
            2,
        ),
        (2, 3),
    ),
    "added_parts": (
        Case(
            lambda: Wire(
                added_parts,
                a=linear(4, 2),
                b=linear(4, 3),
                c=linear(4, 3),
                d=linear(4, 2),
                out=linear(5, 2),
            ),
            (VECTORS,),
            2,
        ),
        (2, 2),
    ),
}


@pytest.mark.parametrize("name", others_slow(JOINED, JOINED.keys() - {"gru_directions_2_layers"}))
def test_each_part_permutes_by_itself(name) -> None:
    case, groups = JOINED[name]
    torch.manual_seed(0)
    module = case.make()
    spec = infer_permutation_spec(module, *case.inputs)
    report = check_spec(module, spec, *case.inputs)
    sizes = spec.sizes(dict(module.named_parameters()))
    free = [size for key, size in sizes.items() if key not in spec.fixed and size > 1]
    assert report.passed, report.findings
    assert report.maximal, report.findings
    assert sorted(free) == sorted(groups), dict(spec.reasons)
    assert PermutationSpec(**spec.as_dict()) == spec


def count_by_brute_force(
    module: nn.Module, inputs: Tensor, units: list[list[tuple[str, int, int]]]
) -> int:
    """How many of all permutations of all hidden axes leave the outputs as they are.

    Args:
        module: in float64.
        inputs: example inputs.
        units: for each group of axes that surely move together, (parameter, axis, repeats), where
            ``repeats`` blocks of the axis move alike.
    """
    params = {name: p.detach() for name, p in module.named_parameters()}
    outputs = functional_call(module, params, (inputs,))

    orders: list[list[tuple[int, ...]]] = []
    for axes in units:
        parameter, axis, repeats = axes[0]
        orders.append(list(permutations(range(params[parameter].shape[axis] // repeats))))

    count = 0
    for choice in product(*orders):
        moved = dict(params)
        for axes, order in zip(units, choice, strict=True):
            for parameter, axis, repeats in axes:
                blocks = torch.arange(repeats)[:, None] * len(order)
                index = (blocks + torch.tensor(order)).flatten()
                moved[parameter] = moved[parameter].index_select(axis, index)
        close = torch.allclose(functional_call(module, moved, (inputs,)), outputs, atol=1e-10)
        count += int(close)
    return count


def directions() -> list[list[tuple[str, int, int]]]:
    units = []
    for suffix in ("", "_reverse"):
        rows = [
            (f"cell.{kind}_l0{suffix}", 0, 4)
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        units.append([*rows, (f"cell.weight_hh_l0{suffix}", 1, 1)])
    return [*units, [("head.weight", 1, 1)]]


PAIR = [[("a.weight", 0, 1), ("a.bias", 0, 1)], [("b.weight", 0, 1), ("b.bias", 0, 1)]]
BRUTE_FORCE = {
    "unequal": [*PAIR, [("out.weight", 1, 1)]],
    "equal": [*PAIR, [("out.weight", 1, 1)]],
    "lstm_directions": directions(),
    "unet_skip": [
        [("down.weight", 0, 1), ("down.bias", 0, 1), ("low.weight", 1, 1)],
        [("low.weight", 0, 1), ("low.bias", 0, 1)],
        [("out.weight", 1, 1)],
    ],
}


COUNTED = ["unequal", "lstm_directions", "unet_skip"]
COUNTED.append(pytest.param("equal", marks=pytest.mark.slow))  # many permutations


@pytest.mark.parametrize("name", COUNTED)
def test_the_group_is_the_one_of_brute_force(name) -> None:
    case, groups = JOINED[name]
    torch.manual_seed(0)
    module = case.make().double()
    count = count_by_brute_force(module, case.inputs[0].double(), BRUTE_FORCE[name])
    assert count == prod(map(factorial, groups))


def all_unf(spec: PermutationSpec) -> UNFOptimizer:
    return UNFOptimizer(spec, channels=4, beta=0.1)


def tied(spec: PermutationSpec) -> UNFOptimizer:
    return UNFOptimizer(spec, channels=4, beta=0.1, head=TypeTied)


@pytest.mark.parametrize("make", [all_unf, tied])
@pytest.mark.parametrize("name", ["unequal", "equal", "nested", "flattened", "lstm_directions"])
def test_one_step_commutes_with_permutation_of_the_parts(
    name, make: Callable[[PermutationSpec], UNFOptimizer]
) -> None:
    case, _ = JOINED[name]
    torch.manual_seed(0)
    module = case.make()
    spec = infer_permutation_spec(module, *case.inputs)
    params = {n: torch.randn(p.shape, dtype=torch.float64) for n, p in module.named_parameters()}
    grads = {n: torch.randn_like(p) for n, p in params.items()}
    optimizer = make(spec).double()
    state = optimizer.init_state(params)
    element = spec.draw(params, torch.Generator().manual_seed(1))

    updates, _ = optimizer(grads, state, params, torch.tensor(1.0))
    moved, _ = optimizer(
        spec.apply(grads, element), state, spec.apply(params, element), torch.tensor(1.0)
    )
    for key, value in spec.apply(updates, element).items():
        torch.testing.assert_close(moved[key], value, rtol=0, atol=1e-10)
    assert {name: value.shape for name, value in updates.items()} == {
        name: param.shape for name, param in params.items()
    }


def test_pieces_are_views_that_are_undone_exactly() -> None:
    case, _ = JOINED["flattened"]
    module = case.make()
    spec = infer_permutation_spec(module, *case.inputs)
    params = {name: p.detach() for name, p in module.named_parameters()}
    viewed = spec.view(params)
    assert spec.parameters == tuple(params)
    assert list(viewed) == list(spec.axes)
    assert viewed["out.weight[:|0:2]"].shape == (2, 2, 2, 2)
    assert viewed["out.weight[:|2:5]"].shape == (2, 3, 2, 2)
    assert all(torch.equal(value, params[name]) for name, value in spec.unview(viewed).items())
    with pytest.raises(ValueError, match=r"splits 'out\.weight' into the factors"):
        spec.view(params | {"out.weight": torch.zeros(2, 21)})


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ({"w": (1, (2, 2))}, r"where 'w' is cut, axes must hold its pieces"),
        ({"w": (10**9, (2, 3))}, "an axis from 0 to 63 and lengths of at least 0, got 1000000000"),
        ({"w": (1, (-2, 3))}, "lengths of at least 0"),
    ],
)
def test_cuts_that_fit_no_axes_are_refused(cuts, message) -> None:
    axes = {"w[:|0:2]": ("y", "a"), "w[:|2:5]": ("y", "b")}
    with pytest.raises(ValueError, match=message):
        PermutationSpec(axes, cuts=cuts)
    spec = PermutationSpec(axes, cuts={"w": (1, (2, 3))})
    with pytest.raises(ValueError, match=r"cuts axis 1 of 'w' into parts of \(2, 3\), but its"):
        spec.view({"w": torch.zeros(4, 6)})
