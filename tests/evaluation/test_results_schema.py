"""An ``evaluation.json`` of somebody else: every part is checked, with a sentence for each."""

import json
from pathlib import Path
from typing import Any

import pytest

from learned_opt.evaluation.results import read_evaluation
from tests.helpers.run_folders import write_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run")) / "evaluation.json"


def changed(file: Path, folder: Path, path: tuple[str | int, ...], value: Any) -> Path:
    """A copy with another value at a path."""
    content = json.loads(file.read_text())
    content["budgets"] = [dict(BUDGET)]
    content["origins"] = [dict(ORIGIN)]
    content["left_out"] = [dict(LEFT_OUT)]
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    if path:
        holder[path[-1]] = value
    copy = folder / "evaluation.json"
    copy.write_text(json.dumps(content))
    return copy


SETTING = {"task": "mlp", "horizon": 30, "axis": "", "point": "", "optimizer": "unf"}
BUDGET = SETTING | {"tuning_seconds": 1.0, "run_seconds": 2}
ORIGIN = {"task": "mlp", "optimizer": "unf", "kind": "new", "sentence": "It.", "command": "a"}
LEFT_OUT = SETTING | {"reason": "it does not fit"}


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("reference",), None, "reference must be a text, it is None"),
        (("learned",), "unf", "learned must be a list of texts, it is 'unf'"),
        (("warnings", 0), 5, "each of warnings must be a text, it is 5"),
        (("facts",), [], "facts must be an object, it is []"),
        (("facts", "git"), ["x" * 100], "facts.git must be a text or a number, it is ['xxx"),
        (("tasks", "mlp"), None, "tasks.mlp must be an object, it is None"),
        (("rows",), {}, "rows must be a list of objects, it is {}"),
        (("rows", 1), [], "rows[1] must be an object, it is []"),
        (("rows", 0, "optimizer"), 1, "rows[0].optimizer must be a text, it is 1"),
        (("rows", 0, "seed"), "a", "rows[0].seed must be a number, it is 'a'"),
        (("rows", 0, "horizon"), None, "rows[0].horizon must be a number, it is None"),
        (("rows", 0, "mean_loss"), True, "rows[0].mean_loss must be a number, it is True"),
        (("rows", 0, "seed"), 10**30, "rows[0].seed must be a number, it is 1000000"),
        (("rows", 0, "diverged"), 0, "rows[0].diverged must be true or false"),
        (("rows", 0, "heldout"), None, "rows[0].heldout must be an object, it is None"),
        (("rows", 0, "heldout", "accuracy"), {}, "rows[0].accuracy must be a number, it is {}"),
        (("budgets", 0, "run_seconds"), None, "budgets[0].run_seconds must be a number, it is"),
        (("budgets", 0, "tries"), 2, "budgets[0].criterion must be a text, it is None"),
        (("origins", 0, "sentence"), 2, "origins[0].sentence must be a text, it is 2"),
        (("left_out", 0, "reason"), None, "left_out[0].reason must be a text, it is None"),
    ],
)
def test_a_part_of_another_type_is_named(whole, tmp_path, path, value, sentence) -> None:
    with pytest.raises(ValueError, match="is damaged or not of an evaluation") as caught:
        read_evaluation(changed(whole, tmp_path, path, value))
    assert sentence in str(caught.value)


def test_what_an_evaluation_writes_is_read(whole, tmp_path) -> None:
    assert len(read_evaluation(whole).frame) == len(json.loads(whole.read_text())["rows"])
    read_evaluation(changed(whole, tmp_path, (), None))
    read_evaluation(changed(whole, tmp_path, ("rows", 0, "mean_loss"), None))


def test_results_of_earlier_versions_are_checked_too(tmp_path) -> None:
    row = {"task": "a", "optimizer": "b", "seed": 0, "horizon": 1, "mean_loss": 1.0}
    row |= {"final_loss": 1.0, "ms_per_step": 1.0}
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps([row]))
    read_evaluation(file)
    for change in ({"heldout": 1}, {"seed": "x"}, {"optimizer": None}):
        file.write_text(json.dumps([row | change]))
        with pytest.raises(ValueError, match=r"evaluation.json is (not ours|damaged)"):
            read_evaluation(file)
