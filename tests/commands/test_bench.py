"""The bench: what it measures, against closed forms, and as a command."""

import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

from learned_opt.commands import bench, cli
from learned_opt.compose import bench_steps
from learned_opt.evaluation.cost.allocator import peak_bytes
from learned_opt.evaluation.cost.breakdown import breakdown
from learned_opt.evaluation.cost.scaling import fit_exponent
from learned_opt.evaluation.cost.timing import Times, interleave
from learned_opt.reporting import cost_comparison, cost_table
from learned_opt.reporting.cost_table import Key
from learned_opt.runtime.machine import differences
from tests.helpers.made_folders import only_folder_of

CPU = torch.device("cpu")


def test_exponents_of_power_laws() -> None:
    sizes = [4, 8, 16, 32]
    exact = fit_exponent(sizes, [3 * size**1.5 for size in sizes])
    assert exact.value == pytest.approx(1.5)
    assert exact.error == pytest.approx(0, abs=1e-6)
    source = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(500, 4, generator=source)
    fits = []
    for row in noise:
        costs = [size * math.exp(e) for size, e in zip(sizes, row, strict=True)]
        fits.append(fit_exponent(sizes, costs))
    values = torch.tensor([fit.value for fit in fits])
    errors = torch.tensor([fit.error for fit in fits])
    assert abs(float(values.mean()) - 1) < 3 * float(values.std()) / 500**0.5
    assert float(errors.square().mean().sqrt()) == pytest.approx(float(values.std()), rel=0.1)
    with pytest.raises(ValueError, match="at least 3 sizes"):
        fit_exponent([1, 2], [1, 2])
    with pytest.raises(ValueError, match="must be positive"):
        fit_exponent(sizes, [0, 1, 2, 3])


def test_peak_of_the_allocator() -> None:
    def call() -> None:
        first = torch.zeros(100_000)
        second = first + 1
        del first
        third = second * 2
        del second, third

    assert (
        0 <= peak_bytes(call, CPU) - 800_000 < 100
    )  # numbers in operations are tensors of a few bytes


def test_rounds_are_interleaved_and_survive_an_interruption() -> None:
    order: list[str] = []
    times: dict[str, Times] = {}

    def make(name: str):
        def call(number: int) -> None:
            if number == 2 and name == "b":
                raise KeyboardInterrupt
            order.append(f"{name}{number}")

        return call

    with pytest.raises(KeyboardInterrupt):
        interleave({"a": make("a"), "b": make("b")}, 5, times, lambda text: None)
    assert order == ["a0", "b0", "a1", "b1", "a2"]
    assert [len(times[name].later) for name in "ab"] == [2, 1]
    assert times["b"].typical is not None


def test_breakdown_finds_the_products() -> None:
    big = torch.zeros(400, 400)
    shares = breakdown(lambda: big @ big)
    assert shares["products"] > 0.3 * shares["total"]
    assert shares["generated"] == shares["kernels"] == 0
    assert sum(seconds for kind, seconds in shares.items() if kind != "total") == pytest.approx(
        shares["total"], rel=0.05
    )


MACHINE = {"processor": "p", "cores": 2, "threads": 1, "device": "cpu", "load": 0.1}


def row(optimizer: str, speed: float, num_chains: int = 8) -> dict:
    return {
        "task": "mlp",
        "optimizer": optimizer,
        "mode": "eager",
        "num_theta": 3,
        "num_chains": num_chains,
        "unroll_length": 5,
        "steps_per_s": speed,
        "peak_bytes_per_chain": 64.0,
        "first_call_s": 0.5,
    }


def saved(*rows: dict, **machine: object) -> dict:
    return {"format": cost_table.FORMAT, "machine": MACHINE | machine, "rows": list(rows)}


def test_comparison_with_an_earlier_run() -> None:
    new = saved(row("a", 300.0), row("b", 10.0))
    old = saved(row("a", 100.0), row("gone", 5.0))
    rows, sentences = cost_comparison.compare(new, old)
    assert [tuple(r.values()) for r in rows] == [
        ("mlp", "a", "eager", "100", "300", "3.00", "1.00", "1.00")
    ]
    assert not any("warning" in sentence for sentence in sentences)
    assert "only in the earlier run: mlp gone eager" in sentences

    _, sentences = cost_comparison.compare(
        new, saved(row("a", 100.0, num_chains=9), threads=4, load=7)
    )
    warnings = "\n".join(sentence for sentence in sentences if sentence.startswith("warning"))
    assert "the machines differ (threads 4 -> 1)" in warnings
    assert "the work is not the same: mlp a eager" in warnings
    assert "more wanted to run than there are cores (then)" in warnings
    assert differences(MACHINE, MACHINE) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no file"),
        ("{", "is damaged or foreign"),
        ("[1]", "is damaged or foreign"),
        (
            '{"format": "other", "rows": [], "machine": {"load": 0, "cores": 1}}',
            "is of another format",
        ),
        (json.dumps(saved({"task": "mlp"})), "is damaged or foreign"),
        ("[" * 200_000, "is damaged or foreign"),
        (json.dumps(saved(3)), "row 0: it must be an object"),
        (json.dumps(saved(row("a", 1.0), row("a", 2.0))), "row 1: it is there twice"),
        (json.dumps(saved(row("a", 1.0) | {"task": [1]})), "row 0: task must be a text"),
        (
            json.dumps(saved(row("a", None))),
            "row 0: steps_per_s must be a positive number, it is None",
        ),
        (
            json.dumps(saved(row("a", 1.0) | {"first_call_s": "1"})),
            "row 0: first_call_s must be a positive number, it is '1'",
        ),
        (json.dumps(saved(load="busy")), "machine.load must be a number"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path, text, message) -> None:
    file = tmp_path / "old.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        cost_comparison.read(file)


