"""muP: which tensors grow, what is multiplied, and slopes that show it."""

from functools import partial

import pytest
import torch
from torch import nn

from learned_opt import LearnedOptimizer
from learned_opt.core import tree
from learned_opt.deploy.width_transfer import mup_groups
from learned_opt.evaluation.coordinate_check import changes_of, slopes_of
from learned_opt.inner.mup import MuP
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.inner.unroll import Unroll
from learned_opt.inner.width_growth import Growth, growth_of
from learned_opt.inner.width_multipliers import update_multiplier
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from tasks.module import ModuleTask
from tasks.networks.cnn import CNN
from tasks.networks.transformer import Transformer
from tasks.reparam import Reparametrised
from tests.cases import FAMILIES, spec_of


def kinds(network, inputs: torch.Tensor) -> dict[str, str]:
    from learned_opt.symmetry.infer import infer_permutation_spec

    spec = infer_permutation_spec(network, inputs)
    growths = growth_of(spec, dict(network.named_parameters()), network)
    return {name: growth.kind for name, growth in growths.items()}


def test_the_kinds_of_a_convolutional_network_and_of_attention() -> None:
    cnn = CNN((1, 8, 8), 10, channels=(4, 6), pool="flatten")
    of_cnn = kinds(cnn, torch.zeros(2, 1, 8, 8))
    weights = [kind for name, kind in of_cnn.items() if name.endswith("weight")]
    assert weights == ["input", "hidden", "output"]
    assert of_cnn["convs.0.bias"] == "vector"
    assert of_cnn["head.bias"] == "fixed"

    transformer = Transformer((5,), 7, width=8, num_blocks=1, num_heads=2, head_size=4, mlp_size=12)
    of_attention = kinds(transformer, torch.zeros(2, 5, dtype=torch.long))
    # the table of words and the head have equal shapes
    assert (of_attention["embed.weight"], of_attention["head.weight"]) == ("input", "output")
    for layer in ("query", "key", "value", "mix", "expand", "contract"):
        assert of_attention[f"blocks.0.{layer}.weight"] == "hidden"
    assert of_attention["norm.weight"] == "vector"


def test_multipliers_by_what_the_update_scales_with() -> None:
    hidden = Growth("hidden", 256, 512)
    scales = ("entry", "parameter", "orthogonal_entry", "orthogonal_parameter", "gradient")
    of_hidden = [update_multiplier(scale, hidden, 64) for scale in scales]
    assert of_hidden == [1 / 4, 1 / 2, 1 / 2, 1, 1]
    of_others = []
    for growth in (Growth("input", 1, 256), Growth("output", 256, 1), Growth("vector", 1, 256)):
        of_others.append([update_multiplier(scale, growth, 64) for scale in scales])
    assert of_others == [[1, 1, 1, 1, 4]] * 3
    assert update_multiplier("gradient", Growth("fixed", 1, 1), 64) == 1


def make(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(16, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )


def family(width: int) -> ModuleTask:
    source = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 16, generator=source)
    targets = torch.randint(10, (256,), generator=source)
    constructor = partial(make, width)
    return ModuleTask(constructor, nn.functional.cross_entropy, (inputs, targets), batch_size=64)


def test_start_forward_pass_and_updates() -> None:
    plain = family(32)
    mup = MuP(plain, base_width=8)
    source = torch.Generator().manual_seed(0)
    params = mup.init(source, {})
    assert params["4.weight"].square().mean().sqrt().item() == pytest.approx(1 / 8)
    start = plain.init(torch.Generator().manual_seed(0), {})
    assert torch.equal(params["2.weight"], start["2.weight"])

    batch = mup.batch(source, {})
    read = {**params, "4.weight": params["4.weight"] / 4}
    assert mup.loss(params, batch, {}).item() == plain.loss(read, batch, {}).item()
    assert mup.describe()["parametrisation"] == "mup, base width 8"

    spec = symmetry_of(mup)[1]
    keys = [("key", 0)]
    moved = {}
    for base in (8, 32):  # at 32 there is nothing to multiply
        unroll = Unroll(MuP(plain, base), make_sgdm(spec, lr=0.5), compile=False)
        theta = {name: p.detach() for name, p in unroll.optimizer.named_parameters()}
        chains = unroll.start(keys)
        chains["params"] = {name: p.unsqueeze(0) for name, p in params.items()}
        batches = unroll.batches(keys, chains, 1)
        # the gradient of the output sees its own multiplier
        if base == 32:
            unroll.family.forward_multipliers = mup.forward_multipliers
        _, after = unroll.run(tree.expand(theta, 1), chains, batches)
        moved[base] = {name: after["params"][name][0] - params[name] for name in params}
    factors = {"0.weight": 4.0, "0.bias": 4.0, "2.weight": 1.0, "4.weight": 4.0, "4.bias": 1.0}
    for name, factor in factors.items():
        torch.testing.assert_close(moved[8][name], factor * moved[32][name])


