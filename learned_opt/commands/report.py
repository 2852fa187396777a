"""Pages of finished runs, from their files alone."""

from functools import partial
from pathlib import Path

from learned_opt.commands import cli
from learned_opt.core.errors import UsageError
from learned_opt.runtime.run_folder import SweepFolder

DESCRIPTION = """\
One run: writes its report.html anew, with --follow again and again while it runs. Several, or the
folder of a sweep: a page that compares them."""


def run() -> None:
    """Write one page from the files of the runs."""
    parser = cli.Parser("report", DESCRIPTION)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders, or that of a sweep"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file to write; default: in the run, or beside the runs it compares",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="one run: write its page at each validation until it ends; the page reloads itself",
    )

    arguments = parser.parse_args()
    if arguments.out and not arguments.out.parent.is_dir():
        raise UsageError(f"--out must be a file in a folder that exists, got {arguments.out}.")

    if arguments.follow and len(arguments.runs) > 1:
        raise UsageError(f"--follow takes one run, got {len(arguments.runs)}.")
    if arguments.follow:
        _follow(arguments.runs[0], arguments.out)
        return

    folders = []
    for folder in arguments.runs:
        if not folder.is_dir():  # told before anything heavy is imported
            raise UsageError(f"{folder} is no folder.")
        folders += _runs_of(folder)

    try:
        names = _write(folders, arguments.out)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error

    print(f"written: {names}")


def _follow(folder: Path, out: Path | None) -> None:
    from learned_opt.reporting.followed_report import follow

    try:
        follow(folder, out, partial(print, flush=True))
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def _write(folders: list[Path], out: Path | None) -> str:
    """Write the page of one run, or of several; names what was written."""
    if len(folders) == 1:
        from learned_opt.reporting.run_report import write_run_report

        return ", ".join(write_run_report(folders[0], out))
    from learned_opt.reporting.comparison_page import write_comparison_page

    return str(write_comparison_page(folders, out))


def _runs_of(folder: Path) -> list[Path]:
    """The runs of a sweep, in the order of their numbers; any other folder is itself."""
    jobs = [run.path for run in SweepFolder(folder).runs if run.path.name.isdigit()]
    return jobs or [folder]


def main() -> None:
    """Entry point of the verb."""
    cli.entry_point(run, needs_task=False, hydra=False)
