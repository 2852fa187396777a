"""The W&B dashboard of a sweep, a run or a project."""

import argparse
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from learned_opt.commands import cli
from learned_opt.core.errors import UsageError
from learned_opt.runtime.run_folder import RunFolder, SweepFolder

DESCRIPTION = """\
Writes the W&B workspace of a sweep, a run or a project as JSON, for which no account is needed;
with --push also makes it, and a report, in W&B."""


def run() -> None:
    """Build the dashboard, write it, and make it in W&B where that is asked for.

    Raises:
        UsageError: no run to show, no wandb-workspaces, or no account.
    """
    options = _parser().parse_args()
    if (options.folder is None) == (options.project is None):
        raise UsageError("give the folder of a sweep or of a run, or --project NAME.")
    if find_spec("wandb_workspaces") is None:
        raise UsageError(
            "dashboards need wandb-workspaces; get it with: pip install -e '.[dashboard]'."
        )

    from learned_opt.core.files import write_json
    from learned_opt.reporting import wandb_panels

    scope = _scope(options)
    view = wandb_panels.workspace(scope)
    file = RunFolder(options.folder or Path()).dashboard
    write_json(file, wandb_panels.dump(view))
    print(f"written: {file}")

    if options.push:
        print(f"workspace: {view.save().url}")
        print(f"report: {wandb_panels.report(scope).save().url}")
    else:
        again = f"python -m learned_opt dashboard {shlex.join(sys.argv[1:])} --push"
        print(f"to make it in W&B, with a report: {again}")


def _scope(options: argparse.Namespace) -> Any:
    """What the dashboard shows: the runs of a folder, or a project."""
    from learned_opt.reporting import wandb_panels

    entity = options.entity or (_default_entity() if options.push else "")
    if options.folder is None:
        return wandb_panels.scope_of(entity, options.project, None, [])
    return wandb_panels.scope_of(entity, *_of_folder(options.folder))


def _of_folder(folder: Path) -> tuple[str, tuple[str, str], list[Any]]:
    """Project, what picks the runs in W&B, and the evaluations of the runs of a folder."""
    from learned_opt.core.errors import usage_errors
    from learned_opt.evaluation.results import read_evaluation

    is_single = RunFolder(folder).hydra.is_dir()
    runs = [RunFolder(folder)] if is_single else SweepFolder(folder).runs
    logged = [run for run in runs if run.wandb_id.is_file()]
    if not logged:
        raise UsageError(f"no run in {folder} was made with logger=wandb.")

    files = [run.evaluation for run in logged if run.evaluation.is_file()]
    with usage_errors():  # the files of a run may be damaged
        project, group = _project_and_group(logged[0].config)
        evaluations = [read_evaluation(file) for file in files]
        run_id = logged[0].wandb_id.read_text("utf-8").strip()

    # without a name in the config the logger groups runs by the folder of their sweep
    picked = ("ID", run_id) if is_single else ("Group", group or folder.resolve().name)
    return project, picked, evaluations


def _project_and_group(config: Path) -> tuple[str, str]:
    """What a config says of W&B; the group may be empty.

    Raises:
        ValueError: it does not say it, or is damaged.
    """
    from learned_opt.deploy.plain_data import read_yaml

    node = read_yaml(config)
    for name in ("logger", "wandb"):
        node = node.get(name) if isinstance(node, dict) else None

    project = node.get("project") if isinstance(node, dict) else None
    group = node.get("group") if isinstance(node, dict) else None
    if not isinstance(project, str) or not isinstance(group, str | None):
        raise ValueError(f"{config} names no project of W&B under logger.wandb.")
    return project, group or ""


def _default_entity() -> str:
    """The account that this machine is logged in with."""
    from wandb import Api, errors

    try:
        entity = Api().default_entity
    except (errors.UsageError, errors.CommError) as error:
        raise UsageError(f"--push needs an account: {error}") from error
    if not entity:
        raise UsageError("this account has no default entity; give --entity NAME.")
    return entity


def _parser() -> cli.Parser:
    parser = cli.Parser("dashboard", DESCRIPTION)
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


def main() -> None:
    """Entry point of the verb."""
    cli.entry_point(run, needs_task=False, hydra=False)
