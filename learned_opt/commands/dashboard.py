"""The W&B dashboard of a sweep, a run or a project. ``python -m learned_opt dashboard runs/sweeps/TIME``.

Writes the workspace as JSON, for which no account is needed; with ``--push`` also makes it, and a report, in W&B.
"""

import argparse
import json
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from learned_opt.compose import config_files
from learned_opt.core import errors

FILE = "dashboard.json"


def main() -> None:
    """Entry point of ``python -m learned_opt dashboard``."""
    options = _parser().parse_args()
    try:
        run(options)
    except errors.UsageError as error:
        errors.fail(str(error))


def run(options: argparse.Namespace) -> None:
    """Build the dashboard, write it, and make it in W&B where that is asked for.

    Raises:
        UsageError: no run to show, no wandb-workspaces, or no account.
    """
    if (options.folder is None) == (options.project is None):
        raise errors.UsageError("give the folder of a sweep or of a run, or --project NAME.")
    if find_spec("wandb_workspaces") is None:
        raise errors.UsageError(
            "dashboards need wandb-workspaces; get it with: pip install -e '.[dashboard]'."
        )
    from learned_opt.reporting import wandb_panels

    project, runs, evaluations = options.project, None, []
    if options.folder:
        project, runs, evaluations = _of_folder(options.folder)
    entity = options.entity or (_own_entity() if options.push else "")
    scope = wandb_panels.scope_of(entity, project, runs, evaluations)
    view, path = wandb_panels.workspace(scope), (options.folder or Path()) / FILE
    path.write_text(json.dumps(wandb_panels.dump(view), indent=1) + "\n")
    print(f"written: {path}")
    if options.push:
        print(f"workspace: {view.save().url}")
        print(f"report: {wandb_panels.report(scope).save().url}")
    else:
        print(
            f"to make it in W&B, with a report: python -m learned_opt dashboard {shlex.join(sys.argv[1:])} --push"
        )


def _of_folder(folder: Path) -> tuple[str, tuple[str, str], list[Any]]:
    """Project, what picks the runs in W&B, and the evaluations of the runs of a folder."""
    from learned_opt.evaluation.results import read_evaluation
    from learned_opt.runtime.run_folder import RunFolder

    single = (folder / ".hydra").is_dir()
    paths = [folder] if single else sorted(path.parent for path in folder.glob("*/.hydra"))
    logged = [RunFolder(path) for path in paths if RunFolder(path).wandb_id.is_file()]
    if not logged:
        raise errors.UsageError(f"no run in {folder} was made with logger=wandb.")

    logger = yaml.safe_load(logged[0].config.read_text())["logger"]["wandb"]
    runs = ("Group", logger["group"] or folder.resolve().name)
    if single:
        runs = ("ID", logged[0].wandb_id.read_text().strip())
    files = [run.evaluation for run in logged if run.evaluation.is_file()]
    return logger["project"], runs, [read_evaluation(file) for file in files]


def _own_entity() -> str:
    """The account that this machine is logged in with."""
    from wandb import Api
    from wandb.errors import CommError, UsageError

    try:
        entity = Api().default_entity
    except (UsageError, CommError) as error:
        raise errors.UsageError(f"--push needs an account: {error}") from error
    if not entity:
        raise errors.UsageError("this account has no default entity; give --entity NAME.")
    return entity


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m learned_opt dashboard", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="of a sweep or a run, made with logger=wandb"
    )
    parser.add_argument(
        "--project", metavar="NAME", help="all runs of a W&B project, in place of a folder"
    )
    parser.add_argument(
        "--entity", metavar="NAME", help="user or team that the project belongs to (default: you)"
    )
    parser.add_argument("--push", action="store_true", help="make it in W&B; needs `wandb login`")
    return parser


if __name__ == "__main__":
    main()
