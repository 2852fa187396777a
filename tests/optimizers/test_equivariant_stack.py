"""The kernel of layers that mix tensors against the plain layers, and where it is not used."""

from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from learned_opt.core import tree
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers import equivariant_stack
from learned_opt.optimizers.nominal import Relative
from learned_opt.optimizers.second_moments import SecondMoments
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import Pointwise, PointwiseUNFLinear, UNFLinear
from tests.cases import FAMILIES, others_slow, spec_of
from tests.helpers.fused_steps import SHAPES, SPEC, TOLERANCE, check_equal, step

MAKE = {
    "all": partial(UNFOptimizer, trunk=UNFLinear, num_layers=3),
    # whole vectors of channels, a head of several outputs, channels beside the paper's
    "wide": partial(UNFOptimizer, trunk=UNFLinear, num_layers=2, channels=16, nominal=Relative),
    "one_layer": partial(UNFOptimizer, num_layers=1, normalisation="channel"),
    "without_biases": partial(
        UNFOptimizer,
        trunk=partial(UNFLinear, bias=False),
        head=partial(UNFLinear, bias=False),
        num_layers=3,
    ),
    "second_moments": partial(
        UNFOptimizer,
        trunk=UNFLinear,
        num_layers=2,
        extra_features={"moments": SecondMoments},
    ),
}
CUT = PermutationSpec(
    {
        "w[0:2]": ("hidden", "in"),
        "w[2:5]": ("other", "in"),
        "v[:|0:2]": ("in", "hidden"),
        "v[:|2:5]": ("in", "other"),
    },
    cuts={"w": (0, (2, 3)), "v": (1, (2, 3))},
)


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Gets the number of chains of every call of the kernel."""
    counts = []
    allocate = equivariant_stack._allocate

    def counted(momenta, *others):
        if not isinstance(momenta[0], FakeTensor):
            counts.append(len(momenta[0]))
        return allocate(momenta, *others)

    monkeypatch.setattr(equivariant_stack, "_allocate", counted)
    return counts


def make(name: str, dtype: torch.dtype = torch.float64, shapes=SHAPES, spec=SPEC):
    torch.manual_seed(0)
    settings = {"channels": 6, "beta": 0.1} | MAKE[name].keywords
    optimizer = UNFOptimizer(spec, **settings).to(dtype)
    optimizer.shapes = shapes
    return optimizer


@pytest.mark.parametrize(
    ("name", "dtype"),  # each other pair would be one more library to build
    [
        ("all", torch.float32),
        ("all", torch.float64),
        ("wide", torch.float32),
        ("one_layer", torch.float64),
        ("without_biases", torch.float64),
        ("second_moments", torch.float64),
    ],
)
def test_equals_the_plain_layers(name, dtype, calls) -> None:
    """Ranks 0 to 3, an axis of length 1, a merged one, a square with its diagonal."""
    optimizer = make(name, dtype)
    plain = step(optimizer, fused=False)
    assert not calls
    fused = step(optimizer, fused=True)
    assert calls == [3, 3]
    for left, right in zip(plain, fused, strict=True):
        check_equal(left, right, TOLERANCE[dtype])
        assert list(left) == list(right)  # trees of another order are compiled for anew


def test_parameters_that_are_cut(calls) -> None:
    """Along the first axis, where pieces lie one behind the other, and along the last."""
    optimizer = make("all", shapes={"w": (5, 4), "v": (4, 5)}, spec=CUT)
    plain = step(optimizer, fused=False)
    for left, right in zip(plain, step(optimizer, fused=True), strict=True):
        check_equal(left, right, 1e-13)
    assert calls


# matrices, kernels of a convolution, norms, gates, and attention
ONCE = ("mlp", "mlp_deep", "cnn_norm", "resnet", "lstm", "vision_transformer", "moe_mlp")


@pytest.mark.parametrize("family", others_slow(FAMILIES, ONCE))
def test_equals_the_plain_layers_on_every_network(family, calls) -> None:
    problem = FAMILIES[family]()
    params = problem.init(torch.Generator().manual_seed(0), problem.sample(torch.Generator()))
    shapes = {name: tuple(param.shape) for name, param in params.items()}
    optimizer = make("all", torch.float32, shapes, spec_of(problem))
    plain = step(optimizer, fused=False, steps=1)
    for left, right in zip(plain, step(optimizer, fused=True, steps=1), strict=True):
        check_equal(left, right, 2e-5)
    assert calls


def test_the_number_of_threads_changes_no_bit() -> None:
    """Eight chains: one or two threads take whole chains, three share every chain."""
    optimizer = make("all", torch.float32)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(tree.leaves(dict(enumerate(step(optimizer, 8, fused=True)))))
    torch.set_num_threads(before)

    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {"trunk": Pointwise},
        {"trunk": PointwiseUNFLinear},
        {"trunk": UNFLinear, "fixed_axes": "encode"},
        {"trunk": UNFLinear, "fixed_axes": "fold"},
    ],
)
def test_stacks_that_the_kernel_does_not_take(settings) -> None:
    spec = PermutationSpec({"weight": ("out", "in")}, {"in"}, fixed_sizes={"in": 4})
    assert not UNFOptimizer(spec, **settings).function.coefficients()


@pytest.mark.slow
def test_compiled_steps_use_it_where_nothing_is_differentiated(calls) -> None:
    problem = FAMILIES["mlp"]()
    optimizer = make("all", torch.float32, spec=spec_of(problem))
    keys = [("test", 0), ("test", 1)]
    theta = {name: torch.stack([p.detach()] * 2) for name, p in optimizer.named_parameters()}
    results = []
    for compile in (False, True):
        unroll = Unroll(problem, optimizer, compile=compile)
        chains = unroll.start(keys)
        results.append(unroll.run(theta, chains, unroll.batches(keys, chains, 3))[0])
    assert calls
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
