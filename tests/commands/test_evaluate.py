"""``python -m learned_opt evaluate`` as a suite, on thetas of a few numbers."""

import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from learned_opt.commands import evaluate
from learned_opt.compose import contenders
from learned_opt.deploy.weights import save_theta
from learned_opt.evaluation.frames import distinct, groups, select
from learned_opt.evaluation.results import read_evaluation
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.symmetry import PermutationSpec
from tasks.networks.mlp import MLP
from tests.commands.test_cli import refused
from tests.compose.test_configs import composed

TINY = [
    "compile=false",
    "horizon=12",
    "data.test_fraction=0.1",
    "benchmark.num_seeds=3",
    "benchmark.num_chains=3",
]
TINY += ["benchmark.num_lrs=2", "benchmark.num_tuning_seeds=1", "hydra.run.dir=run", "cells=cells"]


RULES = {
    "sgdm": "learned_opt.optimizers.hand.sgd.Momentum",
    "adam": "learned_opt.optimizers.hand.adam.Adam",
}


def trained(folder: Path, optimizer: str = "sgdm") -> Path:
    """A theta as a meta-training leaves it."""
    folder.mkdir()
    make = {"sgdm": make_sgdm, "adam": make_adam}[optimizer]
    spec = PermutationSpec(*MLP((1, 8, 8), 10, (32,)).permutation_axes())
    metadata = {
        "optimizer_name": optimizer,
        "meta_optimizer": {
            "_target_": "learned_opt.optimizers.hand.hand_designed.HandDesigned",
            "_partial_": True,
            "rule": {"_target_": RULES[optimizer], "_partial_": True},
            "lr": 0.1,
        },
        "specs": {"mlp": spec.as_dict()},
        "tasks": {"mlp": {"task": "mlp", "data": "digits", "fingerprint": "of another split"}},
        "draws": {"validation": "valid"},
        "provenance": {},
    }
    return save_theta(folder, dict(make(spec, lr=1.0).named_parameters()), metadata)


def command(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["learned_opt.commands.evaluate", *words])
    evaluate.main()


