"""What ``--help`` prints: the verbs, and what each of them takes.

The pages of verbs with a config come from the comments of that config, which lists every key.
"""

from collections.abc import Sequence

from learned_opt.compose import config_files

# verb -> what it does; the file of the same name in this folder does it
VERBS = {
    "train": "meta-train on +task=NAME, then compare on held-out seeds; may be left out",
    "evaluate": "compare trained thetas with tuned baselines on held-out seeds",
    "bench": "measure what an inner step, a layer or a deployed step costs",
    "lab": "measure bias, variance and cost of the gradient estimators",
    "zoo": "train a zoo of networks, predict their success from their weights",
    "contest": "train several networks of one task alike",
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
}
OVERVIEW = """\
usage: python -m learned_opt [VERB] ...        (or: learned-opt [VERB] ...)

{verbs}

examples:
  python -m learned_opt +task=mlp
  python -m learned_opt -m +task=rnn meta_optimizer=unf,deep_set seed=0,1,2 hydra/launcher=slurm
  python -m learned_opt evaluate +task=mlp theta=runs/mlp/TIME

python -m learned_opt VERB --help shows what a verb takes."""
PAGE = """\
{header}

{keys}

Groups: GROUP=NAME takes another file of configs/GROUP, +GROUP=NAME adds one (task, experiment,
scale, card). --config-dir FOLDER adds configs of your own, -m makes a sweep over a=1,2, -v shows
debug lines, --cfg job prints the composed config and runs nothing.
{groups}"""
HIDDEN = ("defaults:", "hydra:")  # blocks of a config that hold no keys for the command line


def overview() -> str:
    """The verbs with a line each, and examples."""
    lines = [f"  {verb:<10}{sentence}" for verb, sentence in VERBS.items()]
    return OVERVIEW.format(verbs="\n".join(lines))


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
    name = CONFIGS.get(longer, CONFIGS[verb])
    text = config_files.read(name)
    header = [f"{VERBS[verb]}.", "", *_header(text)]
    keys = [f"Keys, KEY=VALUE, with their defaults (configs/{name}.yaml):", *_keys(text)]
    # a config that is built on that of training takes its keys too
    if "  - config" in text.splitlines():
        keys += ["", "and those of every run (configs/config.yaml):"]
        keys += _keys(config_files.read("config"))
    return PAGE.format(header="\n".join(header), keys="\n".join(keys), groups="\n".join(_groups()))


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


def _groups() -> list[str]:
    """What each config group offers, a line each."""
    lines = []
    for group in config_files.groups():
        names = [name for name in config_files.options(group) if name != "default"]
        if names:
            lines.append(f"  {group:<16} {', '.join(names)}")
    return lines
