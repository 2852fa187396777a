"""The kernel of forward steps against the plain layers, and where it is not used."""

import logging
from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from learned_opt.core import native, tree
from learned_opt.core.forward_only import forward_only
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers import momentum_stack
from learned_opt.optimizers.nominal import Relative
from learned_opt.optimizers.second_moments import SecondMoments
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import Pointwise, PointwiseUNFLinear, TypeTied
from tests.cases import FAMILIES, OPTIMIZERS, others_slow, spec_of
from tests.helpers.fused_steps import SHAPES, SPEC, TOLERANCE, check_equal, step

MAKE = {
    "unf": partial(UNFOptimizer, head=PointwiseUNFLinear),
    "paper": partial(UNFOptimizer, normalisation="channel"),
    "deep_set": partial(UNFOptimizer, head=Pointwise, normalisation="channel"),
    "tied": partial(
        UNFOptimizer, head=partial(PointwiseUNFLinear, equivariant=TypeTied), nominal=Relative
    ),
    "second_moments": partial(
        UNFOptimizer, head=PointwiseUNFLinear, extra_features={"moments": SecondMoments}
    ),
}


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Gets the number of chains of every call of the kernel."""
    counts = []
    allocate = momentum_stack._allocate

    def counted(params, *others):
        if not isinstance(params[0], FakeTensor):
            counts.append(len(params[0]))
        return allocate(params, *others)

    monkeypatch.setattr(momentum_stack, "_allocate", counted)
    return counts


def make(name: str, dtype: torch.dtype = torch.float64, shapes=SHAPES, spec=SPEC):
    torch.manual_seed(0)
    optimizer = MAKE[name](spec, channels=6, beta=0.1).to(dtype)
    optimizer.shapes = shapes
    return optimizer


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MAKE)
def test_equals_the_plain_layers(name, dtype, calls) -> None:
    """Ranks 0 to 3, an axis of length 1, a merged one, a square; more entries than one piece."""
    optimizer = make(name, dtype)
    plain = step(optimizer, fused=False)
    assert not calls
    fused = step(optimizer, fused=True)
    assert calls == [3, 3]
    for left, right in zip(plain, fused, strict=True):
        check_equal(left, right, TOLERANCE[dtype])
        assert list(left) == list(right)  # trees of another order are compiled for anew


def test_entries_that_do_not_lie_side_by_side(calls) -> None:
    spec = PermutationSpec({"weight": ("out", "in"), "bias": ("out",)})
    optimizer = make("unf", shapes={"weight": (60, 70), "bias": (60,)}, spec=spec)
    plain = step(optimizer, fused=False, transposed=True)
    for left, right in zip(plain, step(optimizer, fused=True, transposed=True), strict=True):
        check_equal(left, right, 1e-13)
    assert calls


# matrices, kernels of a convolution, norms, gates, and attention
ONCE = ("mlp", "mlp_deep", "cnn_norm", "resnet", "lstm", "vision_transformer", "moe_mlp")


@pytest.mark.parametrize("family", others_slow(FAMILIES, ONCE))
def test_equals_the_plain_layers_on_every_network(family, calls) -> None:
    problem = FAMILIES[family]()
    params = problem.init(torch.Generator().manual_seed(0), problem.sample(torch.Generator()))
    shapes = {name: tuple(param.shape) for name, param in params.items()}
    optimizer = make("unf", torch.float32, shapes, spec_of(problem))
    plain = step(optimizer, fused=False)
    for left, right in zip(plain, step(optimizer, fused=True), strict=True):
        check_equal(left, right, 2e-5)
    assert calls


@pytest.mark.parametrize("name", ["mlp", "mlp_second_moments"])
def test_equals_the_plain_layers_without_a_nominal_part(name, calls) -> None:
    torch.manual_seed(0)
    optimizer = OPTIMIZERS[name](SPEC).double()
    optimizer.shapes = SHAPES
    plain = step(optimizer, fused=False)
    for left, right in zip(plain, step(optimizer, fused=True), strict=True):
        check_equal(left, right, 1e-12)
    assert calls


def test_the_number_of_threads_changes_no_bit() -> None:
    """Eight chains: one or two threads take whole chains, three share the pieces of all."""
    optimizer = make("unf", torch.float32)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(tree.leaves(dict(enumerate(step(optimizer, 8, fused=True)))))
    torch.set_num_threads(before)

    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_width_of_vectors_is_logged_at_first_use(caplog) -> None:
    momentum_stack._kernel.cache_clear()
    with caplog.at_level(logging.INFO, logger="learned_opt"):
        for _ in range(2):
            step(make("unf"), fused=True, steps=1)
    assert caplog.text.count("forward steps run in a kernel, vectors of ") == 1


def test_averages_below_the_smallest_normal_number_count_as_zero() -> None:
    optimizer = make("deep_set", torch.float32, {"bias": (60,)}, PermutationSpec({"bias": ("a",)}))
    params = {"bias": torch.ones(60)}
    state = optimizer.init_state(params)
    state["momenta"]["bias"] += 1e-41
    with forward_only():
        _, state = optimizer({"bias": torch.zeros(60)}, state, params, torch.tensor(1.0))
    assert not state["momenta"]["bias"].any()


@torch.no_grad()
def test_eager_steps_keep_the_plain_layers(calls) -> None:
    problem = FAMILIES["mlp"]()
    optimizer = make("unf", torch.float32, spec=spec_of(problem))
    keys = [("test", 0), ("test", 1)]
    theta = {name: torch.stack([p.detach()] * 2) for name, p in optimizer.named_parameters()}
    unroll = Unroll(problem, optimizer, compile=False)
    chains = unroll.start(keys)
    unroll.run(theta, chains, unroll.batches(keys, chains, 1))
    assert not calls


@pytest.mark.slow
def test_compiled_steps_use_it_where_nothing_is_differentiated(calls) -> None:
    problem = FAMILIES["mlp"]()
    optimizer = make("unf", torch.float32, spec=spec_of(problem))
    keys = [("test", 0), ("test", 1)]
    theta = {name: torch.stack([p.detach()] * 2) for name, p in optimizer.named_parameters()}
    results = []
    for compile in (False, True):
        unroll = Unroll(problem, optimizer, compile=compile)
        chains = unroll.start(keys)
        results.append(unroll.run(theta, chains, unroll.batches(keys, chains, 3))[0])
    assert calls
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)

    calls.clear()
    leaves = {name: leaf.requires_grad_() for name, leaf in theta.items()}
    losses, _ = unroll.run(leaves, chains, unroll.batches(keys, chains, 2))
    num_forward = len(calls)
    losses.sum().backward()
    assert len(calls) == num_forward  # it has no gradient
    assert leaves["log_alpha"].grad.any()


def test_without_a_compiler_it_says_so_once_and_gives_the_same(
    monkeypatch, caplog, tmp_path
) -> None:
    optimizer = make("unf")
    plain = step(optimizer, fused=False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.load.cache_clear()
    native._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger="learned_opt"):
        others = step(optimizer, fused=True)
    native.load.cache_clear()
    for left, right in zip(plain, others, strict=True):
        check_equal(left, right, 1e-13)
    assert caplog.text.count("no C++ compiler was found") == 1


def test_tensors_that_the_kernel_does_not_take() -> None:
    like = torch.zeros(2)
    weights = [torch.zeros(8, 4)]
    assert momentum_stack.has_kernel(like, weights)
    assert not momentum_stack.has_kernel(like.half(), weights)
    assert not momentum_stack.has_kernel(like.double(), weights)
    assert not momentum_stack.has_kernel(like.to("meta"), weights)
    with torch.autocast("cpu", torch.bfloat16):
        assert not momentum_stack.has_kernel(like, weights)
