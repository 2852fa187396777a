"""Pages of runs: what they say, that they need nothing else, and what they do where files are missing."""

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

from learned_opt.commands import report
from learned_opt.reporting import layers, plots
from learned_opt.reporting.record import points, read_curves, read_record, read_table
from learned_opt.reporting.run_page import run_page, write_run_page
from tests.helpers.run_folders import HORIZON, NUM_SEEDS, Page, comparison, write_run

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder; tests read it."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "one")
    rows = [
        f"{o},mlp,{t},{name},effective_lr,{o + t + i}"
        for o in (1, 4)
        for t in (0, 9)
        for i, name in enumerate("ab")
    ]
    (folder / "diagnostics.csv").write_text(
        "outer_step,task,inner_step,tensor,quantity,value\n" + "\n".join(rows)
    )
    write_run_page(folder)
    return folder


@pytest.fixture(scope="module")
def page(run) -> Page:
    return Page((run / "report.html").read_text())


def test_every_number_of_the_table_is_that_of_evaluation_json(run, page) -> None:
    rows = json.loads((run / "evaluation.json").read_text())
    table = page.table("optimizer")
    assert list(table) == ["unf", "sgdm", "adam"]
    for name, cells in table.items():
        own = [row for row in rows if row["optimizer"] == name]
        for heading, key, digits in (
            ("mean loss", "mean_loss", 4),
            ("final loss", "final_loss", 4),
            ("accuracy",) * 2 + (3,),
        ):
            mean, low, high = map(float, re.findall(r"[\d.]+", cells[heading]))
            values = [row[key] for row in own]
            assert mean == round(sum(values) / len(values), digits)
            assert min(values) - 1e-3 <= low < mean < high <= max(values) + 1e-3
        reached = [row["steps_to_target"] for row in own if row["steps_to_target"] is not None]
        assert cells["steps to target"].endswith(f"({len(reached)}/{NUM_SEEDS})")
        assert float(cells["ms/step"]) == pytest.approx(own[0]["ms_per_step"])
        assert cells["lr"] == (
            "-" if own[0]["learning_rate"] is None else f"{own[0]['learning_rate']:.3g}"
        )


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
    table = layers.layer_table(measured, "ratio")
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


def test_the_same_files_give_the_same_bytes(run) -> None:
    assert run_page(read_record(run)) == (run / "report.html").read_text()


def test_what_is_missing_is_said_and_the_rest_is_shown(run, tmp_path) -> None:
    old = shutil.copytree(run, tmp_path / "old")
    (old / "curves.csv").unlink()
    early = [
        {k: v for k, v in row.items() if k != "heldout"}
        for row in json.loads((old / "evaluation.json").read_text())
    ]
    (old / "evaluation.json").write_text(json.dumps(early))
    shown = Page(run_page(read_record(old)))
    assert "curves.csv is not there" in shown.text
    assert shown.tags.count("img") == 3
    assert list(shown.table("optimizer")) == ["unf", "sgdm", "adam"]
    (old / "evaluation.json").unlink()
    (old / "theta.safetensors").unlink()
    (old / ".hydra/config.yaml").unlink()
    stopped = Page(run_page(read_record(old)))
    for name in ("evaluation.json", "theta.safetensors", ".hydra/config.yaml"):
        assert f"{name} is not there" in stopped.text
    assert stopped.table("task")["old"]["outer steps"] == "5"
    assert "run folder" in stopped.table("fact")


def test_curves_come_back_as_they_were(run) -> None:
    curves = read_curves(run / "curves.csv")["mlp"]
    for name, entry in comparison("unf", 0.2).entries.items():
        assert curves[name].steps.tolist() == list(range(1, HORIZON + 1))
        np.testing.assert_allclose(curves[name].losses, entry.runs.losses.numpy(), rtol=1e-5)


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
    assert [math.isnan(own[3]) for own in plots.band(values, window=1)] == [False, True, True]
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
        ({"evaluation.json": "{"}, "evaluation.json is not valid JSON: "),
        (
            {"evaluation.json": '{"rows": 1}'},
            "evaluation.json is not ours: it must be a list of rows with ",
        ),
        ({"metrics.csv": "a,b\n1,2\n"}, "metrics.csv lacks the columns step."),
        (
            {"metrics.csv": "step\n1\n", "curves.csv": ""},
            "curves.csv is no table: No columns to parse from file",
        ),
        (
            {"metrics.csv": "step\n1\n", "diagnostics.csv": "a\n1\n"},
            "diagnostics.csv lacks the columns outer_step, ",
        ),
    ],
)
def test_a_folder_of_something_else_is_one_sentence(
    tmp_path, monkeypatch, capsys, files, message
) -> None:
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
    """In frames as wide as a phone and a desktop; a script measures what sticks out and counts what was fetched."""
    widths = (360, 1280)
    frames = "".join(
        f'<iframe src="report.html" style="width:{w}px;height:900px;border:0"></iframe>'
        for w in widths
    )
    measure = """onload = () => { document.title = [...document.querySelectorAll("iframe")].map(frame => {
        const page = frame.contentDocument, view = frame.contentWindow;
        const pictures = [...page.images].filter(i => i.complete && i.naturalWidth > 0).length;
        const entries = view.performance.getEntriesByType("resource").filter(e => !e.name.startsWith("data:"));
        return [view.innerWidth, page.documentElement.scrollWidth, pictures, entries.length].join() }).join(";") }"""
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
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    measured = re.findall(r"(\d+),(\d+),(\d+),(\d+)", found.split("</title>")[0])
    assert len(measured) == 2, found
    for width, own in zip(widths, measured, strict=True):
        screen, content, pictures, fetched = map(int, own)
        assert screen == width
        assert content <= width
        assert (pictures, fetched) == (4, 0)
