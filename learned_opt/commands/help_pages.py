"""What ``--help`` prints: the verbs, and what each of them takes.

The pages of verbs with a config come from the comments of that config, which lists every key, and
from ``configs/README.md``, which says what each group chooses.
"""

import re
import textwrap
from collections.abc import Sequence

from learned_opt.commands import examples
from learned_opt.compose import config_files

# verb -> what it does; the file of the same name in this folder does it, with _ for -
VERBS = {
    "train": "meta-train on +task=NAME, then compare on held-out seeds; may be left out",
    "evaluate": "compare trained thetas with tuned baselines on held-out seeds",
    "bench": "measure what an inner step, a layer or a deployed step costs",
    "lab": "measure bias, variance and cost of the gradient estimators",
    "zoo": "train a zoo of networks, predict their success from their weights",
    "contest": "train several networks of one task alike",
    "coordinate-check": "check whether an optimizer carries over to wider networks",
    "replay": "run again an unroll that was not finite",
    "report": "write the page of finished runs anew, or one that compares several",
    "collect": "one table of a sweep, also while it runs; what to run again",
    "dashboard": "the W&B workspace of a sweep, a run or a project",
}
# verb, with its second word where that has a config of its own -> the config
CONFIGS = {
    "train": "config",
    "evaluate": "evaluate",
    "bench": "bench",
    "bench networks": "bench_networks",
    "bench deploy": "bench_deploy",
    "lab": "lab",
    "zoo": "zoo",
    "contest": "contest",
    "coordinate-check": "coordinate_check",
}
OVERVIEW = """\
usage: python -m learned_opt [VERB] ...        (or: learned-opt [VERB] ...)

{verbs}

{examples}

python -m learned_opt VERB --help shows what a verb takes."""
PAGE = """\
{purpose}.

usage:
{usage}

{examples}

{keys}{groups}

--config-dir FOLDER adds configs of your own, -m makes a sweep over a=1,2, -v shows debug lines,
--cfg job prints the composed config and runs nothing."""
GROUPS = """

Groups: GROUP=NAME takes another file of configs/GROUP, +GROUP=NAME adds one.
{groups}"""
WIDTH = 100  # of a line
# a row of the table in configs/README.md: a group, the verbs that take it, what it chooses
GROUP_ROW = re.compile(
    r"(?m)^\| (?!group )(?P<group>[\w/]+) \| (?P<verbs>[\w, ]+) \| (?P<line>.+) \|$"
)
ALL_VERBS = "all"  # in such a row
HIDDEN = ("defaults:", "hydra:")  # blocks of a config that hold no keys for the command line


def overview() -> str:
    """The verbs with a line each, and examples."""
    width = max(map(len, VERBS)) + 2
    lines = [f"  {verb:<{width}}{sentence}" for verb, sentence in VERBS.items()]
    firsts = [examples.EXAMPLES[verb][0] for verb in VERBS]
    commands = "\n".join(f"  {examples.PROGRAM} {words}" for words in firsts)
    return OVERVIEW.format(verbs="\n".join(lines), examples=f"examples:\n{commands}")


def has_config(verb: str) -> bool:
    """Whether the words of a verb change a config; the others have parsers that know their page."""
    return verb in CONFIGS


def page(verb: str, words: Sequence[str]) -> str:
    """What a verb takes.

    Args:
        verb: one with a config.
        words: that follow it; the first may be a verb of its own, as in ``bench networks``.
    """
    longer = " ".join([verb, *words[:1]])
    is_longer = longer in CONFIGS
    name = CONFIGS[longer if is_longer else verb]
    text = config_files.read(name)
    keys = [f"Keys, KEY=VALUE, with their defaults (configs/{name}.yaml):", *_keys(text)]
    # a config that is built on that of training takes its keys and its groups too
    takes_all = name == "config" or "  - config" in text.splitlines()
    if takes_all and name != "config":
        keys += ["", "and those of every run (configs/config.yaml):"]
        keys += _keys(config_files.read("config"))
    groups = _groups(verb) if takes_all else []

    return PAGE.format(
        purpose=VERBS[verb],
        usage=textwrap.indent("\n".join(_header(text)), "  "),
        examples=examples.text(longer if is_longer else verb),
        keys="\n".join(keys),
        groups=GROUPS.format(groups="\n".join(groups)) if groups else "",
    )


def _header(text: str) -> list[str]:
    """The comments above a config, which show how the verb is written."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return lines


def _keys(text: str) -> list[str]:
    """The blocks of a config that hold keys, with their comments."""
    lines = []
    is_shown = False
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            is_shown = not line.startswith(HIDDEN)
        if is_shown and line:
            lines.append(f"  {line}")
    return lines


def described_groups() -> dict[str, tuple[str, str]]:
    """The verbs that take a group, and what it chooses, as ``configs/README.md`` has them."""
    rows = GROUP_ROW.finditer(config_files.read_table_of_groups())
    return {row["group"]: (row["verbs"], row["line"]) for row in rows}


def _groups(verb: str) -> list[str]:
    """The groups that a verb takes: what each chooses, and below that the names that it offers."""
    described = described_groups()
    lines = []
    for group in config_files.groups():
        # a group of the user's own folder has no row
        verbs, line = described.get(group, (ALL_VERBS, ""))
        if verb not in verbs.split(", ") and verbs != ALL_VERBS:
            continue

        lines.append(f"  {group:<16} {line}".rstrip())
        names = ", ".join(config_files.options(group))
        indent = " " * 19
        lines += textwrap.wrap(names, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return lines
