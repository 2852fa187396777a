"""What an inner step costs: time, memory, compilation, against SGD, Adam and a floor.

``bench scaling`` fits how the cost grows; ``bench --compare FILE`` sets the table beside that of an
earlier run. ``bench networks`` and ``bench deploy`` have files of their own.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files, trained_theta
from learned_opt.core.errors import UsageError

TABLES = ("table", "scaling")  # verbs that are values of a key of this config
FLAG = "--compare"
OTHERS = {"networks", "deploy"}  # verbs with a config of their own


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="bench")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Measure what inner steps cost, show the tables and write them."""
    from rich.console import Console

    from learned_opt.compose import bench_steps, config_tree, hydra_job, resolve
    from learned_opt.core.errors import usage_errors
    from learned_opt.reporting import cost_comparison

    trained_theta.refuse(cfg, "theta", "checkpoint")
    cfg = resolve.final(cfg)
    config_tree.print_if_asked(cfg, Console())
    configs = bench_steps.configs_of_tasks(cfg)
    for task_config in configs.values():
        bench_steps.check(task_config)

    # first of all: a wrong file should not come out after an hour of measuring
    with usage_errors():
        earlier = cost_comparison.read(Path(cfg.compare)) if cfg.compare else None
        facts = bench_steps.facts(cfg)

    console = Console()
    folder = hydra_job.folder()
    if cfg.verb == "scaling":
        _scaling(configs, console, folder, facts)
    else:
        _table(configs, console, folder, facts, earlier)


def _table(
    configs: dict[str, DictConfig],
    console: Any,
    folder: Path,
    facts: dict[str, Any],
    earlier: dict[str, Any] | None,
) -> None:
    from learned_opt.compose.bench_steps import TaskTable
    from learned_opt.reporting import cost_table
    from learned_opt.reporting.screens import show_comparison, show_costs

    references = next(iter(configs.values())).references
    measured: list[TaskTable] = []
    rows: list[dict[str, Any]] = []
    try:
        for task, cfg in configs.items():
            with _progress(console, task) as progress:
                table = TaskTable(cfg, task)
                measured.append(table)
                table.measure(progress)
            show_costs(console, table.rows, references, table.shares)
    finally:  # what was measured before Ctrl-C is kept
        for table in measured:
            rows += table.rows
        if rows:
            cost_table.write(folder, rows, references, facts)
            console.print(f"written to {folder}: bench.json, bench.md", highlight=False)

    console.print(cost_table.NOTES.replace("\n", " "), highlight=False)
    if earlier:
        show_comparison(console, {**facts, "rows": rows}, earlier)


def _scaling(
    configs: dict[str, DictConfig], console: Any, folder: Path, facts: dict[str, Any]
) -> None:
    from learned_opt.compose import bench_steps
    from learned_opt.core.files import write_json, write_text
    from learned_opt.reporting.tables import table_of

    headings = bench_steps.SCALING_HEADINGS
    rows: list[dict[str, Any]] = []
    try:
        for task, cfg in configs.items():
            with _progress(console, task) as progress:
                for row in bench_steps.scaling(cfg, progress):
                    rows.append({"task": task, **row})
                    console.print(" ".join(f"{heading} {row[heading]};" for heading in headings))
    finally:  # what was measured before Ctrl-C is kept
        if rows:
            table = table_of(("task", *headings), rows)
            notes = bench_steps.SCALING_NOTES
            write_json(folder / "scaling.json", {**facts, "rows": rows})
            page = f"# Growth of the cost\n\n{table.markdown}\n\n{notes}\n"
            write_text(folder / "scaling.md", page)
            console.print(table)
            console.print(notes.replace("\n", " "), highlight=False)
            console.print(f"written to {folder}: scaling.json, scaling.md", highlight=False)


@contextmanager
def _progress(console: Any, task: str) -> Iterator[Callable[[str], None]]:
    """A line at the foot of the terminal about what is being measured."""
    with console.status(f"building {task}", spinner="line") as status:
        yield status.update


def main() -> None:
    """Entry point of the verb: another verb may come first, ``--compare FILE`` anywhere."""
    if sys.argv[1:2] and sys.argv[1] in OTHERS:
        _hand_on(sys.argv.pop(1))
        return
    sys.argv[1:] = cli.answer(_with_keys, sys.argv[1:])
    cli.entry_point(run, needs_task=False)


def _hand_on(verb: str) -> None:
    from learned_opt.commands import bench_deploy, bench_networks

    (bench_networks if verb == "networks" else bench_deploy).main()


def _with_keys(words: list[str]) -> list[str]:
    """The words with keys of the config in place of the verb and the flag.

    Raises:
        UsageError: a flag without its file.

    >>> _with_keys(["scaling", "--compare", "old.json"])
    ['verb=scaling', "compare='old.json'"]
    """
    keys = []
    rest = list(words)
    if rest and rest[0] in TABLES:
        keys.append(f"verb={rest.pop(0)}")

    while rest:
        flag, has_file, file = rest[0].partition("=")
        if flag != FLAG:
            keys.append(rest.pop(0))
            continue

        del rest[0]
        if not has_file:
            if not rest:
                raise UsageError(f"{FLAG} needs a FILE, the bench.json of an earlier run.")
            file = rest.pop(0)

        # Hydra's grammar has a meaning for backslashes and quotes
        quoted = file.replace("\\", "\\\\").replace("'", "\\'")
        keys.append(f"compare='{quoted}'")
    return keys
