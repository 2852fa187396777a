"""What short forms mean is said where they are, and nowhere else."""

import math

from rich.console import Console

from learned_opt.reporting.legend import legend
from learned_opt.reporting.screens import facts_grid, plain_line


def row(name: str, steps: float, reached: int = 2) -> dict:
    return {
        "optimizer": name,
        "steps_to_target": steps,
        "horizon": 20,
        "reached": reached,
        "with_target": 2,
    }


def test_a_table_without_short_forms_needs_no_words() -> None:
    assert legend([row("unf", 3.0), row("adam", math.nan)]) == []
    # a name of the user's that ends alike is no second row of something
    assert legend([row("mine-final", 3.0)]) == []


def test_each_short_form_has_a_sentence() -> None:
    rows = [row("adam", 3.0), row("adam-final", 4.0), row("sgdm", math.inf, 0), row("x", math.inf)]
    final, never = legend(rows)
    assert final == "adam-final: adam with the learning rate that is best for its final loss"
    assert never.startswith(">20 (0/2): 0 of 2 seeds got to the target")


def test_lines_and_facts_are_no_markup(capsys) -> None:
    console = Console(width=80)
    plain_line(console)("written to runs/[/foo]: [bold]x")
    console.print(facts_grid([("run folder", "runs/[/foo]")]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "written to runs/[/foo]: [bold]x"
    assert lines[1].split()[-1] == "runs/[/foo]"
