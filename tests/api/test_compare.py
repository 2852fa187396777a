"""evaluate and compare: every kind of optimizer, one evaluation path, and what is refused."""

import logging
from functools import partial

import pytest
import torch
from torch import nn

import learned_opt
from learned_opt.api.compare import Budget, compare
from learned_opt.api.evaluate import evaluate
from learned_opt.evaluation.results import read_evaluation
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.unf.layers import Pointwise
from tasks.quadratic import Quadratic
from tests.api.test_meta_train import small
from tests.cases import FAMILIES, FourMethods, spec_of

QUIET = {"compile": False, "progress": False}
TINY = {**QUIET, "seeds": 3, "num_lrs": 3, "num_tuning_seeds": 1}
UNTRAINED = partial(UNFOptimizer, head=Pointwise, channels=4)


@pytest.fixture(scope="module")
def task():
    return Quadratic(dim=2, condition=1.0)


@pytest.fixture(scope="module")
def result(task):
    return small(task, steps=2)


@pytest.fixture(scope="module")
def comparison(task, result, tmp_path_factory):
    folder = result.save(tmp_path_factory.mktemp("theta"))
    bound = learned_opt.LearnedOptimizer.from_pretrained(folder, nn.Linear(2, 2))
    optimizers = {
        "result": result,
        "folder": folder,
        "deployed": bound,
        "object": result.optimizer,
        "untrained": UNTRAINED,
    }
    return compare(optimizers, task, 10, **TINY)


def test_every_kind_of_optimizer_gives_the_runs_of_its_theta(comparison) -> None:
    frame = comparison.frame.set_index(["optimizer", "seed"])
    expected = frame.loc["result"]["final_loss"].tolist()
    assert len(expected) == 3
    for name in ("folder", "deployed", "object"):
        assert frame.loc[name]["final_loss"].tolist() == expected
    assert frame.loc["untrained"]["final_loss"].tolist() != expected
    assert {"adam", "sgdm"} <= set(comparison.frame["optimizer"])


def test_the_losses_are_those_of_the_closed_form(task) -> None:
    """Gradient descent on a round bowl: every step multiplies the loss by (1 - lr)^2."""
    sgd = partial(make_sgdm, lr=0.5, gamma=1e-7)
    frame = evaluate(sgd, task, 4, seeds=2, **QUIET)
    for row in frame.to_dict("records"):
        losses = [row["initial_loss"] * 0.25**step for step in range(4)]
        assert row["mean_loss"] == pytest.approx(sum(losses) / 4, rel=1e-4)
        assert row["excess_loss"] == pytest.approx(losses[-1] * 0.25, rel=1e-4)


def test_what_is_printed_names_all_and_who_is_ahead(comparison) -> None:
    text = repr(comparison)
    lines = text.splitlines()
    assert max(map(len, lines[:12])) <= 100
    assert "quadratic, horizon 10: 3 held-out seeds" in lines[0]
    for name in ("result", "folder", "untrained", "adam"):
        assert any(line.startswith(f"{name} ") for line in lines)
    assert "paired over seeds" in text
    assert "\x1b" not in text
    assert "| result |" in comparison._repr_markdown_()


def test_what_is_not_known_of_an_optimizer_is_a_note(comparison) -> None:
    notes = "\n".join(comparison.notes)
    assert "object does not say which tasks it was meta-trained on" in notes
    assert "object does not say which random draws" in notes
    assert "folder was meta-trained on quadratic itself as far as its description tells" in notes
    # what was trained in this process on this very task, and what was not trained at all
    assert "result was" not in notes
    assert "untrained" not in notes


def test_differences_are_paired_and_have_a_sign(comparison) -> None:
    rows = comparison.differences.set_index(["optimizer", "rival", "figure"])
    same = rows.loc["result", "folder", "final_loss"]
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)
    there = rows.loc["result", "untrained", "mean_loss"]["difference"]
    back = rows.loc["untrained", "result", "mean_loss"]["difference"]
    assert there == pytest.approx(-back)
    assert there != 0


def test_the_report_is_written_and_read_again(comparison, tmp_path) -> None:
    page = comparison.report(tmp_path / "report")
    assert page.name == "report.html"
    assert "<html" in page.read_text()
    again = read_evaluation(page.parent / "evaluation.json")
    assert again.frame["final_loss"].tolist() == comparison.frame["final_loss"].tolist()


