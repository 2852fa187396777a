"""Arithmetic, the zoo on disk, and predictors of success: oracles, resumption, damage,
invariance.
"""

import json
import sys
from functools import partial

import pandas as pd
import pytest
import torch
from scipy.stats import kendalltau

from learned_opt.commands import zoo as command
from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.evaluation.prediction.fit import Settings, fit, prepare
from learned_opt.evaluation.prediction.populate import Recipe, populate
from learned_opt.evaluation.prediction.predictors import (
    NUM_STATISTICS,
    InvariantFunctional,
    StatNN,
    statistics,
)
from learned_opt.evaluation.prediction.probe import probe_gradients
from learned_opt.evaluation.prediction.zoo import (
    Zoo,
    read_settings,
    read_shard,
    read_zoo,
    settle,
    split_of,
    write_shard,
)
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.hand.references import make_adam
from learned_opt.symmetry import PermutationSpec, check_spec, infer_permutation_spec
from learned_opt.unf import Pointwise, UNFLinear
from learned_opt.unf.type_tied import TypeTied
from tasks.arithmetic import _counts
from tasks.data.arithmetic import ALPHABET, END, PAD, arithmetic
from tasks.networks.recurrent import GRUCell
from tasks.networks.seq2seq import Seq2Seq
from tests.cases import FAMILIES, spec_of


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


def recipe(**changes) -> Recipe:
    values = {
        "num_models": 12,
        "shard_size": 4,
        "lowest_lr": 1e-3,
        "highest_lr": 1e-1,
        "batch_sizes": [3, 5],
        "num_steps": [2, 4],
        "success": "accuracy",
        "seed": 0,
    }
    return Recipe(**(values | changes))


def unroll_of(batch_size: int) -> Unroll:
    family = FAMILIES["arithmetic"]()
    family.batch_size = batch_size
    return Unroll(family, make_adam(spec_of(family)), compile=False)


@pytest.fixture
def folder(tmp_path):
    populate(tmp_path, recipe(), unroll_of, lambda line: None)
    return tmp_path


def test_a_zoo_is_the_same_however_often_it_is_interrupted(folder, tmp_path_factory) -> None:
    whole = read_zoo(folder)
    pieces = tmp_path_factory.mktemp("pieces")

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            populate(pieces, recipe(), unroll_of, stop)
    again = read_zoo(pieces)
    pd.testing.assert_frame_equal(again.table, whole.table)
    assert all(
        torch.equal(a, b)
        for a, b in zip(tree.leaves(again.params), tree.leaves(whole.params), strict=True)
    )
    assert whole.table.learning_rate.between(1e-3, 1e-1).all()
    assert whole.table.learning_rate.nunique() == len(whole.table) == 12


@pytest.mark.parametrize("damage", ["weights", "weights missing", "table"])
def test_a_broken_shard_is_left_out_named_and_trained_again(folder, damage) -> None:
    before = read_zoo(folder)
    weights = folder / "shard-00001.safetensors"
    rows = folder / "shard-00001.parquet"
    if damage == "weights":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1  # a single bit
        weights.write_bytes(data)
    elif damage == "weights missing":
        weights.unlink()
    else:
        rows.write_bytes(rows.read_bytes()[:50])
    zoo = read_zoo(folder)
    assert sorted(zoo.table.model) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert len(zoo.broken) == 1
    assert "shard-00001" in zoo.broken[0]
    said = []
    populate(folder, recipe(), unroll_of, said.append)
    assert [line for line in said if "shard 2 of 3" in line]
    pd.testing.assert_frame_equal(read_zoo(folder).table, before.table)


def change_shard(folder, change) -> None:
    table, params = read_shard(folder, 1)
    table, params = change(table.drop(columns=["shard", "sha256"]), params)
    write_shard(folder, 1, table, params)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table, params: (pd.concat([table, table[:1]]), params), "its 5 rows do not fit"),
        (
            lambda table, params: (table.assign(success=float("nan")), params),
            "success must be finite where finite says",
        ),
        (lambda table, params: (table.assign(success="x"), params), "success must hold numbers"),
        (lambda table, params: (table.assign(finite=2), params), "finite must hold truth"),
        (lambda table, params: (table.assign(split="dev"), params), "split must be one of train"),
        (lambda table, params: (table.drop(columns="success"), params), "has no column success"),
        (
            lambda table, params: (table, {name: leaf[..., None] for name, leaf in params.items()}),
            "are of other networks",
        ),
    ],
)
def test_a_foreign_shard_is_left_out_and_named(folder, change, reason) -> None:
    change_shard(folder, change)
    zoo = read_zoo(folder)
    assert sorted(zoo.table.model) == [0, 1, 2, 3, 8, 9, 10, 11]
    (sentence,) = zoo.broken
    assert reason in sentence
    assert "shard-00001" in sentence


