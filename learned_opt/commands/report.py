"""Pages of finished runs. ``python -m learned_opt report RUN [RUN...]``.

One run: writes its ``report.html`` anew. Several, or the folder of a multirun: a page that compares them.
"""

import argparse
import sys
from pathlib import Path

from learned_opt.commands import cli
from learned_opt.core import errors


def run() -> None:
    """Write one page from the files of the runs alone."""
    parser = argparse.ArgumentParser(
        "python -m learned_opt report",
        description="Pages of finished runs, from their files alone.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders, or that of a multirun"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file to write; default: in the run, or beside the runs it compares",
    )
    arguments = parser.parse_args(sys.argv[1:])
    from learned_opt.reporting.comparison_page import write_comparison_page
    from learned_opt.reporting.run_report import write_run_report

    if arguments.out and not arguments.out.parent.is_dir():
        raise errors.UsageError(
            f"--out must be a file in a folder that exists, got {arguments.out}."
        )
    folders = [job for folder in arguments.runs for job in _jobs(folder)]
    try:
        if len(folders) == 1:
            written = ", ".join(write_run_report(folders[0], arguments.out))
        else:
            written = str(write_comparison_page(folders, arguments.out))
    except (ValueError, OSError) as error:
        raise errors.UsageError(str(error)) from error
    print(f"written: {written}")


def _jobs(folder: Path) -> list[Path]:
    """The runs of a multirun, in the order of their numbers; any other folder is itself."""
    jobs = [path.parent for path in folder.glob("*/.hydra") if path.parent.name.isdigit()]
    return sorted(jobs, key=lambda path: int(path.name)) or [folder]


def main() -> None:
    """Entry point of ``python -m learned_opt report``."""
    cli.entry_point(run, needs_task=False, hydra=False)


if __name__ == "__main__":
    main()
