"""One table of a sweep, also while it runs. ``python -m learned_opt collect runs/sweeps/TIME``."""

import argparse
from pathlib import Path

from learned_opt.commands import cli
from learned_opt.compose import sweep_plan
from learned_opt.runtime import job_file


@cli.one_line_errors
def run(folder: Path) -> None:
    """Print what has become of a sweep, and write its table, page and picture into its folder."""
    found = sweep_plan.find_jobs(folder)
    again, varying = (
        sweep_plan.command(folder, found),
        job_file.varying([job.overrides for job in found]),
    )
    from rich.console import Console  # and matplotlib: only when there is something to show

    from learned_opt.reporting import sweep_report

    console = Console()
    states = [
        {**own, "job": job.name, "state": job.state, "why": job.why}
        for job, own in zip(found, varying, strict=True)
    ]
    finished = {
        job.folder: own for job, own in zip(found, varying, strict=True) if job.state == "finished"
    }
    rows = sweep_report.collect(finished)
    for kind in (sweep_report.learned(rows), sweep_report.mean_over_seeds(rows)):
        if table := sweep_report.table(kind, brief=True):
            console.print(table)
    lines = [
        sweep_report.count(states),
        *(sweep_report.sentence(state) for state in states if state["why"]),
    ]
    if again:
        lines += ["to run just those again:", f"  {again}"]
    names = sweep_report.write(folder, rows, states, again)
    console.print(
        "\n".join([*lines, f"written to {folder}: {', '.join(names)}"]),
        highlight=False,
        soft_wrap=True,
    )


def main() -> None:
    """Entry point of ``python -m learned_opt collect``."""
    parser = argparse.ArgumentParser(prog="python -m learned_opt collect", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of a sweep, runs/sweeps/TIME")
    run(parser.parse_args().folder)


if __name__ == "__main__":
    main()
