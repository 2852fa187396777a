"""Sums and differences as text: right, apart, and read as they are written."""

import pytest
import torch

from learned_opt.symmetry import check_spec, infer_permutation_spec
from tasks.arithmetic import _counts
from tasks.data.arithmetic import ALPHABET, END, PAD, arithmetic
from tasks.networks.recurrent import GRUCell
from tasks.networks.seq2seq import Seq2Seq
from tests.cases import FAMILIES


def text(tokens: torch.Tensor) -> str:
    return "".join(ALPHABET[token] for token in tokens.tolist())


def test_every_problem_is_right_and_none_is_in_both_splits() -> None:
    data = arithmetic(2, num_train=300, num_test=100)
    questions = [
        text(row).lstrip(PAD) for row in torch.cat([data.train_questions, data.test_questions])
    ]
    answers = [text(row).rstrip(END) for row in torch.cat([data.train_answers, data.test_answers])]
    assert all(eval(q.rstrip("=")) == int(a) for q, a in zip(questions, answers, strict=True))
    assert len(set(questions)) == 400
    assert data.fingerprint == arithmetic(2, num_train=300, num_test=100).fingerprint
    assert all(row[-1] == ALPHABET.index("=") for row in data.train_questions)


def test_characters_after_the_end_do_not_count() -> None:
    ended = ALPHABET.index(END)
    short = ALPHABET.index("7")
    answers = torch.tensor([[short, ended, ended, ended], [short, short, short, ended]])
    assert _counts(answers).tolist() == [[True, True, False, False], [True] * 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_digits": 0}, "max_digits must lie between 1 and 9, got 0"),
        ({"max_digits": 1, "operators": "*"}, r"operators must be some of '\+-', got '\*'"),
        ({"max_digits": 1, "num_train": 200}, "must be at most 100, half of all problems"),
    ],
)
def test_bad_arithmetic(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        arithmetic(**arguments)


def test_greedy_decoding_reads_its_own_guesses() -> None:
    network = Seq2Seq((6,), len(ALPHABET), GRUCell, 5)
    questions = arithmetic(2, num_train=9, num_test=3).train_questions
    guesses = network(questions, None, 4).argmax(-1)
    assert torch.equal(network(questions, guesses).argmax(-1), guesses)
    spec = infer_permutation_spec(network, questions, guesses)
    assert check_spec(network, spec, questions, guesses).passed
    assert len(set(spec.names) - set(spec.fixed)) == 1  # the decoder takes over the encoder's units


def test_a_network_that_knows_the_answers_succeeds() -> None:
    family = FAMILIES["arithmetic"]()
    questions, answers = family.test

    class Oracle(torch.nn.Module):
        def forward(self, inputs, answers_so_far=None, length=1):
            index = (inputs[:, None] == questions[None]).all(-1).int().argmax(-1)
            right = answers[index].clone()
            right[index == 0, 0] = ALPHABET.index("=")  # one mistake, in the first answer
            return torch.nn.functional.one_hot(right, len(ALPHABET)) * 20.0

    family.network = Oracle()
    figures = family.evaluate({}, {})
    assert figures["accuracy"].item() == pytest.approx(19 / 20)


def test_both_splits_are_drawn_alike() -> None:
    """Short questions are drawn first and most often, which must not put them all in one split."""
    data = arithmetic(2, operators="+", num_train=3072, num_test=1024)

    def share_with_a_short_operand(questions: torch.Tensor) -> float:
        lengths = []
        for row in questions:
            left, right = text(row).strip(PAD + "=").split("+")
            lengths.append(min(len(left), len(right)) == 1)
        return sum(lengths) / len(lengths)

    train = share_with_a_short_operand(data.train_questions)
    test = share_with_a_short_operand(data.test_questions)
    error = (train * (1 - train) * (1 / 3072 + 1 / 1024)) ** 0.5  # standard error of a difference
    assert 0.1 < train < 0.9
    assert abs(train - test) < 4 * error
