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

    found = (
        _of_folder(options.folder) if options.folder else {"project": options.project, "runs": None}
    )
    rows = found.pop("rows", [])
    scope = wandb_panels.Scope(
        entity=options.entity or (_own_entity() if options.push else ""),
        tasks=list(dict.fromkeys(row["task"] for row in rows))
        or [t for t in config_files.options("task") if t != "mix"],
        baselines=list(
            dict.fromkeys(row["optimizer"] for row in rows if row["learning_rate"] is not None)
        ),
        **found,
    )
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


def _of_folder(folder: Path) -> dict[str, Any]:
    """Project, runs and rows of ``evaluation.json`` of the runs of a folder."""
    single = (folder / ".hydra").is_dir()
    runs = [folder] if single else sorted(path.parent for path in folder.glob("*/.hydra"))
    known = [run for run in runs if (run / "wandb_id.txt").is_file()]
    if not known:
        raise errors.UsageError(f"no run in {folder} was made with logger=wandb.")
    logger = yaml.safe_load((known[0] / ".hydra" / "config.yaml").read_text())["logger"]["wandb"]
    group = ("Group", logger["group"] or folder.resolve().name)
    tables = [run / "evaluation.json" for run in known]
    return {
        "project": logger["project"],
        "runs": ("ID", (folder / "wandb_id.txt").read_text().strip()) if single else group,
        "rows": [
            row for table in tables if table.is_file() for row in json.loads(table.read_text())
        ],
    }


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
