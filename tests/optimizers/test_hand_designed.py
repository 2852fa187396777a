"""Every hand-designed optimizer of the configs against its reference, step for step, in float64."""

import functools
from collections.abc import Callable, Iterator

import pytest
import pytorch_optimizer
import schedulefree
import torch
from hydra.utils import instantiate
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from learned_opt.core import tree
from learned_opt.optimizers.hand.hand_designed import HandDesigned
from learned_opt.optimizers.hand.sgd import SGD
from learned_opt.optimizers.hand.soap import next_basis
from learned_opt.optimizers.linear_algebra import (
    NEWTON_SCHULZ,
    eigh,
    inverse_root,
    orthogonalise,
)
from learned_opt.optimizers.schedule import Cosine, WarmUp
from tests.cases import SPECS
from tests.compose.test_configs import composed
from tests.optimizers.test_optimizers import tensors

LR = 0.03
LOSS = torch.tensor(1.0)


@functools.cache
def constructor(name: str, *overrides: str) -> Callable[..., torch.nn.Module]:
    return instantiate(composed("+task=mlp", f"meta_optimizer={name}", *overrides).meta_optimizer)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Hyper-parameters are stored as logarithms and logits; in float32 those are rounded."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Lamb(torch.optim.AdamW):
    """Algorithm 2 of You et al. 2020: the step of AdamW, scaled for each tensor."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            before = [p.clone() for p in group["params"]]
            super().step(closure)
            for old, new in zip(before, group["params"], strict=True):
                step = new - old
                new.copy_(old + step * group["lr"] * old.norm() / step.norm())


class FreeAdamW(schedulefree.AdamWScheduleFree):
    """In train mode, where parameters are those at which gradients are taken."""

    def __init__(self, params, **settings) -> None:
        super().__init__(params, **settings)
        self.train()


def muon(params: list[torch.Tensor], **settings) -> list[torch.optim.Optimizer]:
    matrices = [p for p in params if p.ndim == 2]
    vectors = [p for p in params if p.ndim < 2]
    options = {"momentum": 0.95, "adjust_lr_fn": "match_rms_adamw", **settings}
    return [
        torch.optim.Muon(matrices, LR, **options),
        torch.optim.AdamW(vectors, LR, **settings),
    ]


REFERENCES: dict[str, Callable] = {
    "sgd": lambda p: torch.optim.SGD(p, LR),
    # our momentum is an average, torch's a sum: lr differs by 1 / (1 - gamma)
    "sgdm": lambda p: torch.optim.SGD(p, 0.1 * LR, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1 * LR, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, LR),
    "adagrad": lambda p: torch.optim.Adagrad(p, LR),
    "adam": lambda p: torch.optim.Adam(p, LR),
    "adamw": lambda p: torch.optim.AdamW(p, LR),
    "nadamw": lambda p: torch.optim.NAdam(p, LR, weight_decay=0.01, decoupled_weight_decay=True),
    "radam": lambda p: torch.optim.RAdam(p, LR),
    "adafactor": lambda p: torch.optim.Adafactor(p, LR),
    "lion": lambda p: pytorch_optimizer.Lion(p, LR, weight_decay=0.01),
    "lamb": lambda p: Lamb(p, LR),
    "muon": lambda p: muon(p, weight_decay=0.01),
    "schedule_free_adamw": lambda p: FreeAdamW(p, lr=LR, weight_decay=0.01),
    "shampoo": lambda p: pytorch_optimizer.Shampoo(p, LR),
    "soap": lambda p: pytorch_optimizer.SOAP(p, LR, weight_decay=0, precondition_frequency=1),
}


def check_against(
    ours: torch.nn.Module, reference: Callable, num_steps: int = 15, schedule=None
) -> None:
    params = tensors(0)
    mirror = {k: v.clone().requires_grad_() for k, v in params.items()}
    peers = reference(list(mirror.values()))
    peers = peers if isinstance(peers, list) else [peers]
    state = ours.init_state(params)
    schedules = [schedule(peer) for peer in peers if schedule]

    for seed in range(1, num_steps + 1):
        updates, state = ours(tensors(seed), state, params, LOSS)
        params = tree.add(params, updates)

        for key, value in mirror.items():
            value.grad = tensors(seed)[key]
        for each in (*peers, *schedules):
            each.step()

        for key, value in mirror.items():
            torch.testing.assert_close(params[key], value.detach(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", REFERENCES)
def test_steps_equal_those_of_the_reference(name, monkeypatch) -> None:
    # torch's Muon rounds to bfloat16 on the way, and SOAP's reference to float32
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self)
    monkeypatch.setattr(torch, "float32", torch.float64)
    with torch.no_grad():
        check_against(constructor(name)(SPECS["mlp"], lr=LR), REFERENCES[name])


class LambOfThePaper(torch.optim.Optimizer):
    """Algorithm 2 of You et al. 2020 line by line, from gradients to steps."""

    def __init__(self, params) -> None:
        super().__init__(params, {})
        self.num_steps = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.num_steps += 1
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            first = 0.9 * state.get("m", 0) + 0.1 * p.grad
            second = 0.999 * state.get("v", 0) + 0.001 * p.grad**2
            state["m"] = first
            state["v"] = second

            unbiased_first = first / (1 - 0.9**self.num_steps)
            unbiased_second = second / (1 - 0.999**self.num_steps)
            direction = unbiased_first / (unbiased_second.sqrt() + 1e-8) + 0.01 * p
            p.sub_(LR * p.norm() / direction.norm() * direction)


@torch.no_grad()
def test_lamb_is_the_algorithm_of_the_paper() -> None:
    check_against(constructor("lamb")(SPECS["mlp"], lr=LR), LambOfThePaper)


def distance(ours: torch.nn.Module, reference: Callable, num_steps: int = 15) -> float:
    """How far apart parameters are after some steps, relative to how far they moved."""
    start = tensors(0)
    params = tensors(0)
    mirror = {k: v.clone().requires_grad_() for k, v in params.items()}
    peer = reference(list(mirror.values()))
    state = ours.init_state(params)
    for seed in range(1, num_steps + 1):
        updates, state = ours(tensors(seed), state, params, LOSS)
        params = tree.add(params, updates)
        for key, value in mirror.items():
            value.grad = tensors(seed)[key]
        peer.step()

    apart = torch.cat([(params[k] - mirror[k].detach()).flatten() for k in params])
    moved = torch.cat([(params[k] - start[k]).flatten() for k in params])
    return float(apart.norm() / moved.norm())


@torch.no_grad()
def test_lamb_of_the_package_is_another_algorithm() -> None:
    """It divides the step by 1 - beta1^t once more, and decays outside of the ratio.

    Without both it makes the same steps: the ratio takes the biases of the moments away.
    """

    def apart(weight_decay: float, **settings) -> float:
        ours = constructor("lamb", f"meta_optimizer.rule.weight_decay={weight_decay}")
        settings = {"eps": 1e-8, "weight_decay": weight_decay, **settings}
        return distance(
            ours(SPECS["mlp"], lr=LR), lambda p: pytorch_optimizer.Lamb(p, LR, **settings)
        )

    assert apart(1e-12, adam_debias=True) < 1e-5
    assert apart(0.01, adam_debias=True) > 1e-3
    assert apart(1e-12) > 1


@torch.no_grad()
def test_soap_of_the_package_with_its_defaults_keeps_bases_longer(monkeypatch) -> None:
    """Two of its settings differ from ours; set as ours they leave no difference."""
    monkeypatch.setattr(torch, "float32", torch.float64)

    def theirs(**settings) -> float:
        ours = constructor("soap")(SPECS["mlp"], lr=LR)
        return distance(ours, lambda p: pytorch_optimizer.SOAP(p, LR, **settings))

    assert theirs(weight_decay=0.01, precondition_frequency=10) > 1e-3
    assert theirs(weight_decay=0, precondition_frequency=10) > 1e-3
    assert theirs(weight_decay=0.01, precondition_frequency=1) > 1e-3
    assert theirs(weight_decay=0, precondition_frequency=1) < 1e-8


@torch.no_grad()
def test_muon_takes_a_convolution_as_one_matrix() -> None:
    grad = torch.randn(4, 3, 2, 2)
    optimizer = constructor("muon")(SPECS["mlp"], lr=LR)
    steps = []
    for shaped in (grad, grad.flatten(1)):
        params = {"w": torch.zeros_like(shaped)}
        updates, _ = optimizer({"w": shaped}, optimizer.init_state(params), params, LOSS)
        steps.append(updates["w"].flatten(1))
    torch.testing.assert_close(*steps)
    values = torch.linalg.svdvals(orthogonalise(grad.flatten(1)))
    assert 0.6 < values.min() < values.max() < 1.3


@pytest.mark.parametrize("shape", [(6, 6), (6, 8), (5, 15), (40, 4), (1, 7), (7, 1)])
def test_newton_schulz_rounds_are_those_of_the_singular_values(shape) -> None:
    matrix = torch.randn(shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = sum(c * values**power for c, power in zip(NEWTON_SCHULZ, (1, 3, 5), strict=True))
    torch.testing.assert_close(orthogonalise(matrix), left * values @ right, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(
        orthogonalise(matrix.float()).double(), left * values @ right, rtol=1e-3, atol=1e-4
    )


def test_inverse_root_and_the_axes_that_shampoo_leaves_alone() -> None:
    factor = torch.randn(5, 5)
    matrix = factor @ factor.mT
    torch.testing.assert_close(
        torch.linalg.matrix_power(inverse_root(matrix, 4), 4) @ matrix, torch.eye(5)
    )
    short = constructor("shampoo", "meta_optimizer.rule.largest=4")(SPECS["mlp"], lr=LR)
    state = short.init_state({"w": torch.zeros(3, 5), "b": torch.zeros(5)})
    assert list(state["rule"]["w"]) == ["axis0"]
    assert list(state["rule"]["b"]) == []


def test_a_matrix_that_is_not_finite_spoils_no_other_of_a_batch() -> None:
    factors = torch.randn(3, 4, 4)
    matrices = factors @ factors.mT * torch.tensor([1.0, 1e300, 0.0]).reshape(3, 1, 1)
    values, vectors = torch.vmap(eigh)(matrices)
    torch.testing.assert_close(
        vectors @ values.diag_embed() @ vectors.mT, matrices, rtol=1e-9, atol=1e-12
    )
    for bad in (torch.nan, torch.inf):
        spoilt = matrices.index_fill(0, torch.tensor(1), bad)
        torch.testing.assert_close(torch.vmap(eigh)(spoilt)[0][0], values[0])
    for name in ("shampoo", "soap"):
        optimizer = constructor(name)(SPECS["mlp"], lr=LR)
        params = tensors(0)
        grads = tree.tree_map(lambda leaf: leaf * torch.inf, tensors(1))
        with torch.no_grad():
            updates, state = optimizer(grads, optimizer.init_state(params), params, LOSS)
            updates, _ = optimizer(grads, state, params, LOSS)
        assert not any(update.isfinite().all() for update in updates.values())


@torch.no_grad()
def test_the_bases_of_soap_become_the_eigenvectors() -> None:
    """From any basis, with power iteration alone; and long axes have none."""
    factor = torch.randn(5, 5)
    average = factor @ factor.mT
    basis = torch.eye(5)
    for _ in range(300):
        basis, _ = next_basis(average, basis)
    values = torch.linalg.eigvalsh(average).flip(0)
    torch.testing.assert_close(basis.mT @ average @ basis, values.diag(), rtol=0, atol=1e-6)
    short = constructor("soap", "meta_optimizer.rule.largest=4")(SPECS["mlp"], lr=LR)
    state = short.init_state({"w": torch.zeros(3, 5), "b": torch.zeros(3)})
    assert (len(state["rule"]["w"]), len(state["rule"]["b"])) == (4, 2)


def warmup(step: int) -> float:
    return min(1, (step + 1) / 10)


def warmup_cosine(step: int) -> float:
    return warmup(step) * Cosine(12)(torch.tensor(float(step))).item()


SCHEDULES = {
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, 12),
    "warmup": lambda optimizer: LambdaLR(optimizer, warmup),
    "warmup_cosine": lambda optimizer: LambdaLR(optimizer, warmup_cosine),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@torch.no_grad()
def test_schedules_scale_the_learning_rate_as_torch_does(schedule) -> None:
    words = [f"schedule@meta_optimizer.schedule={schedule}", "horizon=12"]
    ours = constructor("adamw", *words)(SPECS["mlp"], lr=LR)
    check_against(ours, REFERENCES["adamw"], num_steps=12, schedule=SCHEDULES[schedule])


@torch.no_grad()
def test_schedule_free_with_a_warm_up_equals_its_package() -> None:
    ours = constructor("schedule_free_adamw", "schedule@meta_optimizer.schedule=warmup")(
        SPECS["mlp"], lr=LR
    )
    check_against(ours, lambda p: FreeAdamW(p, lr=LR, weight_decay=0.01, warmup_steps=10))


def test_a_schedule_stays_at_its_end() -> None:
    assert Cosine(10, final=0.2)(torch.tensor(50.0)) == pytest.approx(0.2)
    assert Cosine(10)(torch.tensor(5.0)) == pytest.approx(0.5)


def test_a_weight_without_gradient_leaves_the_meta_gradient_finite() -> None:
    """Roots of second moments that are 0 have an infinite derivative unless that is avoided."""
    for name in REFERENCES:
        optimizer = constructor(name)(SPECS["mlp"], lr=LR)
        params = tensors(0)
        state = optimizer.init_state(params)
        grads = tree.tree_map(torch.zeros_like, params)
        for _ in range(2):
            updates, state = optimizer(grads, state, params, LOSS)
            params = tree.add(params, updates)
        sum(param.square().sum() for param in params.values()).backward()
        for key, value in optimizer.named_parameters():
            assert value.grad is None or value.grad.isfinite().all(), (name, key)


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (
            lambda: HandDesigned(SPECS["mlp"], SGD, lr=0.1, weight_decay=-1.0),
            "weight_decay must be positive, got -1.0",
        ),
        (
            lambda: constructor("lamb", "meta_optimizer.rule.weight_decay=0")(SPECS["mlp"]),
            "must be positive, got 0",
        ),
        (
            lambda: constructor("shampoo", "meta_optimizer.rule.eps=0")(SPECS["mlp"]),
            "eps must be positive, got 0",
        ),
        (lambda: Cosine(0), "num_steps of a schedule must be at least 1, got 0"),
        (lambda: Cosine(5, final=2.0), "final must lie between 0 and 1, got 2.0"),
        (lambda: WarmUp(0), "num_steps of a schedule must be at least 1, got 0"),
    ],
)
def test_bad_values_are_named(make_bad, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()
