"""A checkpoint with a wrong byte is refused, or loaded as it was written."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from learned_opt.core import tree
from learned_opt.training.checkpoint_files import (
    CheckpointError,
    checksum_path,
    find_checkpoint,
    read,
)
from tests.helpers.damaged_files import flipped
from tests.helpers.fuzz_draws import SEED
from tests.helpers.random_command_lines import TINY

pytestmark = pytest.mark.slow
COUNT = 900
SHARE_OF_CHECKSUMS = 0.2  # the rest of the flips are in the checkpoint itself


@pytest.fixture(scope="module")
def run(server, tmp_path_factory) -> Path:
    """A run folder with one checkpoint."""
    folder = tmp_path_factory.mktemp("bytes") / "work"
    folder.mkdir()
    words = ["+task=mlp", "meta_optimizer=deep_set", *TINY, "callbacks.checkpoints.every=2"]
    ending = server.run([*words, "hydra.run.dir=run"], folder)
    assert ending.code == 0, ending
    return folder / "run"


def leaves(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The numbers that a run goes on from."""
    (outer,) = checkpoint["optimizer_states"]
    states = {str(key): state for key, state in outer["state"].items()}
    parts = {
        "theta": checkpoint["state_dict"],
        "outer": states,
        "chains": checkpoint["estimator_state"],
    }
    return tree.flatten(parts)


def is_equal(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """To the bit, the number of the outer step too."""
    mine, other = leaves(left), leaves(right)
    if list(mine) != list(other) or left["global_step"] != right["global_step"]:
        return False
    return all(torch.equal(mine[name], other[name]) for name in mine)


def test_flipped_bytes(run) -> None:
    source = random.Random(SEED)
    (file,) = (run / "checkpoints").glob("*.ckpt")
    whole = read(file)
    counts: Counter[str] = Counter()

    for _ in range(COUNT):
        is_checksum = source.random() < SHARE_OF_CHECKSUMS
        path = checksum_path(file) if is_checksum else file
        content = path.read_bytes()
        path.write_bytes(flipped(content, source.randrange(len(content)), source))
        kind = "checksum" if is_checksum else "checkpoint"
        try:
            # a person names the file, or the run
            loaded = read(find_checkpoint(source.choice([file, run])))
        except (ValueError, CheckpointError):
            counts[f"{kind} refused"] += 1
        else:
            counts[f"{kind} {'equal' if is_equal(loaded, whole) else 'DIFFERENT'}"] += 1
        path.write_bytes(content)

    print(f"seed {SEED}, {COUNT} flips: {dict(counts)}")
    assert not [name for name in counts if "DIFFERENT" in name]
    assert counts["checkpoint equal"] == 0  # every byte of it is in the checksum
    assert sum(counts.values()) == COUNT
