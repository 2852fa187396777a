"""The W&B dashboard as JSON in the library's own schema, and made on a stand-in for the server."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from pydantic import ValidationError

from learned_opt.commands import cli, dashboard
from learned_opt.evaluation.behaviour import QUANTITIES
from learned_opt.reporting import wandb_panels


def scope(**changes):
    settings = {
        "entity": "me",
        "project": "mine",
        "runs": ("Group", "sweep1"),
        "figures": dict.fromkeys(("mlp", "cnn"), ("mean_loss", "final_loss", "accuracy")),
        "baselines": ["sgdm"],
    }
    return wandb_panels.Scope(**{**settings, **changes})


def test_a_workspace_survives_the_librarys_schema() -> None:
    spec = json.loads(json.dumps(wandb_panels.dump(wandb_panels.workspace(scope()))))
    again = wandb_panels.load(spec)
    assert wandb_panels.dump(again) == spec
    assert [section.name for section in again.sections] == [
        "Meta-training",
        "Held-out comparison over tasks",
        "Layers: what the updates do",
        "System",
    ]
    spec["spec"]["section"]["panelBankConfig"]["sections"] = "none"
    with pytest.raises(ValidationError):
        wandb_panels.load(spec)


def test_a_workspace_shows_every_figure_over_outer_steps() -> None:
    text = json.dumps(wandb_panels.dump(wandb_panels.workspace(scope())))
    for key in (
        "meta_grad_norm",
        "meta_grad_snr",
        "nonfinite_pairs",
        "restarts",
        "inner_steps_per_second",
    ):
        assert f'"metrics": ["{key}"]' in text, key
    for key in ("^meta_loss/train", "^meta_loss/valid", *(f"^{name}/" for name in QUANTITIES)):
        assert f'"metricRegex": "{key}"' in text, key
    for figure in ("mean_loss", "final_loss", "accuracy"):
        for task in ("mlp", "cnn"):
            assert f'"{figure}/heldout/{task}", "{figure}/heldout/{task}/sgdm"' in text


def test_no_line_is_drawn_over_wandbs_own_step_which_starts_again_at_a_resume() -> None:
    bank = wandb_panels.dump(wandb_panels.workspace(scope()))["spec"]["section"]["panelBankConfig"]
    sections = bank["sections"][:4]
    lines = [
        p["config"]
        for s in sections
        for p in s["panels"]
        if p["viewType"] == "Run History Line Plot"
    ]
    assert len(lines) > 10
    assert {line["xAxis"] for line in lines} == {wandb_panels.STEP, "_runtime"}
    assert {section["localPanelSettings"]["xAxis"] for section in sections} == {wandb_panels.STEP}


def test_a_workspace_is_of_the_runs_of_its_scope() -> None:
    for runs, name in ((("Group", "sweep1"), "group"), (("ID", "abc"), "name")):
        spec = wandb_panels.dump(wandb_panels.workspace(scope(runs=runs)))
        filters = json.dumps(spec["spec"]["section"]["runSets"][0]["filters"])
        assert f'"name": "{name}"' in filters
        assert f'"value": "{runs[1]}"' in filters
    assert "sweep1" not in json.dumps(wandb_panels.dump(wandb_panels.workspace(scope(runs=None))))


@pytest.fixture
def sweep(tmp_path) -> Path:
    """The files of two finished runs that a dashboard reads."""
    for job in ("0", "1"):
        (tmp_path / "s1" / job / ".hydra").mkdir(parents=True)
        config = {"logger": {"wandb": {"project": "mine", "group": None}}}
        (tmp_path / "s1" / job / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
        (tmp_path / "s1" / job / "wandb_id.txt").write_text(f"id{job}\n")
        rows = []
        for optimizer, rate in (("unf", None), ("adam", 0.1)):
            row = {"task": f"t{job}", "optimizer": optimizer, "learning_rate": rate, "seed": 0}
            losses = {"mean_loss": 1.0, "final_loss": 1.0, "accuracy": 0.5, "ms_per_step": 1.0}
            rows.append(row | losses | {"horizon": 5, "steps_to_target": None, "heldout": {}})
        (tmp_path / "s1" / job / "evaluation.json").write_text(json.dumps(rows))
    return tmp_path / "s1"


def call(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["dashboard", *words])
    dashboard.main()


def test_without_an_account_the_spec_is_written_and_it_is_said_how_to_apply_it(
    sweep, monkeypatch, capsys
) -> None:
    call(monkeypatch, str(sweep))
    assert f"python -m learned_opt dashboard {sweep} --push" in capsys.readouterr().out
    text = (sweep / "dashboard.json").read_text()
    assert wandb_panels.load(json.loads(text)).project == "mine"
    assert all(f"accuracy/heldout/{key}" in text for key in ("t0", "t1/adam"))
    call(monkeypatch, str(sweep / "1"))
    assert '"value": "id1"' in (sweep / "1" / "dashboard.json").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give the folder of a sweep or of a run, or --project NAME."),
        (["{}", "--project", "p"], "give the folder of a sweep or of a run, or --project NAME."),
        (["{}"], "no run in {} was made with logger=wandb."),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, words, message) -> None:
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *(word.format(tmp_path) for word in words))
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"learned_opt: {message.format(tmp_path)}\n"


class Server(BaseHTTPRequestHandler):
    """Answers as W&B's server would; keeps what is put there."""

    saved: list[dict]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/graphql":
            request = json.loads(body)
            reply = json.dumps(
                {"data": self.answer(request["query"], request.get("variables") or {})}
            ).encode()
        else:
            reply = b"{}"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def answer(self, query: str, variables: dict) -> dict:
        if "upsertView" in query:
            self.saved.append(variables)
            project = {
                "id": "p1",
                "name": variables["projectName"],
                "entityName": variables["entityName"],
            }
            view = {
                "id": "Vmlldzox",
                "name": "v1",
                "displayName": variables["displayName"],
                "project": project,
            }
            view |= {
                "description": "",
                "spec": variables["spec"],
                "user": {"username": "me", "name": "Me"},
            }
            return {"upsertView": {"view": view, "inserted": True}}
        if re.search(r"\bviewer\b", query):
            viewer = {
                "id": "u1",
                "entity": "me",
                "username": "me",
                "flags": "{}",
                "teams": {"edges": []},
            }
            return {"viewer": viewer, "serverInfo": None}
        node = {
            "id": "p1",
            "name": "mine",
            "entityName": "me",
            "createdAt": "2026-11-23T00:00:00",
            "isBenchmark": False,
        }
        node["user"] = None
        edges = {
            "edges": [{"node": node, "cursor": "c"}],
            "pageInfo": {"endCursor": "c", "hasNextPage": False},
        }
        return {
            "project": node | {"internalId": "UHJvamVjdDox"},
            "models": edges,
            "projects": edges,
        }

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.saved = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.slow  # a process that loads torch and talks over sockets
def test_push_makes_the_workspace_and_the_report(sweep, server, tmp_path) -> None:
    environment = {
        "PYTHONPATH": str(Path(cli.__file__).parents[2]),
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    environment |= {"WANDB_BASE_URL": server, "WANDB_API_KEY": "a" * 40}
    command = [sys.executable, "-m", "learned_opt", "dashboard", str(sweep), "--push"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    workspace, report = Server.saved
    assert (workspace["entityName"], workspace["projectName"], workspace["type"]) == (
        "me",
        "mine",
        "project-view",
    )
    assert json.loads(workspace["spec"])["section"]["runSets"][0]["filters"] is not None
    assert report["type"] == "runs"
    grids = [
        block for block in json.loads(report["spec"])["blocks"] if block["type"] == "panel-grid"
    ]
    assert len(grids) == 4
    assert all("s1" in json.dumps(grid["metadata"]["runSets"][0]["filters"]) for grid in grids)
    assert re.search(r"workspace: http.*/me/mine\?nw=", done.stdout)
    assert re.search(r"report: http.*/me/mine/reports/", done.stdout)
