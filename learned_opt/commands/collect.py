"""One table of a sweep, also while it runs."""

from pathlib import Path

from learned_opt.commands import cli

DESCRIPTION = """\
Prints what has become of the jobs of a sweep and the command that runs again those that are not
whole, and writes its table, page and picture into its folder.

example: python -m learned_opt collect runs/sweeps/TIME"""


def run() -> None:
    """Collect the sweep that the command line names."""
    parser = cli.Parser("collect", DESCRIPTION)
    parser.add_argument("folder", type=Path, help="folder of a sweep, runs/sweeps/TIME")
    folder = parser.parse_args().folder

    # behind the parser, which answers --help at once
    from learned_opt.compose import sweep_plan
    from learned_opt.core.errors import usage_errors
    from learned_opt.runtime import job_file

    jobs = sweep_plan.find_jobs(folder)
    varying = job_file.varying([job.overrides for job in jobs])

    states = []
    finished = {}
    for job, setting in zip(jobs, varying, strict=True):
        states.append({**setting, "job": job.name, "state": job.state, "why": job.why})
        if job.state == "finished":
            finished[job.folder] = setting

    with usage_errors():  # an evaluation may be damaged
        _show(folder, states, finished, sweep_plan.command(folder, jobs))


def _show(
    folder: Path,
    states: list[dict[str, str]],
    finished: dict[Path, dict[str, str]],
    again: str,
) -> None:
    """Print and write what the finished jobs came to.

    Args:
        folder: of the sweep.
        states: of every job: what sets it apart, its state, and why it is not whole.
        finished: run folder -> what sets it apart.
        again: the command that runs the rest.
    """
    from rich.console import Console  # and matplotlib: only when there is something to show

    from learned_opt.reporting import sweep_report

    console = Console()
    rows = sweep_report.collect(finished)
    for kind in (sweep_report.learned(rows), sweep_report.mean_over_seeds(rows)):
        if table := sweep_report.table(kind, brief=True):
            console.print(table)

    lines = [sweep_report.count(states)]
    for state in states:
        if state["why"]:
            lines.append(sweep_report.sentence(state))
    if again:
        lines += ["to run just those again:", f"  {again}"]

    names = sweep_report.write(folder, rows, states, again)
    lines.append(f"written to {folder}: {', '.join(names)}")
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the verb."""
    cli.entry_point(run, needs_task=False, hydra=False)
