"""Hooks for gradient sets: what they see, how long they live, where they do not work."""

import copy
import gc
import io
import pickle
import weakref
from functools import partial

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from learned_opt import LearnedOptimizer
from learned_opt.deploy.module_call import ModuleCall
from learned_opt.deploy.parity import check_parity
from learned_opt.optimizers.second_moments import SecondMoments
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.symmetry import infer_permutation_spec
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf import Pointwise
from tests.cases import FAMILIES, READS_EXAMPLES, spec_of
from tests.deploy.test_gradient_sets import ROWS, SUMS, Problem, assert_same, train, warnings


@pytest.mark.parametrize("name", READS_EXAMPLES)
def test_an_export_is_checked_against_the_inner_step(name: str) -> None:
    torch.manual_seed(0)
    meta = READS_EXAMPLES[name](spec_of(FAMILIES["mlp"]()))
    check_parity(meta, LearnedOptimizer)


class Outside(nn.Module):
    """Reads parameters beside its layers, some of them in both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.both = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.core = nn.LSTM(4, 4, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.both(self.scale * self.layer(inputs)) @ self.both.weight
        return self.core(hidden)[0]


def test_what_hooks_do_not_see_is_named_once_and_has_channels_of_zero(caplog) -> None:
    module = Outside()
    features = {"set": partial(SecondMoments, squares="examples")}
    spec = PermutationSpec({"any": ("axis",)})
    optimizer = LearnedOptimizer(
        module, UNFOptimizer(spec, head=Pointwise, extra_features=features)
    )
    inputs = torch.randn(6, 3, 4)
    for _ in range(2):
        optimizer.zero_grad()
        module(inputs).square().mean().backward()
        optimizer.step()

    messages = warnings(caplog)
    assert len(messages) == 1
    assert "both.weight (its factors do not give its gradient" in messages[0]
    assert "scale (no module of torch.nn that hooks see into reads it)" in messages[0]
    assert "core.weight_ih_l0 (there is dropout inside of its module" in messages[0]
    for name, param in module.named_parameters():
        squares = optimizer.state[param]["extra/set/squares"]
        is_seen = name in ("layer.weight", "layer.bias", "both.bias")
        assert bool(squares.any()) == is_seen, name


def test_two_backward_passes_through_one_forward_pass_are_refused() -> None:
    problem = Problem("mlp", SUMS)
    optimizer = LearnedOptimizer(problem.module, problem.meta)
    outputs = problem.module(problem.inputs)
    outputs.square().mean().backward(retain_graph=True)
    with pytest.raises(ValueError, match="on the sum of the losses"):
        outputs.sum().backward()
    optimizer.zero_grad()
    train(problem, optimizer)  # goes on


def num_hooks(module: nn.Module) -> int:
    return sum(len(layer._forward_hooks) for layer in module.modules())


def test_hooks_come_and_go_with_the_optimizer() -> None:
    problem = Problem("attention", SUMS)
    optimizer = LearnedOptimizer(problem.module, problem.meta)
    assert num_hooks(problem.module) > 0
    train(problem, optimizer, 1)
    optimizer.close()
    assert num_hooks(problem.module) == 0
    assert not any(param._backward_hooks for param in problem.module.parameters())
    with pytest.raises(ValueError, match="this optimizer was closed"):
        train(problem, optimizer, 1)

    optimizer = LearnedOptimizer(problem.module, problem.meta)
    train(problem, optimizer, 1)
    recorder = weakref.ref(optimizer.hooks)
    del optimizer
    gc.collect()
    assert recorder() is None
    assert num_hooks(problem.module) == 0


def test_only_those_who_need_sets_put_hooks_and_keep_the_module() -> None:
    module = nn.Linear(3, 2)
    spec = infer_permutation_spec(module, torch.ones(4, 3))
    features = {"second_moments": SecondMoments}
    optimizer = LearnedOptimizer(module, UNFOptimizer(spec, extra_features=features))
    assert optimizer.hooks is None
    assert optimizer._module is None
    assert num_hooks(module) == 0
    optimizer.close()


def test_nothing_of_a_pass_is_kept_but_sums() -> None:
    problem = Problem("mlp", SUMS)
    optimizer = LearnedOptimizer(problem.module, problem.meta)
    loss = problem.loss(problem.module)
    loss.backward()
    gc.collect()
    calls = [known for known in gc.get_objects() if type(known) is ModuleCall]
    assert len(calls) == 2  # the graph of the loss has them
    assert not any(call.arguments[0] or call.gradients or call.factors for call in calls)
    kept = optimizer.hooks.sets.sets.values()
    assert all(set(of_param.factors.sums) == {"squares", "moments"} for of_param in kept)
    del loss, calls
    assert not [known for known in gc.get_objects() if type(known) is ModuleCall]


def test_copies_and_pickles() -> None:
    problem = Problem("lstm_examples_first", SUMS)
    optimizer = LearnedOptimizer(problem.module, problem.meta)
    train(problem, optimizer, 1)

    # a copy of the model, and a pickle, have no part in it, and need no package of ours
    data = io.BytesIO()
    torch.save(problem.module, data)
    assert b"learned_opt" not in data.getvalue()
    lonely = copy.deepcopy(problem.module)
    problem.loss(lonely).backward()
    assert all(call() is None for calls in optimizer.hooks.calls.values() for call in calls)

    # model and optimizer together go on as they are
    module, resumed = pickle.loads(pickle.dumps((problem.module, optimizer)))
    twin = copy.deepcopy(problem)
    twin.module = module
    train(problem, optimizer, 2)
    train(twin, resumed, 2)
    assert_same(module, {name: p.detach() for name, p in problem.module.named_parameters()})

    # the state is what it was, so that a new optimizer takes it
    again = LearnedOptimizer(module, problem.meta)
    again.load_state_dict(optimizer.state_dict())
    assert optimizer.state_dict().keys() == {"state", "param_groups"}


def test_params_without_a_module_need_it() -> None:
    problem = Problem("mlp", SUMS)
    with pytest.raises(ValueError, match="give the model itself as params, or as module"):
        LearnedOptimizer(problem.module.named_parameters(), problem.meta)
    expected = problem.of_meta_training(2)
    named = problem.module.named_parameters()
    train(problem, LearnedOptimizer(named, problem.meta, module=problem.module), 2)
    assert_same(problem.module, expected)


@pytest.mark.slow
def test_compiled_steps_read_sums_and_refuse_rows() -> None:
    problem = Problem("mlp", SUMS)
    expected = problem.of_meta_training(3)
    train(problem, LearnedOptimizer(problem.module, problem.meta, compile=True))
    assert_same(problem.module, expected)

    with pytest.raises(ValueError, match="works neither with compile nor within"):
        LearnedOptimizer(problem.module, Problem("mlp", ROWS).meta, compile=True)


# torch's message where it cuts a graph
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.slow
@pytest.mark.parametrize("order", ["model_first", "optimizer_first", "in_place", "ran_before"])
def test_compiled_models(order: str) -> None:
    problem = Problem("mlp", SUMS)
    expected = problem.of_meta_training(2)
    torch.compiler.reset()
    if order == "in_place":
        problem.module.compile()
    model = problem.module if order == "in_place" else torch.compile(problem.module)
    if order == "ran_before":
        model(problem.inputs)
    optimizer = LearnedOptimizer(
        problem.module if order == "optimizer_first" else model, problem.meta
    )

    def steps() -> None:
        for _ in range(2):
            optimizer.zero_grad()
            problem.loss(model).backward()
            optimizer.step()

    if order == "ran_before":
        with pytest.raises(ValueError, match="made after the compiled model ran"):
            steps()
        return
    steps()
    assert_same(problem.module, expected)


def one_rank(rank: int, store: str) -> None:
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    problem = Problem("attention", SUMS)
    problem.inputs, problem.targets = problem.inputs[:4], problem.targets[:4]
    expected = problem.of_meta_training(3)
    model = DistributedDataParallel(problem.module)
    with pytest.raises(ValueError, match="gradmetanet"):
        LearnedOptimizer(model, Problem("attention", ROWS).meta)

    unaware = LearnedOptimizer(problem.module, problem.meta)
    part = slice(2 * rank, 2 * rank + 2)
    problem.loss(model, part).backward()
    with pytest.raises(ValueError, match="give the optimizer the DistributedDataParallel module"):
        unaware.step()
    unaware.close()

    optimizer = LearnedOptimizer(model, problem.meta)
    for _ in range(3):
        optimizer.zero_grad()
        with model.no_sync():  # a part of the batch, then the other
            (0.5 * problem.loss(model, slice(part.start, part.start + 1))).backward()
        (0.5 * problem.loss(model, slice(part.start + 1, part.stop))).backward()
        optimizer.step()
    assert_same(problem.module, expected)
    distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_of_distributed_data_parallel_share_their_examples(tmp_path) -> None:
    multiprocessing.spawn(one_rank, (str(tmp_path / "store"),), nprocs=2)