def test_queries_are_scaled_and_words_start_alike_at_all_widths() -> None:
    task = FAMILIES["transformer"]()
    mup = MuP(task, base_width=2)
    names = [name for name in mup.forward_multipliers if ".query." in name]
    assert names
    assert all(name.endswith(("weight", "bias")) for name in names)
    size = task.network.blocks[0].query.out_features // task.network.blocks[0].num_heads
    assert mup.forward_multipliers[names[0]].unique().item() == pytest.approx((2 / size) ** 0.5)
    params = mup.init(torch.Generator().manual_seed(0), {})
    assert params["embed.weight"].square().mean().item() == pytest.approx(1 / 2)
    symmetry_of(mup)  # the spec is proved on the loss with all multipliers


def test_an_augmented_task_keeps_its_multipliers() -> None:
    mup = MuP(family(32), base_width=8)
    augmented = Reparametrised(mup)
    assert augmented.update_multipliers("entry") == mup.update_multipliers("entry")
    assert family(32).update_multipliers("entry") == {}
    with pytest.raises(ValueError, match="base_width must be at least 1, got 0"):
        MuP(family(8), base_width=0)


def slopes(parametrise, constructor) -> dict[str, tuple[float, bool]]:
    changes = {}
    for width in (64, 256):
        problem = parametrise(family(width))
        optimizer = constructor(spec_of(problem))
        changes[width] = changes_of(Unroll(problem, optimizer, compile=False), 5, 2)
    return {slope.layer: (slope.slope.mean, slope.passed) for slope in slopes_of(changes)}


def test_the_coordinate_check_tells_mup_from_the_standard() -> None:
    adam = partial(make_adam, lr=0.01)
    of_mup = slopes(MuP, adam)
    assert list(of_mup) == ["0.weight", "2.weight", "4.weight"]
    assert all(passed for _, passed in of_mup.values()), of_mup
    standard = slopes(lambda task: task, adam)
    slope, passed = standard["2.weight"]
    assert slope > 0.4  # between 1/2 and 1
    assert not passed


def test_what_diverges_or_stands_still_does_not_pass() -> None:
    inf = float("inf")
    changes = {8: {"a": [1.0], "b": [0.0]}, 16: {"a": [inf], "b": [0.0]}}
    first, second = slopes_of(changes)
    assert (first.passed, second.passed) == (False, False)
    assert first.slope.mean == inf


def test_param_groups_make_the_steps_of_meta_training() -> None:
    torch.manual_seed(0)
    model = make(32)
    inputs = torch.randn(8, 16)
    groups = mup_groups(model, (inputs,), "entry", base_width=8)
    mup = MuP(family(32), base_width=8)
    expected = {name: 1.0 for name, _ in model.named_parameters()}
    expected |= mup.update_multipliers("entry")
    assert {name: g["lr"] for g in groups for name, _ in g["params"]} == expected

    spec = symmetry_of(mup)[1]
    optimizer = LearnedOptimizer(groups, make_adam(spec, lr=0.01))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(inputs).square().mean().backward()
    optimizer.step()
    changes = {n: (p - before[n]).abs().max().item() for n, p in model.named_parameters()}
    assert changes["0.weight"] == pytest.approx(0.01, rel=1e-3)
    assert changes["2.weight"] == pytest.approx(0.0025, rel=1e-3)
    with pytest.raises(ValueError, match=r"scale must be among entry, .*got 'size'"):
        mup_groups(model, (inputs,), "size")
