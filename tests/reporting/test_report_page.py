"""Pages of runs: what they say, that they need nothing else, what is missing."""

import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from learned_opt.commands import report
from learned_opt.evaluation.curves import read_curves
from learned_opt.reporting import plots, sections, update_plots
from learned_opt.reporting.record import points, read_record, read_table
from learned_opt.reporting.run_report import report_sections, title_of, write_run_report
from tests.helpers.run_folders import FACTS, HORIZON, NUM_SEEDS, Page, comparison, write_run

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def run(cheap_runs, tmp_path_factory) -> Path:
    """A run folder with pictures; tests read it."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "one")
    rows = []
    for outer, inner, i in itertools.product((1, 4), (0, 9), (0, 1)):
        rows.append(f"{outer},mlp,{inner},{'ab'[i]},effective_lr,{outer + inner + i}")
    (folder / "diagnostics.csv").write_text(
        "outer_step,task,inner_step,tensor,quantity,value\n" + "\n".join(rows)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", cheap_runs)
        write_run_report(folder)
    return folder


def page_of(folder: Path) -> str:
    record = read_record(folder)
    return sections.page(title_of(record), report_sections(record), FACTS["command"])


@pytest.fixture(scope="module")
def page(run) -> Page:
    return Page((run / "report.html").read_text())


def test_every_number_of_the_table_is_that_of_evaluation_json(run, page) -> None:
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    table = page.table("optimizer")
    assert list(table) == ["unf", "adam", "sgdm"]
    for name, cells in table.items():
        of_optimizer = [row for row in rows if row["optimizer"] == name]
        for heading, key, digits in (
            ("mean loss", "mean_loss", 4),
            ("final loss", "final_loss", 4),
            ("min loss", "min_loss", 4),
            ("accuracy", "accuracy", 3),
        ):
            mean, low, high = map(float, re.findall(r"[\d.]+", cells[heading]))
            values = [row.get(key, row["heldout"].get(key)) for row in of_optimizer]
            assert mean == round(sum(values) / len(values), digits)
            # at least Student's interval, which the bootstrap-t may widen
            error = stats.sem(values)
            student = stats.t.interval(0.95, NUM_SEEDS - 1, loc=mean, scale=error)
            assert low - 1e-3 <= student[0] < mean < student[1] <= high + 1e-3
            assert high - low < 4 * (student[1] - student[0])
        steps = [row["steps_to_target"] for row in of_optimizer]
        reached = [step for step in steps if step is not None]
        assert cells["steps to target"].endswith(f"({len(reached)}/{NUM_SEEDS})")
        assert float(cells["ms/step"]) == pytest.approx(of_optimizer[0]["ms_per_step"])
        rate = of_optimizer[0]["learning_rate"]
        assert cells["lr"] == ("-" if rate is None else f"{rate:.3g}")


def test_the_page_says_what_a_reader_must_know(page) -> None:
    assert page.title == "unf on mlp"
    assert "mean loss: unf is ahead of adam, difference -" in page.text
    assert "a warning about unf" in page.text
    facts = page.table("fact")
    assert facts["command"]["value"] == "python -m learned_opt +task=mlp"
    assert facts["git"]["value"] == "278af7e"
    assert facts["data of mlp"]["value"] == "digits, fingerprint dd82963602a00ec7"
    assert facts["held-out seeds of mlp"]["value"] == f"0 to {NUM_SEEDS - 1}"
    assert page.table("task")["mlp"] == {
        "task": "mlp", "outer steps": "5", "last meta-loss": "0.2000", "last validation": "0.5000"
    }  # fmt: skip
    assert page.table("of the whole training")["inner steps per second, median"]["value"] == "1,000"
    assert "What is missing" not in page.text
    assert "note: <script>unf</script>" in page.text  # of the config, escaped


def test_layers_are_shown_from_the_last_measurement(page) -> None:
    assert page.table("tensor") == {
        name: {"tensor": name, "effective learning rate": f"{4 + 9 + i}"}
        for i, name in enumerate("ab")
    }


def test_tensors_keep_their_order_where_one_has_no_first_value() -> None:
    """A bias that starts at zero has no ratio of update to weight at the first step."""
    rows = [("a", "ratio", 1, 0.5), ("b", "ratio", 0, 0.2), ("b", "ratio", 1, 0.3)]
    first = [("a", "cosine", 0, 1.0), ("b", "cosine", 0, 1.0)]
    measured = pd.DataFrame(first + rows, columns=["tensor", "quantity", "inner_step", "value"])
    table = update_plots.update_table(measured, "ratio")
    assert list(table.columns) == ["a", "b"]
    assert math.isnan(table.loc[0, "a"])
    assert table.loc[1].tolist() == [0.5, 0.3]


def test_the_page_needs_no_other_file_and_no_network(run, page) -> None:
    text = (run / "report.html").read_text()
    assert all(
        address.startswith(("data:image/svg+xml;base64,", "#")) for address in page.addresses
    )
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?:", text)
    assert page.tags.count("img") == 4  # inner curves, intervals, meta-loss, layers
    assert text.count(' alt="') == 4
    assert len(text) < 1_000_000


@pytest.mark.usefixtures("real_pictures")
def test_the_same_files_give_the_same_bytes(run) -> None:
    assert page_of(run) == (run / "report.html").read_text()


def test_what_is_missing_is_said_and_the_rest_is_shown(run, tmp_path) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    (old / "curves.parquet").unlink()
    shown = Page(page_of(old))
    assert "curves.parquet is not there" in shown.text
    assert shown.tags.count("img") == 3
    assert list(shown.table("optimizer")) == ["unf", "adam", "sgdm"]

    for name in ("evaluation.json", "theta.safetensors", ".hydra/config.yaml"):
        (old / name).unlink()
    stopped = Page(page_of(old))
    for name in ("evaluation.json", "theta.safetensors", ".hydra/config.yaml"):
        assert f"{name} is not there" in stopped.text
    assert stopped.table("task")["old"]["outer steps"] == "5"
    assert "run folder" in stopped.table("fact")


def test_a_run_of_an_earlier_version_is_shown_without_its_steps_to_target(run, tmp_path) -> None:
    """Format 1: a list of rows, and curves as CSV; its target was another one."""
    old = shutil.copytree(run, tmp_path / "old")
    (old / "curves.parquet").unlink()
    rows = []
    kept = ("task", "optimizer", "seed", "horizon", "mean_loss", "final_loss", "ms_per_step")
    for row in json.loads((run / "evaluation.json").read_text())["rows"]:
        earlier = {name: row[name] for name in (*kept, "learning_rate", "steps_to_target")}
        earlier |= {"accuracy": row["heldout"]["accuracy"], "heldout": {"test_loss": 0.5}}
        rows.append(earlier)
    (old / "evaluation.json").write_text(json.dumps(rows))
    lines = ["task,seed,optimizer,step,loss"]
    for seed, step in itertools.product(range(NUM_SEEDS), range(HORIZON)):
        lines.append(f"mlp,{seed},unf,{step},{1 / (step + 1)}")
    (old / "curves.csv").write_text("\n".join(lines))

    shown = Page(page_of(old))
    assert "these results are of a version before 0.2" in shown.text
    table = shown.table("optimizer")
    assert {cells["steps to target"] for cells in table.values()} == {"-"}
    new = Page(page_of(run)).table("optimizer")
    for name, cells in table.items():
        assert cells["mean loss"] == new[name]["mean loss"]
        assert cells["accuracy"] == new[name]["accuracy"]
    assert shown.tags.count("img") == 4


def test_curves_come_back_as_they_were(run) -> None:
    curves = read_curves(run / "curves.parquet")["mlp", HORIZON]
    for name, cell in comparison("unf", 0.2).items():
        np.testing.assert_allclose(curves[name], cell.runs.losses.numpy(), rtol=1e-6)


def test_a_value_that_the_logger_carries_along_counts_once(tmp_path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a\n0,3.0\n1,nan\n2,2.0\n3,2.0\n4,inf\n5,1.0\n")
    table = read_table(tmp_path / "metrics.csv", ["step"])
    assert points(table, "a") == [(0, 3.0), (2, 2.0), (5, 1.0)]
    assert points(table, "b") == []


def test_bands_are_quantiles_and_end_where_runs_diverge() -> None:
    values = np.tile(np.arange(11.0), (4, 1))  # the same losses 0..10 at four steps
    values[2:, -1] = math.inf
    low, median, high = plots.band(values, window=1)
    assert low.tolist() == pytest.approx([1.0] * 4)
    assert median.tolist() == pytest.approx([5.0] * 4)
    assert high.tolist() == pytest.approx([9.0] * 4)
    values[3, 4:] = math.inf
    ends = [quantile[3] for quantile in plots.band(values, window=1)]
    assert list(map(math.isnan, ends)) == [False, True, True]
    assert plots.band(np.arange(4.0)[:, None], window=2)[1].tolist() == [0.5, 1.5, 2.5]


def test_trailing_mean_is_shorter_at_the_start() -> None:
    smooth, window = plots.trailing_mean(np.arange(100.0))
    assert window == 2
    assert smooth[:3].tolist() == [0.0, 0.5, 1.5]


def test_colours_differ_in_lightness_and_stand_out_on_white() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    values = [luminance(colour) for colour in plots.COLOURS]
    lightness = [116 * y ** (1 / 3) - 16 for y in values]  # CIE L*
    assert min(np.diff(lightness)) > 6
    assert all(1.05 / (y + 0.05) >= 3 for y in values)  # WCAG 2.1, 1.4.11
    looks = [tuple(plots.style(i).values()) for i in range(20)]
    assert len(set(looks)) == 20


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is no run folder: it has neither evaluation.json nor metrics.csv."),
        ({"evaluation.json": "{"}, "evaluation.json is damaged: "),
        (
            {"evaluation.json": "[1]"},
            "evaluation.json is not ours: it must be a list of rows with ",
        ),
        (
            {"evaluation.json": '{"rows": 1}'},
            "evaluation.json has format None, this version reads 2 and 1.",
        ),
        ({"evaluation.json": '{"format": 2}'}, "evaluation.json is damaged or not of an"),
        ({"metrics.csv": "a,b\n1,2\n"}, "metrics.csv lacks the columns step."),
        ({"metrics.csv": "step,a\n1,2\n2,x\n"}, "its column a holds more than numbers."),
        ({"metrics.csv": "step,a\n1,2\n,3\n"}, "its column step lacks a number."),
        (
            {"metrics.csv": "step\n1\n", ".hydra/config.yaml": "- 1\n"},
            "config.yaml must hold a mapping, as a config does.",
        ),
        (
            {"metrics.csv": "step\n1\n", ".hydra/overrides.yaml": "{a: 1}\n"},
            "overrides.yaml must hold a list of texts, the words of a command line.",
        ),
        ({"metrics.csv": ""}, "metrics.csv is no table: No columns to parse from file"),
        (
            {"metrics.csv": "step\n1\n", "diagnostics.csv": "a\n1\n"},
            "diagnostics.csv lacks the columns outer_step, ",
        ),
    ],
)
def test_a_folder_of_something_else_is_one_sentence(
    tmp_path, monkeypatch, capsys, files, message
) -> None:
    (tmp_path / ".hydra").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        report.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: whether pages fit a phone was NOT tested"
)
def test_in_a_browser_it_fits_the_screen_and_asks_the_network_for_nothing(run, tmp_path) -> None:
    """In frames as wide as a phone and a desktop.

    A script measures what sticks out and counts what was fetched.
    """
    widths = (360, 390, 1280)
    frames = "".join(
        f'<iframe src="report.html" style="width:{w}px;height:900px;border:0"></iframe>'
        for w in widths
    )
    measure = """onload = () => {
        const frames = [...document.querySelectorAll("iframe")];
        document.title = frames.map(frame => {
            const page = frame.contentDocument, view = frame.contentWindow;
            const whole = [...page.images].filter(i => i.complete && i.naturalWidth > 0);
            const entries = view.performance.getEntriesByType("resource");
            const fetched = entries.filter(e => !e.name.startsWith("data:"));
            const width = page.documentElement.scrollWidth;
            return [view.innerWidth, width, whole.length, fetched.length].join();
        }).join(";");
    }"""
    (tmp_path / "frames.html").write_text(f"<title></title><script>{measure}</script>{frames}")
    shutil.copy(run / "report.html", tmp_path)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--dump-dom",
    ]
    command = [
        str(CHROMIUM),
        *flags,
        f"--user-data-dir={tmp_path}/profile",
        (tmp_path / "frames.html").as_uri(),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = finished.stdout.split("</title>")[0]
    measured = re.findall(r"(\d+),(\d+),(\d+),(\d+)", title)
    assert len(measured) == len(widths), finished.stdout
    for width, numbers in zip(widths, measured, strict=True):
        screen, content, pictures, fetched = map(int, numbers)
        assert screen == width
        assert content <= width
        assert (pictures, fetched) == (4, 0)