def test_a_file_that_is_no_shard_is_named(folder) -> None:
    (folder / "shard-best.parquet").write_bytes(b"")
    (folder / "shard-1.parquet").write_bytes(b"")
    assert [sentence.partition(" ")[2] for sentence in read_zoo(folder).broken] == [
        "has no number of a shard"
    ] * 2


SETTINGS = {"format": 1, "task": {}, "recipe": {}, "spec": {"axes": {}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "zoo.json is damaged"),
        ("[" * 200_000, "zoo.json is damaged: it is nested too deep"),
        ("[1]", "zoo.json must hold an object"),
        (json.dumps(SETTINGS | {"format": 2}), "format in .*zoo.json must be 1, it is 2"),
        (json.dumps(SETTINGS | {"recipe": 3}), "recipe in .*zoo.json must be an object"),
        (json.dumps(SETTINGS | {"spec": {"axes": [1]}}), "spec in .*zoo.json must be that of a P"),
        (json.dumps(SETTINGS | {"spec": {"axes": {"w": 1}}}), "spec in .*zoo.json must be that"),
        (json.dumps(SETTINGS | {"spec": {"axes": {}, "evil": 1}}), "spec in .*zoo.json must be"),
    ],
)
def test_a_damaged_or_foreign_description_is_one_sentence(tmp_path, content, message) -> None:
    (tmp_path / "zoo.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_settings(tmp_path)


def test_a_folder_keeps_its_settings(tmp_path) -> None:
    settle(tmp_path / "zoo", {"recipe": {"seed": 0}})
    settle(tmp_path / "zoo", {"recipe": {"seed": 0}})
    with pytest.raises(
        ValueError, match=r"holds a zoo of other settings: recipe is {'seed': 0} there"
    ):
        settle(tmp_path / "zoo", {"recipe": {"seed": 1}})
    with pytest.raises(ValueError, match=r"no shard of the zoo in .* can be read"):
        read_zoo(tmp_path / "zoo")


def test_the_split_is_fixed_and_disjoint() -> None:
    split = split_of(list(range(100)), 100)
    assert [split.count(name) for name in ("train", "valid", "test")] == [80, 10, 10]
    assert split_of([7, 3], 100) == [split[7], split[3]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_models": 13}, "multiple of shard_size 4, got 13"),
        ({"lowest_lr": 1.0}, "0 < lowest_lr < highest_lr must hold"),
        ({"batch_sizes": []}, r"batch_sizes must hold positive numbers, got \[\]"),
        ({"shard_size": 0}, "shard_size must be at least 1, got 0"),
    ],
)
def test_bad_recipes(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


FUNCTIONAL = partial(InvariantFunctional, layer=UNFLinear)
SPEC = PermutationSpec({"w": ("h", "i"), "b": ("h",)}, fixed={"i"}, fixed_sizes={"i": 3})


def made_up_zoo(num: int = 400) -> Zoo:
    """Success is a function of one statistic, how strongly the rows of w agree with b."""
    source = torch.Generator().manual_seed(0)
    params = {
        "w": torch.randn(num, 5, 3, generator=source),
        "b": torch.randn(num, 5, generator=source),
    }
    success = torch.sigmoid(3 * (params["w"].mean(-1) * params["b"]).mean(-1))
    rows = {
        "model": range(num),
        "split": split_of(list(range(num)), num),
        "success": success.numpy(),
        "finite": True,
    }
    return Zoo(pd.DataFrame(rows), params, [])


@pytest.mark.parametrize("kind", ["unf", "fold", "deep_set", "tied", "statnn"])
def test_predictors_are_invariant_and_see_more_than_one_tensor(kind) -> None:
    torch.manual_seed(0)
    predictor = (
        {
            "unf": lambda: InvariantFunctional(SPEC, UNFLinear),
            "fold": lambda: InvariantFunctional(SPEC, UNFLinear, fixed_axes="fold"),
            "deep_set": lambda: InvariantFunctional(SPEC, Pointwise),
            "tied": lambda: InvariantFunctional(SPEC, TypeTied, with_statistics=True),
            "statnn": lambda: StatNN(SPEC),
        }[kind]()
        .double()
        .eval()
    )
    weights = made_up_zoo(6).params
    params = {name: value.double().unsqueeze(-1) for name, value in weights.items()}
    element = SPEC.draw(
        {name: value[0, ..., 0] for name, value in params.items()}, torch.Generator().manual_seed(1)
    )
    many = []
    for i in range(6):
        network = {name: value[i] for name, value in params.items()}
        many.append(SPEC.apply(network, element))
    torch.testing.assert_close(predictor(tree.stack(many)), predictor(params), rtol=0, atol=1e-10)
    rolled = {
        "w": params["w"].roll(1, 1),
        "b": params["b"],
    }  # rows of w no longer belong to entries of b
    changed = (predictor(rolled) - predictor(params)).abs().max() > 1e-4
    assert changed == (kind in ("unf", "fold", "tied"))


def test_statistics_against_closed_form() -> None:
    expected = torch.tensor([[2.0, 2.0, 0.0, 1.0, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(statistics(torch.arange(5.0)[None].flip(-1)), expected)


def test_only_the_functional_can_rank_by_what_relates_two_tensors() -> None:
    data = prepare(made_up_zoo())
    settings = Settings(lr=3e-3, batch_size=32, max_epochs=40, patience=40)
    unf = fit(FUNCTIONAL, SPEC, data, settings, seed=0)
    statnn = fit(StatNN, SPEC, data, settings, seed=0)
    assert unf.tau > 0.6
    assert abs(statnn.tau) < 0.4
    assert unf.tau == pytest.approx(kendalltau(unf.predicted, data["test"][1]).statistic, abs=1e-6)
    assert fit(FUNCTIONAL, SPEC, data, settings, seed=0).tau == unf.tau


def test_stopping_by_tau_keeps_the_weights_of_the_best_validation_tau() -> None:
    data = prepare(made_up_zoo())
    by_figure = {}
    for stop_by in ("loss", "tau"):
        settings = Settings(lr=1e-2, batch_size=32, max_epochs=12, patience=12, stop_by=stop_by)
        by_figure[stop_by] = fit(FUNCTIONAL, SPEC, data, settings, seed=0)
    assert by_figure["tau"].valid_tau >= by_figure["loss"].valid_tau
    # with more epochs the best so far can only rise
    longer = Settings(lr=1e-2, batch_size=32, max_epochs=16, patience=16, stop_by="tau")
    assert fit(FUNCTIONAL, SPEC, data, longer, 0).valid_tau >= by_figure["tau"].valid_tau
    with pytest.raises(ValueError, match=r"stop_by must be one of \('loss', 'tau'\), got 'taus'"):
        Settings(lr=1e-2, batch_size=32, max_epochs=1, patience=1, stop_by="taus")
    with pytest.raises(ValueError, match="weight_decay must not be negative"):
        Settings(lr=1e-2, batch_size=32, max_epochs=1, patience=1, weight_decay=-1.0)


def test_statistics_beside_what_is_equivariant_and_dropout_in_training_alone() -> None:
    params = {name: value.unsqueeze(-1) for name, value in made_up_zoo(8).params.items()}
    predictor = InvariantFunctional(SPEC, UNFLinear, with_statistics=True, dropout=0.5)
    plain = InvariantFunctional(SPEC, UNFLinear)
    count = NUM_STATISTICS * len(SPEC.parameters)
    assert predictor.dense[1].in_features == plain.dense[0].in_features + count

    torch.manual_seed(0)
    assert not torch.equal(predictor(params), predictor(params))
    predictor.eval()
    torch.testing.assert_close(predictor(params), predictor(params), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"dropout must be at least 0 and below 1, got 1\.0"):
        StatNN(SPEC, dropout=1.0)


def test_preparation_and_networks_that_diverged() -> None:
    zoo = made_up_zoo()
    zoo.table.loc[zoo.table.split == "test", "finite"] = False
    with pytest.raises(ValueError, match="the test split of the zoo has 0 networks"):
        prepare(zoo)
    zoo = made_up_zoo()
    zoo.table["success"] = 0.5
    with pytest.raises(
        ValueError, match=r"all networks of the train split have the success 0\.5: nothing"
    ):
        prepare(zoo)
    zoo = made_up_zoo()
    zoo.table["success"] *= 3  # a loss, say
    with pytest.raises(ValueError, match=r"success must be a rate from 0 to 1 .* train split"):
        prepare(zoo)
    train, success = prepare(made_up_zoo())["train"]
    assert len(success) == 320
    assert train["w"].mean().abs() < 1e-5
    assert train["w"].std().item() == pytest.approx(1, abs=1e-5)


def test_gradients_on_a_probe_batch_are_a_second_channel() -> None:
    zoo = made_up_zoo()

    def gradients_of(params):
        return {name: 100 * value**3 for name, value in params.items()}

    plain = prepare(zoo)
    data = prepare(zoo, gradients_of)
    for split in ("train", "valid", "test"):
        for name, value in data[split][0].items():
            torch.testing.assert_close(value[..., :1], plain[split][0][name], rtol=0, atol=0)
    weights, _ = zoo.select("train")
    for name, gradient in gradients_of(weights).items():
        scaled = (gradient - gradient.mean()) / gradient.std()
        torch.testing.assert_close(data["train"][0][name][..., 1], scaled.asinh())

    settings = Settings(lr=3e-3, batch_size=32, max_epochs=2, patience=2)
    for constructor in (FUNCTIONAL, StatNN):
        assert fit(constructor, SPEC, data, settings, seed=0).epochs > 0


def test_a_probe_is_the_gradient_of_the_training_loss() -> None:
    family = FAMILIES["mlp"]()
    source = torch.Generator().manual_seed(0)
    task = family.sample(source)
    networks = [family.init(source, task) for _ in range(3)]
    gradients = probe_gradients(family, tree.stack(networks), seed=4)

    probe = generator(4, "probe")
    batch = family.batch(probe, family.sample(probe))
    for i, network in enumerate(networks):
        expected = torch.func.grad(family.loss)(network, batch, task)
        for name, value in expected.items():
            torch.testing.assert_close(gradients[name][i], value)


TINY = [
    "recipe.num_models=100",
    "recipe.shard_size=50",
    "recipe.num_steps=[20]",
    "recipe.batch_sizes=[4]",
    "compile=false",
    "zoo=cnn",
    "network.channels=[2,3]",
    "data.test_fraction=0.1",
    "fit.max_epochs=2",
    "num_seeds=2",
]


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo", *arguments])
    command.main()


def test_the_commands(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "build", *TINY)
    run(monkeypatch, "predict", *TINY)
    shown = capsys.readouterr().out
    assert "the zoo is complete: 100 networks" in shown
    folder = tmp_path / "runs/zoo-cnn"
    rows = json.loads((folder / "prediction.json").read_text())
    assert [row["predictor"] for row in rows] == ["unf", "statnn", "deep_set"]
    assert (folder / "prediction.png").stat().st_size > 5_000

    run(monkeypatch, "predict", *TINY, "probe=16", "~predictors.statnn")
    probed = json.loads((folder / "prediction.json").read_text())
    pairs = zip(probed, [rows[0], rows[2]], strict=True)
    assert all(more["parameters"] > fewer["parameters"] for more, fewer in pairs)
    for word, sentence in (
        ("probe=-1", "probe must be at least 0, got -1"),
        ("data.test_fraction=0.2", "the task that is composed is not that of the zoo: "),
    ):
        with pytest.raises(SystemExit):
            run(monkeypatch, "predict", *TINY, "probe=16", word)
        assert sentence in capsys.readouterr().err
    assert "Kendall's tau" in (folder / "prediction.md").read_text()
    table, params = read_shard(folder, 1)
    write_shard(folder, 1, table.drop(columns=["shard", "sha256"]), params)
    (folder / "shard-00000.safetensors").write_bytes(b"not weights")
    run(monkeypatch, "predict", *TINY)
    assert "left out: " in (shown := capsys.readouterr().out)
    assert "shard-00000.safetensors is damaged" in shown.replace("\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to do: python -m learned_opt zoo build, predict or forecast"),
        (["predict"], "there is no zoo in runs/zoo-gru; build one first"),
        (["build", "recipe.num_models=5"], "num_models must be at least 10"),
        (["build", "zoo=gnu"], "unknown zoo 'gnu'; choose one of: cnn, gru, trajectories"),
    ],
)
def test_what_people_get_wrong(arguments, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


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
