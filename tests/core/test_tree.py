"""Algebra on trees, against the same on flat vectors."""

import pytest
import torch
from torch.utils._pytree import tree_flatten

from learned_opt.core import tree


def example(seed: int = 0) -> tree.Tree:
    source = torch.Generator().manual_seed(seed)
    return {
        "layers": {
            "w": torch.randn(2, 3, generator=source),
            "b": torch.randn(3, generator=source),
        },
        "scale": torch.randn((), generator=source),
    }


def flat(values: tree.Tree) -> torch.Tensor:
    return torch.cat([leaf.flatten() for leaf in tree.leaves(values)])


def test_leaves_come_in_the_order_of_torch() -> None:
    values = example()
    theirs, _ = tree_flatten(values)
    ours = tree.leaves(values)
    assert len(ours) == len(theirs) == 3
    assert all(one is other for one, other in zip(ours, theirs, strict=True))
    assert tree.leaves({}) == []
    assert tree.leaves(values["scale"]) == [values["scale"]]


def test_map_keeps_the_structure_and_pairs_leaves_by_name() -> None:
    left = example(0)
    right = dict(reversed(example(1).items()))  # the same keys in another order
    total = tree.tree_map(lambda a, b: a - b, left, right)
    assert list(total) == ["layers", "scale"]
    assert torch.equal(total["layers"]["w"], left["layers"]["w"] - right["layers"]["w"])
    assert torch.equal(flat(tree.add(left, example(1))), flat(left) + flat(example(1)))
    with pytest.raises(KeyError, match="scale"):
        tree.add(left, {"layers": left["layers"]})


def test_flat_names_are_paths_and_lead_back() -> None:
    values = example()
    named = tree.flatten(values)
    assert list(named) == ["layers/w", "layers/b", "scale"]
    back = tree.unflatten(named, values)
    assert back.keys() == values.keys()
    assert all(
        one is other for one, other in zip(tree.leaves(back), tree.leaves(values), strict=True)
    )


def test_stacked_and_expanded_trees_have_a_new_first_axis() -> None:
    first = example(0)
    second = example(1)
    both = tree.stack([first, second])
    assert both["scale"].shape == (2,)
    assert torch.equal(both["layers"]["w"][1], second["layers"]["w"])

    wide = tree.expand(first, 4)
    assert wide["layers"]["b"].shape == (4, 3)
    assert wide["layers"]["b"].data_ptr() == first["layers"]["b"].data_ptr()  # a view
    copied = tree.contiguous(wide)
    assert copied["layers"]["b"].is_contiguous()
    assert torch.equal(flat(copied), flat(wide))


def test_sizes_and_norm_are_those_of_one_vector() -> None:
    values = example()
    assert tree.num_elements(values) == flat(values).numel() == 10
    torch.testing.assert_close(tree.global_norm(values), flat(values).norm())


def test_moved_trees_keep_their_values() -> None:
    moved = tree.to(example(), "cpu")
    assert torch.equal(flat(moved), flat(example()))
    assert tree.to(example(), "meta")["layers"]["w"].device.type == "meta"


@pytest.mark.parametrize(
    ("expected", "actual", "message"),
    [
        (["a", "b"], ["b", "a"], ""),
        (["a", "b"], ["b"], "missing: a"),
        (["a"], ["a", "c", "d"], "unexpected: c, d"),
        (["a"], ["b"], "missing: a; unexpected: b"),
    ],
)
def test_differences_are_named(expected, actual, message) -> None:
    assert tree.difference(expected, actual) == message
