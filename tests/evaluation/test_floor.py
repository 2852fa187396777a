"""The bare work of an inner step: which products it counts, and how it makes them."""

import torch

from learned_opt.evaluation.cost import floor as cost_floor
from learned_opt.evaluation.cost.floor import Floor, matrix_products
from learned_opt.inner.unroll import Unroll
from tests.cases import FAMILIES, OPTIMIZERS, spec_of


def make_unroll(optimizer: str) -> Unroll:
    problem = FAMILIES["mlp"]()  # 32-5-3: 183 weights
    return Unroll(problem, OPTIMIZERS[optimizer](spec_of(problem)), compile=False)


def floor_of(optimizer: str, monkeypatch) -> Floor:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    unroll = make_unroll(optimizer)
    theta = {name: p.detach() for name, p in unroll.optimizer.named_parameters()}
    return Floor(unroll, theta, num_chains=4, num_steps=2)


def test_products_of_the_floor(monkeypatch) -> None:
    """The pointwise optimizer has widths 8 (and 11 shared), 6, 6, 6, 1; each product runs
    over all weights.
    """
    floor = floor_of("deep_set", monkeypatch)
    assert floor.products == {(4, 8, 6): 183, (4, 6, 6): 2 * 183, (4, 6, 1): 183}
    assert floor_of("sgdm", monkeypatch).products == {}
    floor(0)


def test_large_products_of_the_floor_go_piece_by_piece(monkeypatch) -> None:
    calls = []
    multiply = torch.bmm
    monkeypatch.setattr(cost_floor, "LARGEST_BLOCK", 1024)
    monkeypatch.setattr(torch, "bmm", lambda *a, **k: calls.append(a) or multiply(*a, **k))
    # 2 chains of 100 rows with 8 numbers read and 6 written: 2,800 in three pieces
    cost_floor._product(2, 100, 8, 6, count=1, device=torch.device("cpu"))()
    assert [left.shape for left, _ in calls] == [(2, 34, 8)] * 3


def test_floor_counts_what_a_chain_carries(monkeypatch) -> None:
    floor = floor_of("sgdm", monkeypatch)
    assert floor._source.nbytes == 4 * (
        2 * 183 * 4 + 8
    )  # parameters and momenta in float32, an int64 step


@torch.no_grad()
def test_products_do_not_depend_on_their_number_of_chains(monkeypatch) -> None:
    unroll = make_unroll("unf")
    theta = {name: p.detach() for name, p in unroll.optimizer.named_parameters()}
    shapes_of = []
    for num_chains in (2, 5):
        chains = unroll.start([("c", i) for i in range(num_chains)])
        zeros = {name: torch.zeros_like(p) for name, p in chains["params"].items()}
        shapes = matrix_products(unroll, theta, chains, zeros, torch.zeros(num_chains))
        assert {shape[0] for shape in shapes} == {num_chains}
        shapes_of.append({shape[1:]: rows for shape, rows in shapes.items()})
    assert shapes_of[0] == shapes_of[1]
