"""Command lines as nobody should write them, drawn from the configs: keys, groups and values."""

import random
from collections.abc import Iterator
from typing import NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from learned_opt.compose import config_files

TRAINED = "trained"  # a finished run, in the folder of every command line
LOGGED = "logged"  # a copy of it that says it was logged to W&B
SWEEP = "sweep"  # a finished sweep of two jobs
FOREIGN = "foreign.txt"  # a file of something else
EMPTY = "empty"  # a folder
RECIPES = "recipes"  # of unrolls, for replay
EVALUATED = "theta=trained"
TINY = [
    *("compile=false", "horizon=4", "estimator.unroll_length=2", "estimator.num_tasks=2"),
    *("trainer.max_steps=2", "callbacks.checkpoints.every=1", "callbacks.validation.every=1"),
    *("benchmark.num_seeds=2", "benchmark.num_chains=2", "benchmark.num_lrs=2"),
    *("benchmark.num_tuning_seeds=1", "benchmark.archive=null", "++benchmark.ledger=null"),
]
TASKS = ["mlp"] * 6 + ["cnn", "rnn", "subleq", "transformer", "mix", "arithmetic"]
# what a value may be; those with a quote have a meaning in Hydra's grammar
VALUES = [
    *("null", "nan", "inf", "-inf", "-1", "0", "1", "2", "1e3", "1e30", "1e-30", "2.5", "-0.0"),
    *("abc", "", "''", "true", "false", "auto", "[]", "[1]", "[0,-1]", "[null]", "[a,[b]]", "{}"),
    *("{a: 1}", "{_target_: os.system}", "{_target_: 5}", "[nan]", "0,1", "1,", "[1", "{a", "'"),
    *("ünïcode-漢字", "'\\u0000'", "a b", "$x", "\\", "x" * 5000, "99999999999999999999"),
    *("${horizon}", "${nothing}", "${oc.env:NOTHING}", "${", "${oc.env:HOME}", "${name}.${seed}"),
    *("${task}", "${estimator}", "???", "range(3)", "choice(1,2)", "glob(*)", "missing/file"),
    *(FOREIGN, EMPTY, TRAINED, "/proc/self/mem", "/proc/x", "/dev/full", "/etc/passwd", "0x10"),
]
# changes that may make a run longer than anybody waits; a limit of time there is no fault
AMOUNTS = ("max_steps", "horizon", "num_seeds", "num_lrs", "replicates", "repeats", "max_epochs")


class Line(NamedTuple):
    """A command line.

    Args:
        words: behind ``python -m learned_opt``.
        changed: those of them that were drawn.
    """

    words: list[str]
    changed: list[str]


def keys_of(config: str, *words: str) -> list[str]:
    """Every key of a composed primary config, nodes included."""
    with initialize_config_dir(config_files.config_dir(), version_base="1.3"):
        cfg = compose(config, overrides=list(words))
    return sorted(_keys(cfg, ""))


def _keys(node: DictConfig, path: str) -> Iterator[str]:
    for key in node:
        full = f"{path}.{key}".lstrip(".")
        yield full
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            child = node[key]
            if isinstance(child, DictConfig):
                yield from _keys(child, full)


HYDRA_KEYS = [
    *("hydra.run.dir", "hydra.output_subdir", "hydra.job.name", "hydra.verbose"),
    *("hydra.job.chdir", "hydra.sweep.dir", "hydra.mode", "hydra.callbacks", "hydra.job_logging"),
]
FLAGS = [
    *(["--cfg=job"], ["--help"], ["-v"], ["--version"], ["--info"], ["--config-dir=empty"]),
    *(["--config-dir", "missing"], ["--config-name=zoo"], ["--nothing"], ["-x"], ["--cfg=x"]),
    *(["--resolve"], ["--package=a"], ["--multirun=1"], ["+"], ["="], ["~"], ["a=b=c"], ["@a=b"]),
]
CHANGES = ("value", "choice", "plus", "remove", "hydra", "flag")
SHARES = (60, 20, 6, 6, 4, 4)