def test_a_damaged_file_is_one_sentence(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("it's, old.json").write_text("{")
    error = refused(monkeypatch, capsys, "+task=mlp", "--compare", "it's, old.json")
    assert "is damaged or foreign" in error


def refused(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare"], "--compare needs a FILE"),
        pytest.param(["repeats=0"], "repeats must be at least 1, got 0.", marks=pytest.mark.slow),
        (
            ["only=[unf,sdgm]"],
            "only must hold names of cases (sgdm, adam, pointwise, unf, unf_paper, unf_all), got",
        ),
        (["modes=[fast]"], "modes must be eager or compiled, got fast."),
        pytest.param(
            ["verb=paint"], "verb must be table or scaling, got 'paint'.", marks=pytest.mark.slow
        ),
        (
            ["estimator.num_tasks=auto"],
            "this command takes a number for estimator.num_tasks, got 'auto'.",
        ),
        (["+task=nope"], "unknown task 'nope'"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(monkeypatch, capsys, "tasks=[mlp]", *arguments)


TINY = [
    "only=[sgdm,pointwise]",
    "modes=[eager]",
    "repeats=1",
    "estimator.num_tasks=2",
    "estimator.unroll_length=2",
]
TINY += ["floor_steps=1"]


@pytest.mark.slow
def test_the_table_as_a_command(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(sys, "argv", ["bench", "tasks=[mlp,cnn]", *TINY])
    bench.main()
    folder = only_folder_of(tmp_path / "runs/bench")
    bench_json = json.loads((folder / "bench.json").read_text())
    assert [Key(r["task"], r["optimizer"], r["mode"]) for r in bench_json["rows"]] == [
        (task, optimizer, "eager") for task in ("mlp", "cnn") for optimizer in ("sgdm", "pointwise")
    ]
    for r in bench_json["rows"]:
        assert r["us_per_chain_step"] == pytest.approx(1e6 / r["steps_per_s"])
        assert r["times_floor"] == pytest.approx(r["ms_per_step"] / r["floor_ms_per_step"])
        assert r["num_theta"] * 4 < r["peak_bytes_per_chain"]
    assert bench_json["rows"][0]["times_sgdm"] == 1
    assert bench_json["rows"][0]["times_adam"] is None
    shown = capsys.readouterr().out
    assert "cnn, eager" in shown
    monkeypatch.setattr(
        sys, "argv", ["bench", "+task=mlp", *TINY, f"--compare={folder / 'bench.json'}"]
    )
    bench.main()
    assert "only in the earlier run: mlp" not in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("features", ["gradient_set", "gradmetanet"])
def test_features_of_single_examples_are_measured(tmp_path, monkeypatch, features: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    settings = [word for word in TINY if "only" not in word]
    for name in ("paper", features):
        words = ["+task=mlp", f"features={name}", "only=[sgdm,unf]", *settings]
        monkeypatch.setattr(sys, "argv", ["bench", *words, f"hydra.run.dir={name}"])
        bench.main()
    rows = {}
    for name in ("paper", features):
        content = json.loads((tmp_path / name / "bench.json").read_text())
        rows[name] = {row["optimizer"]: row for row in content["rows"]}
    assert rows[features]["unf"]["num_theta"] > rows["paper"]["unf"]["num_theta"]
    assert rows[features]["sgdm"]["num_theta"] == rows["paper"]["sgdm"]["num_theta"]
    assert rows[features]["unf"]["times_floor"] > 1


def test_ctrl_c_keeps_what_was_measured(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_steps.OuterStep, "peak_bytes", interrupt)
    monkeypatch.setattr(sys, "argv", ["bench", "+task=mlp", *TINY])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    folder = only_folder_of(tmp_path / "runs/bench")
    assert [
        r["peak_bytes_per_chain"] for r in json.loads((folder / "bench.json").read_text())["rows"]
    ] == [None, None]


@pytest.mark.slow
def test_scaling_as_a_command(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    settings = [
        "compile=false",
        "scaling.only=[sgdm]",
        "scaling.repeats=1",
        "scaling.unroll_length=1",
    ]
    small = [
        "~scaling.axes.width",
        "~scaling.axes.tensors",
        *(f"scaling.axes.pairs.{key}=[1,2,4,8]" for key in ("sizes", "values")),
    ]
    monkeypatch.setattr(sys, "argv", ["bench", "scaling", "+task=mlp", *settings, *small])
    bench.main()
    folder = only_folder_of(tmp_path / "runs/bench")
    (row,) = json.loads((folder / "scaling.json").read_text())["rows"]
    value, error = row["peak bytes"]
    assert value == pytest.approx(1, abs=0.1)
    assert error < 0.1
    assert "±" in capsys.readouterr().out


def test_verbs_are_named(monkeypatch) -> None:
    assert bench.TABLES == ("table", "scaling")
    monkeypatch.setattr(cli, "entry_point", lambda main, **_: None)
    monkeypatch.setattr(sys, "argv", ["bench", "scaling", "--compare", "a b.json", "+task=mlp"])
    bench.main()
    assert sys.argv[1:] == ["verb=scaling", "compare='a b.json'", "+task=mlp"]
