"""One table of a sweep, also while it runs."""

from pathlib import Path

from learned_opt.commands import cli

DESCRIPTION = """\
Prints what has become of the jobs of a sweep and the command that runs again those that are not
whole, and writes its table, page and picture into its folder."""


def run() -> None:
    """Collect the sweep that the command line names."""
    parser = cli.Parser("collect", DESCRIPTION)
    parser.add_argument("folder", type=Path, help="folder of a sweep, runs/sweeps/TIME")
    folder = parser.parse_args().folder

    # behind the parser, which answers --help at once
    from learned_opt.compose import sweep_plan
    from learned_opt.core.errors import usage_errors
    from learned_opt.runtime import job_file, job_lines, rerun_command

    jobs = sweep_plan.find_jobs(folder)
    varying = job_file.varying([job.overrides for job in jobs])

    again = rerun_command.command(folder, jobs)
    lines = job_lines.summary(jobs, again)
    states = []
    finished = {}
    for job, setting in zip(jobs, varying, strict=True):
        states.append({**setting, "job": job.name, "state": job.state, "why": job.why})
        if job.state == "finished":
            finished[job.folder] = setting

    with usage_errors():  # an evaluation may be damaged
        _show(folder, states, finished, again, lines)


def _show(
    folder: Path,
    states: list[dict[str, str]],
    finished: dict[Path, dict[str, str]],
    again: str,
    lines: list[str],
) -> None:
    """Print and write what the finished jobs came to.

    Args:
        folder: of the sweep.
        states: of every job: what sets it apart, its state, and why it is not whole.
        finished: run folder -> what sets it apart.
        again: the command that runs the rest.
        lines: how the sweep stands.
    """
    from rich.console import Console  # and matplotlib: only when there is something to show

    from learned_opt.reporting import sweep_report

    console = Console()
    rows = sweep_report.collect(finished)
    means = sweep_report.mean_over_seeds(rows)
    for kind in (sweep_report.learned(rows), means):
        if table := sweep_report.table(kind, brief=True):
            console.print(table)

    names = sweep_report.write(folder, rows, states, again)
    lines = [*sweep_report.verdicts(means), *lines, f"written to {folder}: {', '.join(names)}"]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the verb."""
    cli.entry_point(run, needs_task=False, hydra=False)
