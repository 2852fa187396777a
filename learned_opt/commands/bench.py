"""What an inner step costs: time, memory, compilation, against SGD, Adam and a floor. ``python -m learned_opt bench``.

``python -m learned_opt bench scaling`` fits how the cost grows; ``--compare FILE`` sets the table beside that of an
earlier run. ``python -m learned_opt bench networks`` measures layers of inner networks.
"""

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files
from learned_opt.core import errors

VERBS = ("table", "scaling")
FLAG = "--compare"


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="bench")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Measure, show and write."""
    from rich.console import Console

    from learned_opt.compose import bench_steps
    from learned_opt.core import errors
    from learned_opt.reporting import cost_comparison

    console, folder = Console(), Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    if cfg.verb not in VERBS:
        raise errors.UsageError(f"verb must be {' or '.join(VERBS)}, got {cfg.verb!r}.")
    configs = _with_tasks(cfg)
    for own in configs.values():
        bench_steps.check(own)
    with errors.usage_errors():
        then = cost_comparison.read(Path(cfg.compare)) if cfg.compare else None
        facts = bench_steps.facts(cfg)
    if cfg.verb == "scaling":
        _scaling(configs, console, folder, facts)
    else:
        _table(configs, console, folder, facts, then)


def _table(
    configs: dict[str, DictConfig], console: Any, folder: Path, facts: dict, then: dict | None
) -> None:
    from learned_opt.compose.bench_steps import TaskTable
    from learned_opt.reporting import cost_table
    from learned_opt.reporting.screens import show_comparison, show_costs

    measured: list[TaskTable] = []
    try:
        for task, cfg in configs.items():
            with console.status(f"building {task}") as status:
                measured.append(TaskTable(cfg, task))
                measured[-1].measure(lambda text, status=status: status.update(text))
            show_costs(console, measured[-1].rows, cfg.references, measured[-1].shares)
    finally:  # what was measured before Ctrl-C is kept
        rows = [row for one in measured for row in one.rows]
        if rows:
            references = next(iter(configs.values())).references
            cost_table.write(folder, rows, references, facts)
            console.print(f"written to {folder}: bench.json, bench.md", highlight=False)
    console.print(cost_table.NOTES.replace("\n", " "), highlight=False)
    if then:
        show_comparison(console, {**facts, "rows": rows}, then)


def _scaling(configs: dict[str, DictConfig], console: Any, folder: Path, facts: dict) -> None:
    from learned_opt.compose import bench_steps
    from learned_opt.reporting import tables

    rows: list[dict[str, Any]] = []
    try:
        for task, cfg in configs.items():
            with console.status(f"building {task}") as status:
                for row in bench_steps.scaling(
                    cfg, lambda text, status=status: status.update(text)
                ):
                    rows.append({"task": task, **row})
                    console.print(
                        " ".join(
                            f"{heading} {row[heading]};" for heading in bench_steps.SCALING_HEADINGS
                        )
                    )
    finally:
        if rows:
            tables.write_json(folder / "scaling.json", {**facts, "rows": rows})
            headings = ("task", *bench_steps.SCALING_HEADINGS)
            page = tables.markdown_table(
                headings, ([str(row[heading]) for heading in headings] for row in rows)
            )
            (folder / "scaling.md").write_text(
                f"# Growth of the cost\n\n{page}\n\n{bench_steps.SCALING_NOTES}\n"
            )
            console.print(tables.plain_table(headings, rows))
            console.print(bench_steps.SCALING_NOTES.replace("\n", " "), highlight=False)
            console.print(f"written to {folder}: scaling.json, scaling.md", highlight=False)


def _with_tasks(cfg: DictConfig) -> dict[str, DictConfig]:
    """The composed config of each task: the given one, or all that the config lists."""
    given, overrides = (
        HydraConfig.get().runtime.choices.get("task"),
        HydraConfig.get().overrides.task,
    )
    if given:
        return {given: cfg}
    return {
        task: hydra.compose("bench", overrides=[*overrides, f"+task={task}"]) for task in cfg.tasks
    }


def main() -> None:
    """Entry point of ``python -m learned_opt bench``: a verb may come first, ``--compare FILE`` anywhere."""
    words = sys.argv[1:]
    if words[:1] == ["networks"]:
        from learned_opt.commands import bench_networks

        del sys.argv[1]
        bench_networks.main()
        return
    if words and words[0] in VERBS:
        words[0] = f"verb={words[0]}"
    for place, word in enumerate(words):
        flag, _, file = word.partition("=")
        if flag == FLAG:
            rest = [file] if file else words[place + 1 : place + 2]
            if not rest:
                errors.fail(f"{FLAG} needs a FILE, the bench.json of an earlier run.")
            quoted = rest[0].replace("\\", "\\\\").replace("'", "\\'")
            words[place : place + (1 if file else 2)] = [f"compare='{quoted}'"]
    sys.argv[1:] = words
    cli.entry_point(run, needs_task=False)


if __name__ == "__main__":
    main()
