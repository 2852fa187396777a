"""The ledger of held-out seeds: the second look is warned of, and what is none is not."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from learned_opt.evaluation import cells, heldout_ledger
from learned_opt.evaluation.frames import select
from learned_opt.evaluation.heldout_ledger import Use
from tests.evaluation.test_suite import learned, run, setting

FIRST = Use(
    family="UNF",
    optimizer="unf",
    theta="aa",
    task="mlp",
    first_seed=0,
    num_seeds=4,
    date="2026-01-01T00:00:00.000+00:00",
    command="evaluate",
    git="1",
)
LATER = FIRST._replace(theta="bb", date="2026-01-02T00:00:00.000+00:00")


def asked(ledger, **changes):
    """A small setting whose uses are kept in a ledger."""
    question = setting()
    benchmark = replace(question.benchmark, ledger=str(ledger), **changes)
    return replace(question, benchmark=benchmark)


def seed_warnings(results) -> list[str]:
    return [warning for warning in results.warnings if "held-out seeds" in warning]


def test_the_second_theta_on_the_same_seeds_is_warned_of(tmp_path) -> None:
    ledger = tmp_path / "ledger"
    first = run(tmp_path / "cells", [asked(ledger)], [learned(lr=0.5)])
    assert seed_warnings(first) == []
    assert len(heldout_ledger.read(ledger)) == 1

    second = run(tmp_path / "cells", [asked(ledger)], [learned(lr=0.4)])
    (sentence,) = seed_warnings(second)
    assert "held-out seeds 0 to 3 of quadratic had been used once before for another" in sentence

    # the same again is no further use; the warning stays with the second alone
    again = run(tmp_path / "cells", [asked(ledger)], [learned(lr=0.4)])
    assert again.warnings == second.warnings
    first_again = run(tmp_path / "cells", [asked(ledger)], [learned(lr=0.5)])
    assert first_again.warnings == first.warnings
    assert len(heldout_ledger.read(ledger)) == 2


def test_what_one_run_compares_is_one_look(tmp_path) -> None:
    both = [learned("one", lr=0.5), learned("two", lr=0.4)]
    results = run(tmp_path / "cells", [asked(tmp_path / "ledger")], both)
    again = run(tmp_path / "cells", [asked(tmp_path / "ledger")], both)
    assert seed_warnings(results) == seed_warnings(again) == []
    assert len(heldout_ledger.read(tmp_path / "ledger")) == 2


def test_another_range_is_new_and_has_other_starts(tmp_path) -> None:
    ledger = tmp_path / "ledger"
    old = run(tmp_path / "cells", [asked(ledger)], [learned(lr=0.5)])
    new = run(tmp_path / "cells", [asked(ledger, first_seed=1000)], [learned(lr=0.4)])
    assert seed_warnings(new) == []
    assert new.reused == 0
    mine = select(new.frame, optimizer="mine")
    assert mine["seed"].tolist() == [1000, 1001, 1002, 1003]
    assert not set(mine["start"]) & set(old.frame["start"])


def test_ranges_that_overlap_share_runs() -> None:
    """Seeds 2 to 5 start as seeds 2 and 3 of 0 to 3 do."""
    question = setting()
    moved = replace(question, benchmark=replace(question.benchmark, first_seed=2))
    unroll = question.unroll(learned())
    low = cells.run_cells(question, learned(), unroll)["mine"].table
    high = cells.run_cells(moved, learned(), unroll)["mine"].table
    assert low["start"].tolist()[2:] == high["start"].tolist()[:2]
    np.testing.assert_allclose(low["final_loss"][2:], high["final_loss"][:2], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        ({}, True),
        ({"optimizer": "another name"}, True),
        ({"first_seed": 3}, True),
        ({"first_seed": 4}, False),
        ({"task": "cnn"}, False),
        ({"family": "LSTM"}, False),
        ({"theta": "aa"}, False),
        ({"date": "2025-12-31T00:00:00.000+00:00"}, False),
    ],
)
def test_a_use_counts_for_its_family_task_and_seeds(tmp_path, change, warned) -> None:
    assert heldout_ledger.record(tmp_path, [FIRST]) == []
    assert bool(heldout_ledger.record(tmp_path, [LATER._replace(**change)])) == warned


def test_a_damaged_ledger_is_named_before_anything_runs(tmp_path) -> None:
    for content in ("", "[]", '{"family": "UNF"}', json.dumps(FIRST._asdict() | {"task": 1})):
        (tmp_path / "mlp.json").write_text(content)
        with pytest.raises(ValueError, match=r"mlp\.json is damaged or no use of held-out seeds"):
            run(tmp_path / "cells", [asked(tmp_path)], progress=pytest.fail)


def test_a_negative_first_seed_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="first_seed must be at least 0, got -1"):
        asked(tmp_path, first_seed=-1)


def test_the_published_ledger_does_not_name_the_folder_of_a_run() -> None:
    optimizer = torch.nn.Linear(1, 1)
    facts = {"command": "python -m learned_opt +task=mlp seed=1 hydra.run.dir=/home/somebody/runs"}
    use = heldout_ledger.use_of(optimizer, "unf", "mlp", range(4), facts)
    assert use.command == "python -m learned_opt +task=mlp seed=1"
