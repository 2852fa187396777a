"""What stands at the top of a report."""

from learned_opt.reporting.in_short import HEADING, in_short
from learned_opt.reporting.record import read_record
from learned_opt.reporting.run_report import report_sections
from learned_opt.reporting.sections import Sentences
from tests.helpers.run_folders import FACTS, write_run


def test_a_report_opens_with_the_verdict_and_how_to_use_and_repeat_it(tmp_path) -> None:
    record = read_record(write_run(tmp_path / "one"))
    sections = report_sections(record)
    assert next(iter(sections)) == HEADING

    lines = sections[HEADING][0].lines
    assert lines[0].startswith("mlp, horizon ")
    assert "mean loss: unf is " in lines[0]
    assert lines[-1] == f"to repeat it: {FACTS['command']}"
    uses = [line for line in lines if line.startswith("to use it: ")]
    assert len(uses) == bool(record.metadata)


def test_remarks_are_counted_and_a_run_without_a_result_has_no_such_section(tmp_path) -> None:
    record = read_record(write_run(tmp_path / "one"))
    result = {"Result: mlp, horizon 9": [Sentences(["a is ahead"])]}
    remarks = {"To be known": [Sentences(["one", "two"], stands_out=True)]}
    lines = in_short(record, {**remarks, **result}, {})[HEADING][0].lines
    assert lines[:2] == ["mlp, horizon 9: a is ahead", "2 remarks under “To be known” qualify this"]

    record.metadata.clear()
    assert in_short(record, {"Meta-training": ["text"]}, {"command": "c"}) == {}
