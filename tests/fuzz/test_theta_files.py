"""Damaged theta files end in a sentence, or in the theta that the file says."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file

from learned_opt.deploy.hub import PACKAGED
from tests.helpers.damaged_files import damage_bytes, damage_fields
from tests.helpers.forked_programs import Ending, ForkServer
from tests.helpers.fuzz_draws import SEED, trials
from tests.helpers.load_theta import digest
from tests.helpers.random_command_lines import TINY

pytestmark = pytest.mark.slow
COUNT = 70
MOST_MEMORY = 1024  # MiB
LOADER = "tests.helpers.load_theta"
EVALUATE = ["evaluate", "+task=mlp", "theta=theta", "cells=cells", "hydra.run.dir=run", *TINY]


@pytest.fixture(scope="module")
def small_server():
    """A server whose programs may take little memory."""
    with ForkServer(MOST_MEMORY) as started:
        yield started


@pytest.fixture(scope="module")
def thetas(server, tmp_path_factory) -> list[Path]:
    """Whole theta files: of trainings, and packaged ones."""
    folder = tmp_path_factory.mktemp("thetas") / "runs"
    folder.mkdir()
    runs = []
    for name in ("deep_set", "unf", "adam_controller", "lstm"):
        words = ["+task=mlp", f"meta_optimizer={name}", *TINY, f"hydra.run.dir={name}"]
        ending = server.run(words, folder)
        assert ending.code == 0, ending
        runs.append(folder / name)
    return [*runs, PACKAGED / "unf-mlp-fashion"]


def damaged(theta: Path, folder: Path, source: random.Random) -> str:
    """A damaged copy of a theta; says what was done to it."""
    folder.mkdir()
    for name in ("theta.json", "theta.safetensors"):
        shutil.copy(theta / name, folder / name)
    numbers = folder / "theta.safetensors"
    kind = source.random()
    if kind < 0.7:
        path = folder / "theta.json"
        metadata = json.loads(path.read_text())
        # at times in the recipe of the optimizer or its spec, which readers build from
        part = metadata[source.choice(["meta_optimizer", "specs"])]
        said = damage_fields(source.choice([metadata, part]), source)
        path.write_text(json.dumps(metadata))
        return said
    if kind < 0.85:
        content, said = damage_bytes(numbers.read_bytes(), source)
        numbers.write_bytes(content)
        return f"theta.safetensors: {said}"
    return damage_header(numbers, source)


def damage_header(path: Path, source: random.Random) -> str:
    """Change a field of the header of a safetensors file: types, shapes, positions."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    said = damage_fields(header, source)
    if source.random() < 0.5:
        name = source.choice(sorted(header))
        kinds = ["C64", "BOOL", "F64", "F16", "BF16", "F8_E4M3", "I64"]
        if isinstance(header[name], dict):
            header[name]["dtype"] = source.choice(kinds)
            said = f"{said}, dtype of {name}"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    return f"header of theta.safetensors: {said}"


def faults(ending: Ending, folder: Path) -> list[str]:
    """The rules that an ending breaks, whoever read the file."""
    broken_rules = []
    if "Traceback" in ending.output + ending.errors:
        broken_rules.append("a traceback")
    if ending.cut or ending.peak > MOST_MEMORY:
        broken_rules.append(f"ended for its {ending.cut or 'memory'}")
    if list(folder.rglob("canary")):
        broken_rules.append("code ran")
    if ending.code not in (0, 2):
        broken_rules.append(f"exit code {ending.code}")
    if ending.code == 2 and len(ending.errors.strip().splitlines()) != 1:
        broken_rules.append("not one sentence")
    return broken_rules


def differences(ending: Ending, folder: Path) -> list[str]:
    """Where a theta that was loaded is not what its files say."""
    loaded = json.loads(ending.output.splitlines()[-1])
    expected = {
        name: digest(leaf) for name, leaf in load_file(folder / "theta.safetensors").items()
    }
    broken_rules = []
    if loaded["theta"] != expected:
        broken_rules.append("theta differs from the file")
    node = json.loads((folder / "theta.json").read_text())["meta_optimizer"]
    for name, value in loaded["settings"].items():
        if node.get(name, value) != value:
            broken_rules.append(f"{name} is {value}, the file says {node[name]}")
    return broken_rules


def test_damaged_theta_files(small_server, thetas, tmp_path) -> None:
    counts: Counter[str] = Counter()
    broken_rules = []
    for number, source in trials(COUNT):
        folder = tmp_path / str(number)
        folder.mkdir()
        theta = source.choice(thetas)
        said = damaged(theta, folder / "theta", source)

        loading = small_server.run(["theta"], folder, LOADER)
        broken = faults(loading, folder)
        if loading.code == 0:
            broken += differences(loading, folder / "theta")
        evaluation = small_server.run(EVALUATE, folder)
        broken += [f"evaluate: {fault}" for fault in faults(evaluation, folder)]

        counts[f"loading {loading.code}"] += 1
        counts[f"evaluate {evaluation.code}"] += 1
        if broken:
            counts["faults"] += 1
            text = f"{loading.errors[-1000:]}\n{evaluation.errors[-1000:]}"
            broken_rules.append(f"{number}: {theta.name} {said}\n{broken}\n{text}")
            print(broken_rules[-1], flush=True)

    print(f"seed {SEED}, theta files: {dict(counts)}")
    assert not broken_rules, "\n\n".join(broken_rules)
