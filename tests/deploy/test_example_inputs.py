"""How the symmetries of a model are told: inputs or nothing; and what stops a trace."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from learned_opt import LearnedOptimizer, infer_permutation_spec
from learned_opt.deploy.model_symmetries import Symmetries
from learned_opt.symmetry.roles import is_table
from learned_opt.symmetry.untraceable import UntraceableError
from tests.deploy.test_learned_optimizer import DATA, equivariant, model, train


class ByName(nn.Module):
    """Takes its inputs by name, and returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x: dict[str, Tensor], scale: float = 1.0) -> dict[str, Tensor]:
        return {"y": scale * self.last(self.first(x["x"]).relu())}


@pytest.mark.parametrize("inputs", [DATA, (DATA,), [DATA], None])
def test_a_tensor_a_tuple_or_nothing(inputs: Any) -> None:
    network = model()
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network, inputs)
    train(network, optimizer, 1)
    free = set(optimizer.meta_optimizer.spec.names) - set(optimizer.meta_optimizer.spec.fixed)
    assert ("0.weight[1]" in free) == (inputs is None)  # the inputs' axis, which a trace fixes


def test_a_dict_and_what_is_no_tensor() -> None:
    inputs = {"x": {"x": DATA}, "scale": 2.0}
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", ByName(), inputs)
    spec = optimizer.meta_optimizer.spec
    assert spec.axes["first.weight"][0] == spec.axes["last.weight"][1]
    assert set(spec.fixed) == {"first.weight[1]", "last.weight[0]"}


def test_without_a_trace_words_are_known_by_their_module() -> None:
    network = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network)
    spec = optimizer.meta_optimizer.spec
    assert dict(spec.reasons) == {"0.weight[0]": "picked by index"}


def test_a_known_spec_gets_the_reasons_of_the_trace() -> None:
    network = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    words = torch.arange(5)
    inferred = infer_permutation_spec(network, words)
    written = replace(inferred, reasons={})
    assert not is_table(written, "0.weight")

    spec = Symmetries(network, words, "trace").spec([written])
    assert spec is not None
    assert spec == written
    assert dict(spec.reasons) == dict(inferred.reasons)
    assert is_table(spec, "0.weight")


class Item(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if y.sum().item() > 0 else 2 * y


class Numpy(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * float(y.detach().numpy().mean())


class Packed(nn.Module):
    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(num_inputs, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_sequence([x, x[:2]])
        return nn.utils.rnn.pad_packed_sequence(self.cell(packed)[0])[0]


def scripted(num_inputs: int, num_outputs: int) -> nn.Module:
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        return torch.jit.script(nn.Linear(num_inputs, num_outputs))


@pytest.mark.parametrize(
    ("make", "operation"),
    [
        (Item, "torch.Tensor.item"),
        (Numpy, "torch.Tensor.numpy"),
        (Packed, "torch.lstm"),
        (scripted, "torch.jit"),
    ],
)
def test_one_sentence_names_what_stops_a_trace(
    make: Callable[[int, int], nn.Module], operation: str
) -> None:
    network = make(5, 4)
    with pytest.raises(UntraceableError, match=f"it stops at {operation}.*symmetry='none' goes on"):
        LearnedOptimizer.from_pretrained("unf-transfer", network, DATA)

    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network, DATA, symmetry="none")
    spec = optimizer.meta_optimizer.spec
    assert set(spec.fixed) == set(spec.names)
    train(network, optimizer, 1)


def test_the_spec_of_a_model_may_be_handed_over() -> None:
    network = model()
    spec = infer_permutation_spec(network, DATA)
    optimizer = LearnedOptimizer.from_pretrained("unf-transfer", network, symmetry=spec)
    assert optimizer.meta_optimizer.spec == spec
    with pytest.raises(ValueError, match="symmetry must be trace, none or a PermutationSpec"):
        LearnedOptimizer.from_pretrained("unf-transfer", network, symmetry="all")


def test_a_theta_that_reads_all_needs_inputs(tmp_path) -> None:
    network = model()
    with pytest.raises(ValueError, match="give example_inputs, a tensor, tuple or dict"):
        LearnedOptimizer.from_pretrained("unf-mlp-fashion", network)
    with pytest.raises(ValueError, match="weight space"):
        LearnedOptimizer.from_pretrained("unf-mlp-fashion", network, DATA)
    assert not equivariant(network).simplified().separable


def test_a_trace_makes_no_copy_of_the_model() -> None:
    """Parameters on the meta device have no numbers to be copied."""
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(10_000, 10_000), nn.ReLU(), nn.Linear(10_000, 10_000))
    spec = infer_permutation_spec(network, torch.zeros(1, 10_000, device="meta"))
    assert spec.axes["2.weight"][1] == spec.axes["0.bias"][0]
