"""Random command lines of all verbs end in a sentence, or in whole files."""

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from learned_opt.deploy.weights import build_trained, load_metadata
from learned_opt.runtime.run_folder import RunFolder
from tests.helpers.damaged_files import copied, damage_file
from tests.helpers.forked_programs import Ending, ForkServer
from tests.helpers.fuzz_draws import SEED, trials
from tests.helpers.random_command_lines import (
    AMOUNTS,
    EMPTY,
    FOREIGN,
    LOGGED,
    RECIPES,
    SWEEP,
    TINY,
    TRAINED,
    CommandLines,
    Line,
)

pytestmark = pytest.mark.slow
COUNT = 300
PARSERS = ("report", "collect", "dashboard", "replay")
LONGEST = 400.0  # seconds of a command line
MOST_LETTERS = 1500  # of a sentence


@pytest.fixture(scope="module")
def material(server, tmp_path_factory) -> Path:
    """A folder with finished runs of each kind that a command line may name."""
    folder = tmp_path_factory.mktemp("fuzz") / "material"
    folder.mkdir()
    tiny = ["+task=mlp", "meta_optimizer=deep_set", *TINY]
    runs = [
        [*tiny, f"hydra.run.dir={TRAINED}"],
        ["-m", *tiny, "seed=0,1", f"hydra.sweep.dir={SWEEP}"],
        # losses that overflow leave a recipe of the unroll
        [*tiny, "learned.alpha=1e30", "horizon=4", f"hydra.run.dir={RECIPES}-run"],
    ]
    for words in runs:
        ending = server.run(words, folder)
        assert ending.code in (0, 1), ending
    shutil.copytree(folder / TRAINED, folder / LOGGED)
    (folder / LOGGED / "wandb_id.txt").write_text("abc")
    text = (folder / LOGGED / ".hydra/config.yaml").read_text()
    wandb = "logger:\n  wandb:\n    project: p\n    group: g\n"
    (folder / LOGGED / ".hydra/config.yaml").write_text(text.replace("logger:\n", wandb))
    recipes = folder / RECIPES
    shutil.copytree(folder / f"{RECIPES}-run/replay", recipes)
    (folder / EMPTY).mkdir()
    (folder / FOREIGN).write_text("hello: [1, 2]\n")
    return folder


def listed(folder: Path) -> set[str]:
    """Everything below a folder."""
    names = set()
    for root, folders, files in os.walk(folder):
        names.update(os.path.relpath(os.path.join(root, name), folder) for name in folders + files)
    return names


def faults(line: Line, ending: Ending, new: set[str], folder: Path) -> list[str]:
    """The rules that an ending breaks."""
    broken_rules = []
    text = ending.output + ending.errors
    if "Traceback" in text:
        broken_rules.append("a traceback")
    if ending.cut == "time" and not any(name in word for word in line.changed for name in AMOUNTS):
        broken_rules.append("endless")
    if ending.cut == "memory":
        broken_rules.append("too much memory")
    if ending.cut:
        return broken_rules

    said = [line for line in ending.errors.splitlines() if line.strip()]
    if ending.code == 2:
        if len(said) != 1 or not said[0].startswith("learned_opt: "):
            broken_rules.append("not one sentence")
        if len(ending.errors) > MOST_LETTERS:
            broken_rules.append("a long sentence")
        if new:
            broken_rules.append(f"refused, but left {sorted(new)[:5]}")
    elif ending.code == 1:
        is_replay = line.words[0] == "replay" and "not reproduced" in ending.output
        if not is_replay and not (said and said[-1].startswith("learned_opt: ")):
            broken_rules.append("exit code 1 without a sentence")
    elif ending.code == 0:
        broken_rules += unfinished(folder)
    else:
        broken_rules.append(f"exit code {ending.code}")
    return broken_rules


def unfinished(folder: Path) -> list[str]:
    """What is not whole of the runs below a folder that began there."""
    broken_rules = []
    for file in folder.rglob("job.json"):
        if file.relative_to(folder).parts[0] in (TRAINED, LOGGED, SWEEP):
            continue  # those may have been damaged on purpose
        if json.loads(file.read_text())["state"] != "finished":
            broken_rules.append(f"{file} is not finished")
        theta = RunFolder(file.parent).theta
        if theta.is_file():
            build_trained(theta, load_metadata(theta))
    if list(folder.rglob("*.partial")):
        broken_rules.append("partial files")
    return broken_rules


def prepared(line: Line, folder: Path, material: Path, source: random.Random) -> str:
    """Copy what a command line names, damaged at times; says how."""
    folder.mkdir()
    said = ""
    text = " ".join(line.words)
    for name in (TRAINED, LOGGED, SWEEP, RECIPES, EMPTY, FOREIGN):
        if name in text:
            copied(material / name, folder / name)
    if line.words[:1] and line.words[0] in PARSERS and source.random() < 0.6:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if files:
            said = damage_file(source.choice(files), source)
    return said


def test_random_command_lines(server: ForkServer, material, tmp_path) -> None:
    lines = CommandLines()
    counts: Counter[str] = Counter()
    broken_rules = []
    for number, source in trials(COUNT):
        line = lines.draw(hash((SEED, number)))
        folder = tmp_path / str(number)
        damage = prepared(line, folder, material, source)
        before = listed(folder)

        ending = server.run(line.words, folder, seconds=LONGEST)
        new = listed(folder) - before
        broken = faults(line, ending, new, folder)
        counts[f"exit code {ending.code}"] += 1
        if broken:
            counts["faults"] += 1
            where = f"{number}: {' '.join(line.words)[:1500]} ({damage})"
            text = f"{ending.output[-300:]}\n{ending.errors[-1500:]}"
            broken_rules.append(f"{where}\n{broken} after {ending.seconds:.1f} s\n{text}")
            print(broken_rules[-1], flush=True)
        shutil.rmtree(folder, ignore_errors=True)

    print(f"seed {SEED}, command lines: {dict(counts)}")
    assert not broken_rules, "\n\n".join(broken_rules)