class CommandLines:
    """Draws command lines; the configs are read once."""

    def __init__(self) -> None:
        self.random = random.Random()
        task = "+task=mlp"
        self.keys = {
            "config": keys_of("config", task),
            "evaluate": keys_of("evaluate", task),
            "lab": keys_of("lab", task),
            "bench": keys_of("bench", task),
            "zoo": keys_of("zoo"),
            "contest": keys_of("contest", "+experiment=quadratic_mlp_fashion"),
        }
        self.groups = {group: config_files.options(group) for group in config_files.groups()}

    def draw(self, seed: int) -> Line:
        """A command line of any verb, always the same for a seed."""
        self.random.seed(seed)
        verb = self.random.choices(list(VERBS), list(VERBS.values()))[0]
        if verb in ("replay", "report", "collect", "dashboard"):
            return self._with_parser(verb)

        words = self._whole(verb)
        config = "config" if verb == "train" else verb
        changed: list[str] = []
        for _ in range(self.random.choice([1, 1, 1, 2, 3])):
            changed += self._change(self.keys[config])
        if self.random.random() < 0.03:
            self.random.shuffle(words)
        return Line([*words, *changed], changed)

    def _whole(self, verb: str) -> list[str]:
        """A command line of a verb that is right, and short."""
        task = f"+task={self.random.choice(TASKS)}"
        deep_set = "meta_optimizer=deep_set"
        folder = "hydra.run.dir=run"
        if verb == "train":
            start = [] if self.random.random() < 0.5 else ["train"]
            optimizer = self.random.choice(
                [deep_set, deep_set, "meta_optimizer=unf", "theta=trained"]
            )
            return [*start, task, optimizer, *TINY, folder]
        if verb == "evaluate":
            return ["evaluate", "+task=mlp", EVALUATED, *TINY, "cells=cells", folder]
        if verb == "lab":
            small = ["horizon=4", "unroll_length=2", "replicates=2", "reference.num_tasks=2"]
            return ["lab", task, deep_set, *TINY, *small, "cases.all=false", folder]
        if verb == "bench":
            small = ["only=[sgdm]", "modes=[eager]", "repeats=1", "floor_steps=1"]
            return ["bench", "+task=mlp", *TINY[1:4], "references=[sgdm]", *small, folder]
        if verb == "zoo":
            second = self.random.choice(["build", "predict"])
            small = ["recipe.num_models=2", "num_seeds=1", "fit.max_epochs=1", "compile=false"]
            return ["zoo", second, *small, "folder=zoo"]
        small = ["horizon=2", "benchmark.num_seeds=2", "benchmark.num_chains=2", "compile=false"]
        experiment = "+experiment=quadratic_mlp_fashion"
        return [
            *("contest", experiment, "data=digits", *small, "benchmark.num_lrs=2"),
            *("benchmark.archive=null", folder),
        ]

    def _change(self, keys: list[str]) -> list[str]:
        """One change, mostly for the worse."""
        kind = self.random.choices(CHANGES, SHARES)[0]
        value = self.random.choice(VALUES)
        key = self.random.choice(keys)
        if kind == "value":
            plus = self.random.choices(["", "++", "+"], [8, 1, 1])[0]
            return [f"{plus}{key}={value}"]
        if kind == "choice":
            group = self.random.choice(list(self.groups))
            names = [*self.groups[group], value, "a,b"]
            package = self.random.choices(["", f"@{key}"], [5, 1])[0]
            plus = self.random.choices(["", "+"], [3, 1])[0]
            return [f"{plus}{group}{package}={self.random.choice(names)}"]
        if kind == "plus":
            return [f"+{key}.{self.random.choice(['new', '_target_', '0', 'ü'])}={value}"]
        if kind == "remove":
            suffix = self.random.choice(["", "", f"={value}"])
            return [f"~{self.random.choice([key, *self.groups])}{suffix}"]
        if kind == "hydra":
            return [f"{self.random.choice(HYDRA_KEYS)}={value}"]
        return self.random.choice(FLAGS)

    def _with_parser(self, verb: str) -> Line:
        """A verb that reads files: each may be something else, or damaged."""
        wrong = [FOREIGN, EMPTY, "missing", "/proc/self/mem", "/etc/passwd", "", "ü", "-1"]
        right = {
            "report": [TRAINED, LOGGED, SWEEP],
            "collect": [SWEEP],
            "dashboard": [LOGGED],
            "replay": [f"{RECIPES}/step0_task0.yaml"],
        }[verb]
        files = [*right, *right, *right, self.random.choice(wrong)]
        count = self.random.choice([1, 1, 1, 2, 0]) if verb == "report" else 1
        words = [self.random.choice(files) for _ in range(count)]
        options = {
            "report": ["--out=page.html", "--out=missing/x", "--out=/dev/full", "--out", "--x"],
            "collect": ["x", "--help", "--x=1"],
            "dashboard": ["--project=p", "--entity=e", "--x", "--project"],
            "replay": ["horizon=abc", "compile=false", "nothing=1", "trust=[os]", "seed", "trust="],
        }[verb]
        if self.random.random() < 0.4:
            words.append(self.random.choice(options))
        return Line([verb, *words], words)


VERBS = {
    "train": 33,
    "evaluate": 15,
    "lab": 8,
    "bench": 3,  # compiles for a minute
    "zoo": 8,
    "contest": 5,
    "replay": 7,
    "report": 7,
    "collect": 6,
    "dashboard": 6,
}
