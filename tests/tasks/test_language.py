"""Text, recurrent cells against torch's own, the causal transformer."""

import logging

import pandas
import pytest
import torch
from torch import nn
from torch.func import functional_call

from learned_opt.core.rng import generator
from learned_opt.symmetry import check_spec, infer_permutation_spec
from tasks.data.text import docs_text, hub_text, tokenise
from tasks.language import NextToken
from tasks.networks.recurrent import GRUCell, LSTMCell, RNNCell
from tests.cases import SEQUENCE_NETWORKS, tokens
from tests.tasks.test_data import SHARED


def test_bytes_can_be_read_back() -> None:
    text = tokenise("made_up", ["aab", "c\n"], ["ca"], "byte", 10)
    assert text.vocab_size == 5
    assert text.train.tolist()[:2] == [1, 1]  # the most frequent token is number 1
    assert len(text.train) == 5
    assert text.test.tolist() == [text.train[3].item(), 1]


def test_a_small_vocabulary_says_what_it_cuts(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        text = tokenise("made_up", ["one two two three, three three"], ["four three"], "word", 3)
    assert text.vocab_size == 3
    assert text.train.tolist() == [0, 2, 2, 1, 0, 1, 1]
    assert "2 of 4 different tokens are cut by max_vocab" in caplog.text
    assert "28.57% of the training and 50.00% of the test tokens are unknown" in caplog.text


def test_embedded_text_is_english_and_needs_no_cut() -> None:
    text = docs_text("byte", 256)
    assert len(text.train) > 300_000
    assert text.vocab_size < 256
    assert not (text.train == 0).any()
    assert (
        text.fingerprint == docs_text("byte", 256).fingerprint != docs_text("word", 256).fingerprint
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"tokeniser": "letter", "max_vocab": 10},
            "tokeniser must be one of byte, word, got 'letter'",
        ),
        ({"tokeniser": "byte", "max_vocab": 1}, "max_vocab must be at least 2, got 1"),
        (
            {"tokeniser": "byte", "max_vocab": 9, "test_fraction": 0.0},
            "test_fraction must lie between 0 and 1",
        ),
    ],
)
def test_bad_values_are_named(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        docs_text(**arguments)


def test_windows_longer_than_the_text_are_refused() -> None:
    with pytest.raises(
        ValueError, match="length must lie between 1 and 49, the shorter text's tokens, got 50"
    ):
        NextToken("t", SEQUENCE_NETWORKS["gru"], tokens(), length=50)


def copy_gates(cell: nn.Module, reference: nn.Module) -> None:
    """Stack the cell's gates into torch's packed tensors."""
    with torch.no_grad():
        for ours, theirs in (("read", "ih"), ("keep", "hh")):
            part = getattr(cell, ours)
            linears = list(part.values()) if isinstance(part, nn.ModuleDict) else [part]
            weights = []
            biases = []
            for layer in linears:
                weights.append(layer.weight)
                no_bias = torch.zeros_like(layer.weight[:, 0])
                biases.append(no_bias if layer.bias is None else layer.bias)
            getattr(reference, f"weight_{theirs}_l0").copy_(torch.cat(weights))
            getattr(reference, f"bias_{theirs}_l0").copy_(torch.cat(biases))


@pytest.mark.parametrize(
    ("cell", "reference"),
    [
        (RNNCell(3, 4, identity=True), nn.RNN(3, 4, nonlinearity="relu", batch_first=True)),
        (RNNCell(3, 4, identity=False), nn.RNN(3, 4, batch_first=True)),
        (GRUCell(3, 4), nn.GRU(3, 4, batch_first=True)),
        (LSTMCell(3, 4), nn.LSTM(3, 4, batch_first=True)),
    ],
    ids=["irnn", "vanilla", "gru", "lstm"],
)
def test_cells_equal_torch(cell, reference) -> None:
    cell = cell.double()
    reference = reference.double()
    copy_gates(cell, reference)
    inputs = torch.randn(2, 5, 3, dtype=torch.float64)
    state = None
    outputs = []
    for position in range(5):
        output, state = cell(inputs[:, position], state)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, 1), reference(inputs)[0], rtol=0, atol=1e-12)


def test_irnn_starts_with_the_identity_and_lstm_remembers() -> None:
    params = SEQUENCE_NETWORKS["irnn"]((4,), 5).init(generator(0))
    assert torch.equal(params["cell.keep.weight"], torch.eye(4))
    assert (SEQUENCE_NETWORKS["lstm"]((4,), 5).init(generator(0))["cell.read.f.bias"] == 1).all()


@pytest.mark.parametrize("name", SEQUENCE_NETWORKS)
def test_the_future_is_not_seen(name) -> None:
    network = SEQUENCE_NETWORKS[name]((4,), 5)
    params = network.init(generator(0))
    sequence = torch.tensor([[1, 2, 3, 4]])
    changed = torch.tensor([[1, 2, 3, 0]])
    before, after = (functional_call(network, params, (s,)) for s in (sequence, changed))
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3], after[:, 3])


@pytest.mark.parametrize(
    ("name", "num_free"),
    [("irnn", 2), ("vanilla_rnn", 2), ("gru", 2), ("lstm", 2), ("transformer", 5)],
)
def test_inferred_specs(name, num_free) -> None:
    """Embedding and hidden units.

    For one block of attention: stream, heads, queries with keys, values, MLP.
    """
    network = SEQUENCE_NETWORKS[name]((4,), 5)
    inputs = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 2]])
    spec = infer_permutation_spec(network, inputs)
    report = check_spec(network, spec, inputs)
    assert report.passed, report.findings
    assert len([n for n in spec.names if n not in spec.fixed]) == num_free, dict(spec.reasons)


def test_rows_are_joined_and_what_is_left_out_is_said(tmp_path, caplog) -> None:
    folder = tmp_path / "made_up"
    folder.mkdir()
    for split, rows in (("train", ["ab", "c", "d"]), ("test", ["b"])):
        pandas.DataFrame({"text": rows}).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    with caplog.at_level(logging.WARNING):
        text = hub_text(
            "made_up",
            "nobody/nothing",
            str(tmp_path),
            None,
            "text",
            "byte",
            9,
            separator="/",
            max_rows=2,
        )
    assert len(text.train) == len("ab/c")
    assert len(text.test) == 1
    assert "1 of 3 rows of train are left out by max_rows" in caplog.text
    with pytest.raises(ValueError, match="max_rows must be at least 1, got 0"):
        hub_text("made_up", "nobody/nothing", str(tmp_path), None, "text", "byte", 9, max_rows=0)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared copies of the data are not here")
@pytest.mark.parametrize(
    ("name", "config", "num_bytes"),
    [("tiny_shakespeare", None, 1_003_854), ("wikitext", "wikitext-2-v1", None)],
)
def test_real_copies(name, config, num_bytes) -> None:
    text = hub_text(name, "nobody/nothing", str(SHARED), config, "text", "byte", 256)
    assert num_bytes is None or len(text.train) == num_bytes
    assert len(text.test) > 50_000
