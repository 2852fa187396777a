"""What stands at the top of a report."""

from learned_opt.evaluation.verdicts import AHEAD, BEHIND, Verdict
from learned_opt.reporting.in_short import HEADING, _better, in_short
from learned_opt.reporting.record import Record, read_record
from learned_opt.reporting.run_report import report_sections
from learned_opt.reporting.sections import Sentences
from tests.helpers.run_folders import FACTS, write_run


def answers_of(record: Record) -> dict[str, str]:
    sections = report_sections(record)
    assert next(iter(sections)) == HEADING
    (part,) = sections[HEADING]
    assert isinstance(part, Sentences)
    answers = {}
    for line in part.lines:
        question, answer = line.split("? ", 1)
        answers[f"{question}?"] = answer
    return answers


def test_a_report_opens_with_the_answers_in_order(tmp_path) -> None:
    record = read_record(write_run(tmp_path / "one"))
    answers = answers_of(record)
    questions = list(answers)
    assert questions[0] == "is it better, by how much?"
    assert questions[-1] == "how is it repeated?"
    assert answers["is it better, by how much?"].startswith("mlp, horizon 30, mean loss: unf is ")
    heldout = answers["is it better on held-out data?"]
    assert heldout.startswith("mlp, horizon 30, test loss: unf is ahead of ")
    assert "6 held-out seeds" in answers["how sure is that?"]
    assert "a step takes" in answers["at what cost?"]
    assert answers["does it carry over?"].startswith("not tried")
    assert answers["did anything diverge?"] == "none of 18 runs"
    assert answers["on which data?"] == "mlp: digits"
    assert answers["how is it repeated?"] == FACTS["command"]
    assert ("how is it used?" in answers) == bool(record.metadata)


def test_many_verdicts_are_counted() -> None:
    reached = []
    for number in range(3):
        word = AHEAD if number < 2 else BEHIND
        reached.append(("mlp", Verdict("mean_loss", f"unf_{number}", "adam", word, "")))
        reached.append(("mlp", Verdict("final_loss", f"unf_{number}", "adam", AHEAD, "")))
    assert _better(reached) == (
        "mean loss: 2 ahead of, 1 behind the best baseline; "
        "final loss: 3 ahead of the best baseline"
    )


def test_a_test_loss_that_is_higher_is_told_where_the_training_loss_is_lower(tmp_path) -> None:
    record = read_record(write_run(tmp_path / "one"))
    assert record.results
    for frame in record.results.frames:
        frame.loc[frame["optimizer"] == "unf", "test_loss"] += 1
    answers = answers_of(record)
    assert "mean loss: unf is ahead of" in answers["is it better, by how much?"]
    assert "test loss: unf is behind" in answers["is it better on held-out data?"]


def test_remarks_are_counted_and_a_run_without_a_result_has_no_such_section(tmp_path) -> None:
    record = read_record(write_run(tmp_path / "one"))
    assert record.results
    record.results.warnings[:] = ["one", "two"]
    assert answers_of(record)["what qualifies it?"] == "2 remarks under “To be known”"
    assert in_short(Record(tmp_path), {}, {"command": "c"}) == {}