def test_nothing_is_written_or_drawn_or_printed(task, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    before = torch.random.get_rng_state()
    handlers = logging.getLogger("lightning.pytorch").handlers[:]
    compare({"untrained": UNTRAINED}, task, 4, **{**TINY, "baselines": {}})
    assert torch.equal(torch.random.get_rng_state(), before)
    assert logging.getLogger("lightning.pytorch").handlers == handlers
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_baselines_of_torch_are_tuned_as_those_of_the_project(task) -> None:
    """The same steps as the project's Adam, up to rounding, at every rate of the grid."""
    baselines = {"torch": partial(torch.optim.Adam, betas=(0.9, 0.999)), "adam": make_adam}
    frame = compare({"untrained": UNTRAINED}, task, 10, baselines=baselines, **TINY).frame
    losses = frame.set_index(["optimizer", "seed"])["final_loss"]
    assert losses["torch"].tolist() == pytest.approx(losses["adam"].tolist(), rel=1e-3)


def test_several_tasks_and_a_range_of_seeds() -> None:
    tasks = {"bowl": Quadratic(), "mine": FourMethods()}
    adam = partial(make_adam, lr=0.1)
    frame = evaluate(adam, tasks, {"bowl": 3, "mine": 4}, seeds=range(5, 7), **QUIET)
    assert frame["task"].tolist() == ["bowl", "bowl", "mine", "mine"]
    assert frame["horizon"].tolist() == [3, 3, 4, 4]
    assert frame["seed"].tolist() == [5, 6, 5, 6]
    assert "excess_loss" in frame


def test_the_budget_is_that_of_the_commands() -> None:
    import yaml

    from tests.api.test_meta_train import CONFIGS

    benchmark = yaml.safe_load((CONFIGS / "benchmark/default.yaml").read_text())
    names = ("lowest_lr", "highest_lr", "num_lrs", "num_tuning_seeds")
    for name in names:
        assert getattr(Budget, name) == benchmark[name], name
    assert list(Budget.tuned_for) == benchmark["tuned_for"]
    for function in (compare, evaluate):
        assert function.__kwdefaults__["seeds"] == benchmark["num_seeds"]


BAD = {
    "no mapping": ({"optimizers": UNTRAINED}, TypeError, "optimizers must be a mapping"),
    "none": ({"optimizers": {}}, TypeError, "optimizers must be a mapping"),
    "number": ({"optimizers": {"a": 3}}, TypeError, "optimizer must be a result of meta_train"),
    "torch": ({"optimizers": {"a": torch.optim.SGD}}, TypeError, "must make a MetaOptimizer"),
    "no theta": ({"optimizers": {"a": "no-such"}}, ValueError, "nothing is called 'no-such'"),
    "task": ({"task": Quadratic}, TypeError, "task must be an object, got the class Quadratic"),
    "seeds": ({"seeds": 0}, ValueError, "seeds must be at least 1, got 0"),
    "range": ({"seeds": range(0, 4, 2)}, ValueError, "seeds must be a range of neighbours"),
    "horizon": ({"horizon": 0}, ValueError, "horizon must be at least 1, got 0"),
    "names": ({"baselines": ["adam"]}, TypeError, "baselines must be a mapping"),
    "text": ({"baselines": {"adam": "adam"}}, TypeError, "names are for the command line"),
    "grid": ({"num_lrs": 1}, ValueError, "num_lrs must be at least 2, got 1"),
    "reference": ({"reference": "lion"}, ValueError, "reference must be one of the baselines"),
    "criterion": ({"tuned_for": ["loss"]}, ValueError, "tuned_for must be among"),
    "twice": ({"optimizers": {"adam": UNTRAINED}}, ValueError, "name of its own, got adam"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_one_sentence(case, task) -> None:
    arguments, error, message = BAD[case]
    arguments = {"optimizers": {"a": UNTRAINED}, "task": task, "horizon": 4, **TINY, **arguments}
    with pytest.raises(error, match=message) as caught:
        compare(**arguments)
    assert "\n" not in str(caught.value)


def test_an_optimizer_of_other_weights_is_refused_with_the_reason() -> None:
    of_mlp = partial(UNFOptimizer, channels=4)(spec_of(FAMILIES["mlp"]()))
    with pytest.raises(ValueError, match="fits task quadratic: theta of this optimizer belongs"):
        evaluate(of_mlp, Quadratic(), 4, seeds=1, **QUIET)