def test_meta_trainings_of_one_optimizer_are_one_row(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    thetas = []
    for seed, rate in enumerate((0.05, 0.06, 0.07)):
        theta = trained(tmp_path / str(seed))
        metadata = json.loads(theta.with_suffix(".json").read_text())
        metadata["provenance"]["seed"] = str(seed)
        values = {name: tensor * rate / 1.0 for name, tensor in load_file(theta).items()}
        save_theta(theta.parent, values, {k: v for k, v in metadata.items() if k != "format"})
        thetas.append(str(theta))

    words = ["+task=mlp", f"theta={{mine: [{', '.join(thetas)}]}}", "baselines=[adam]", *TINY]
    words += ["+benchmark.heldout_every=5"]
    command(monkeypatch, *words, "+card.longer.x2.horizon=x2")
    shown = " ".join(capsys.readouterr().out.split())
    assert "mlp, horizon 12, over meta-seeds: mean" in shown
    assert "meta-seeds" in shown
    assert re.search(r"final loss: mine is \w+ \w+ adam, difference .* \(3 meta-seeds\)", shown)
    assert re.search(r"mine (first )?falls behind tuned adam", shown)

    results = read_evaluation(Path("run/evaluation.json"))
    assert {row: tuple(training) for row, training in results.meta_trainings.items()} == {
        f"mine seed {seed}": ("mine", seed) for seed in range(3)
    }
    of_task = select(results.frame, axis="")
    adam = select(of_task, optimizer="adam")
    # it gets to its own best test loss at a measured step of 12
    assert set(adam["steps_to_test_loss"]) <= {5.0, 10.0}
    report = Path("run/report.md").read_text()
    assert "steps to the reference's best test loss" in report
    assert "| mine | 3 |" in report
    assert report.startswith("# mine on mlp")  # the title names each optimizer once
    assert report.index("| mine | 3 |") < report.index("| mine seed 1 |")

    one_seed = f"theta={{mine: [{thetas[0]}, {thetas[0]}]}}"
    words = ["+task=mlp", one_seed, *TINY]
    sentence = refused(monkeypatch, capsys, tmp_path, evaluate.main, *words)
    assert "two thetas are called mine, and no two seeds of meta-training" in sentence


def test_a_suite_with_a_card_and_the_table_of_it(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    theta = trained(tmp_path / "mine")
    words = [
        "+task=mlp",
        f"theta={{mine: {theta}}}",
        "horizons=[12,15]",
        "baselines=[adam]",
        *TINY,
    ]
    words += ["+card.longer.x2.horizon=x2", "+card.deeper.two.network.hidden_sizes=[8,8]"]
    command(monkeypatch, *words)
    first = " ".join(capsys.readouterr().out.split())
    assert "mlp, horizon 15" in first
    assert "generalisation card of mlp" in first
    assert "time-to-target scores" in first
    assert "mine was meta-trained on data of the same name" in first
    assert "0 of 8 cells were there already" in first

    results = read_evaluation(Path("run/evaluation.json"))
    frame = results.frame
    assert distinct(frame, "optimizer") == ["mine", "adam"]
    points = {values for values, _ in groups(frame, ["axis", "horizon"])}
    assert points == {("", 12), ("", 15), ("longer", 24), ("deeper", 12)}
    assert {row["kind"] for row in results.origins} == {"data of the same name"}

    command(monkeypatch, *words)
    assert "8 of 8 cells were there already" in " ".join(capsys.readouterr().out.split())
    again = read_evaluation(Path("run/evaluation.json")).frame
    pd.testing.assert_frame_equal(again, frame)

    command(monkeypatch, "table", "run")
    lines = capsys.readouterr().out.splitlines()
    heading = "| optimizer | mlp, digits, 12 steps, 3 seeds | mlp, digits, 15 steps, 3 seeds |"
    assert lines[0] == heading
    command(monkeypatch, "table", "run", "rows=mine")
    assert capsys.readouterr().out.splitlines()[3].endswith(" adam |")


def test_one_theta_is_evaluated_as_after_its_training(tmp_path, monkeypatch, capsys) -> None:
    """Baselines are tuned for both losses; beside several thetas for the final one."""
    monkeypatch.chdir(tmp_path)
    theta = trained(tmp_path / "mine")
    command(monkeypatch, "+task=mlp", f"theta={theta}", "baselines=[adam]", *TINY)
    assert "sgdm" in capsys.readouterr().out
    results = read_evaluation(Path("run/evaluation.json"))
    assert results.learned == ["sgdm"]
    criteria = [row["criterion"] for row in results.budgets if "criterion" in row]
    assert criteria[0] == "mean_loss"
    command(monkeypatch, "+task=mlp", f"theta={{mine: {theta}}}", "baselines=[adam]", *TINY)
    budgets = read_evaluation(Path("run/evaluation.json")).budgets
    assert [row["criterion"] for row in budgets if "criterion" in row] == ["final_loss"]


def test_what_nobody_tunes_runs_as_it_is_and_a_packaged_name_is_a_theta(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["+task=mlp", "theta={ours: unf-transfer}", "baselines=[adam]", *TINY]
    command(monkeypatch, *words, "+meta_optimizer@fixed.plain=adamw", "fixed.plain.lr=1e-3")
    results = read_evaluation(Path("run/evaluation.json"))
    budgets = {row["optimizer"]: row.get("tries") for row in results.budgets}
    assert budgets == {"ours": None, "adam": 2, "plain": None}
    assert {row["optimizer"] for row in results.origins} == {"ours"}


def test_a_class_of_somebody_elses_is_imported_only_where_it_is_trusted(
    tmp_path, monkeypatch, capsys
) -> None:
    theta = trained(tmp_path / "mine")
    metadata = json.loads(theta.with_suffix(".json").read_text())
    metadata["meta_optimizer"] = {"_target_": "pandas.read_pickle", "filepath_or_buffer": "x"}
    theta.with_suffix(".json").write_text(json.dumps(metadata))
    words = ["+task=mlp", f"theta=[{theta}]", *TINY]
    message = refused(monkeypatch, capsys, tmp_path, evaluate.main, *words)
    assert "names 'pandas.read_pickle', which is no class of learned_opt" in message


def test_a_list_of_thetas_is_named_by_kind(tmp_path) -> None:
    files = [trained(tmp_path / "one"), trained(tmp_path / "two", optimizer="adam")]
    cfg = composed(
        "+task=mlp",
        f"theta=[{','.join(map(str, files))}]",
        "baselines=[adam]",
        name="evaluate",
    )
    one, two = contenders.build_learned(cfg)
    assert (one.name, two.name) == ("sgdm", "adam-learned")  # a tuned one stands beside it
    assert not one.tuned
    assert one.identity["theta"] != two.identity["theta"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["+task=mlp"],
            "or theta={NAME: X, NAME: X} for several.",
        ),
        (["+task=mlp", "checkpoint=unf-transfer"], "write theta=unf-transfer."),
        (["+task=mlp", "theta=[]"], "give theta=X, a packaged name"),
        (["+task=mlp", "ckpt=a"], "ckpt is now called checkpoint; write checkpoint=a."),
        (["+task=mlp", "checkpoints=[a]"], "checkpoints is now called theta; write theta=[a]."),
        (["+task=mlp", "+checkpoints.a=b"], "write +theta.a=b."),
        (
            ["+task=mlp", "theta=[none.safetensors]"],
            "nothing is called 'none.safetensors': it must be ",
        ),
        (
            ["+task=mlp", "theta=[ONE,ONE]"],
            "two thetas are called sgdm-learned, and no two seeds of meta-training",
        ),
        (
            ["+task=mlp", "theta=[ONE]", "baselines=[adma]"],
            "among those of the benchmark, sgdm, adam, got 'adma'.",
        ),
        (
            ["+task=mlp", "theta=[ONE]", "reference=lion"],
            "reference must be one of the baselines sgdm, adam, got 'lion'",
        ),
        (
            ["+task=mlp", "theta=[ONE]", "tuned_for=speed"],
            "tuned_for must be among mean_loss, final_loss, test_loss, got 'speed'",
        ),
        (
            ["+task=mlp", "theta=[ONE]", "horizons=20"],
            "horizons must be a list of inner steps such as [200,400], got 20.",
        ),
        (
            ["+task=mlp", "theta=[ONE]", "+card.wider.x2.network.width=x2"],
            "the card changes network.width, but the task",
        ),
        (["+task=mlp", "theta=[DAMAGED]"], "is damaged"),
        (["table"], "name at least one run folder"),
        (["table", "nowhere"], "nowhere holds no results of an evaluation"),
    ],
)
def test_bad_words_are_one_sentence(tmp_path, monkeypatch, capsys, words, message) -> None:
    damaged = trained(tmp_path / "damaged")
    damaged.write_bytes(b"\0")
    files = {"ONE": str(trained(tmp_path / "one")), "DAMAGED": str(damaged)}
    for word, path in files.items():
        words = [one.replace(word, path) for one in words]
    if words[0] != "table":
        words = [*words, *TINY]
    assert message in refused(monkeypatch, capsys, tmp_path, evaluate.main, *words)
