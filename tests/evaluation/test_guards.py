"""Fairness guards: each fires, and stays silent where there is nothing to say."""

import pytest
import torch

from learned_opt.evaluation import guards
from tasks.data.images import LabelledImages
from tasks.data.text import TokenText
from tasks.language import NextToken
from tasks.networks.mlp import MLP
from tasks.quadratic import Quadratic
from tasks.reparam import Reparametrised
from tasks.supervised import Classification
from tests.cases import FAMILIES, SEQUENCE_NETWORKS

FACTS = {
    "task": "mlp",
    "network": "MLP",
    "data": "digits 8x8",
    "fingerprint": "aa",
    "input_shape": [1, 8, 8],
}
TRAINED = {
    "tasks": {"mlp": FACTS},
    "task_configs": {"mlp": {"hidden": 32}},
    "draws": {"validation": "valid"},
}


@pytest.mark.parametrize(
    ("facts", "config", "kind"),
    [
        ({}, {"hidden": 32}, guards.SAME_TASK),
        ({"task": "another name", "input_shape": (1, 8, 8)}, {"hidden": 32}, guards.SAME_TASK),
        ({}, {"hidden": 64}, guards.SAME_DATA),
        ({"network": "CNN"}, {"hidden": 32}, guards.SAME_DATA),
        ({"data": "digits 4x4", "fingerprint": "bb"}, {"hidden": 32}, guards.SAME_NAME),
        ({"data": "letters 8x8", "fingerprint": "cc"}, {"hidden": 32}, guards.UNSEEN),
    ],
)
def test_overlap_of_training_and_test_tasks(facts, config, kind) -> None:
    origin = guards.origin("unf", TRAINED, "mlp", FACTS | facts, config)
    assert origin.kind == kind
    assert origin.sentence.startswith("unf ")


def test_the_closest_of_several_training_tasks_counts() -> None:
    other = FACTS | {"network": "CNN"}
    trained = {
        "tasks": {"cnn": other, "mlp": FACTS},
        "task_configs": {"cnn": {}, "mlp": {"hidden": 32}},
    }
    assert guards.origin("unf", trained, "x", FACTS, {"hidden": 32}).kind == guards.SAME_TASK
    trained = {"tasks": trained["tasks"]}  # of an older version, without the configs
    assert (
        "as far as its description tells"
        in guards.origin("unf", trained, "x", FACTS, {"hidden": 64}).sentence
    )


def test_what_a_theta_was_trained_on_before_counts_too() -> None:
    later = {
        "tasks": {"mlp": {"data": "letters", "fingerprint": "dd"}},
        "task_configs": {"mlp": {}},
        "draws": {"validation": "valid"},
    }
    trained = {**later, "started_from": {"name": "first", **TRAINED}}
    origin = guards.origin("unf", trained, "mlp", FACTS | {"network": "CNN"}, {})
    assert origin.kind == guards.SAME_DATA
    assert "in another task, first/mlp" in origin.sentence
    assert guards.origin("unf", later, "mlp", FACTS, {"hidden": 32}).kind == guards.UNSEEN
    assert guards.seeds_sentence("unf", trained, "heldout") == ""
    unsaid = {**later, "started_from": {"name": "first", "tasks": {}}}
    assert "does not say which random draws" in guards.seeds_sentence("unf", unsaid, "heldout")


def test_a_task_without_data_is_told_by_its_description() -> None:
    facts = Quadratic(dim=3).describe()
    trained = {"tasks": {"quadratic": facts}}
    assert guards.origin("unf", trained, "q", facts, {}).kind == guards.SAME_TASK
    known = guards.origin("unf", {**trained, "task_configs": {"quadratic": {}}}, "q", facts, {})
    assert "as far as" not in known.sentence  # it is told, though there is nothing to tell
    assert guards.origin("unf", trained, "q", Quadratic(dim=4).describe(), {}).kind == guards.UNSEEN


def test_held_out_seeds() -> None:
    assert guards.seeds_sentence("unf", TRAINED, "heldout") == ""
    used = {**TRAINED, "draws": {"validation": "heldout"}}
    assert (
        "used the held-out seeds (draws keyed 'heldout') for validation"
        in guards.seeds_sentence("u", used, "heldout")
    )
    assert "does not say which random draws" in guards.seeds_sentence("u", {"tasks": {}}, "heldout")


def classification(num_shared: int) -> Classification:
    pixels = torch.rand(30, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 2
    test = torch.cat([pixels[:num_shared], pixels[20:]])
    marks = torch.cat([labels[:num_shared], labels[20:]])
    data = LabelledImages("noise", pixels[:20], labels[:20], test, marks, num_classes=2)
    return Classification(
        "noise", lambda shape, classes: MLP(shape, classes, (3,)), data, batch_size=4
    )


@pytest.mark.parametrize("num_shared", [0, 3])
def test_held_out_rows_among_the_training_rows_are_counted(num_shared) -> None:
    family = classification(num_shared)
    assert guards.shared_rows(family) == (num_shared, 10 + num_shared)
    assert guards.shared_rows(Reparametrised(family)) == (num_shared, 10 + num_shared)
    family.train = (family.train[0], 1 - family.train[1])
    # the same image of another class is another row
    assert guards.shared_rows(family) == (0, 10 + num_shared)


def test_text_that_recurs_is_found_wherever_it_starts() -> None:
    train = torch.randint(50, (500,), generator=torch.Generator().manual_seed(0))
    fresh = torch.randint(50, (64,), generator=torch.Generator().manual_seed(1))
    text = TokenText("noise", train, torch.cat([train[37 : 37 + 64], fresh, train[100:164]]), 50)
    family = NextToken("noise", SEQUENCE_NETWORKS["gru"], text, length=4, batch_size=3)
    assert guards.shared_rows(family) == (2, 3)


def test_endless_data_have_no_rows() -> None:
    assert guards.shared_rows(Quadratic(dim=3)) is None


@pytest.mark.parametrize("name", ["mlp", "gru", "arithmetic", "subleq_repair"])
def test_every_finite_family_gives_its_rows(name) -> None:
    shared, count = guards.shared_rows(FAMILIES[name]()) or (None, 0)
    assert count > 0
    assert shared is not None


def test_paired_starts() -> None:
    family = FAMILIES["mlp"]()
    starts = guards.start_fingerprints(family, "heldout", range(3))
    assert len(set(starts)) == 3
    assert starts[1:] == guards.start_fingerprints(family, "heldout", [1, 2])
    assert not set(starts) & set(guards.start_fingerprints(family, "tune", range(3)))
    guards.check_paired({"a": starts, "b": list(starts)})
    with pytest.raises(ValueError, match="b and a did not start from the same held-out seeds"):
        guards.check_paired({"a": starts, "b": starts[::-1]})
