"""A secret that a command hands over as ``${oc.env:NAME}`` reaches the code and no file."""

import json
import sys
from pathlib import Path

import lightning
from lightning.pytorch.loggers import CSVLogger
from typing_extensions import override

from learned_opt.commands import train
from tasks.data import embedded
from tests.commands.test_cli import TINY

SECRET = "hf_" + "0123456789"[::-1]  # so that this file, which a patch may hold, is no finding
SEEN: list[str] = []
LOGGED: list[object] = []


def private_digits(token: str, **settings: float) -> object:
    """A data set behind a token."""
    SEEN.append(token)
    return embedded.digits(**settings)


class Notifier(lightning.Callback):
    """A callback that needs a token."""

    def __init__(self, token: str) -> None:
        SEEN.append(token)


class Logger(CSVLogger):
    """Keeps the config that it is told."""

    @override
    def log_hyperparams(self, params: object = None) -> None:
        LOGGED.append(params)


def test_a_secret_reaches_the_code_and_no_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LO_TOKEN", SECRET)
    monkeypatch.setattr(train, "compare", lambda *_: None)
    token = "${oc.env:LO_TOKEN}"
    words = [
        *("+task=mlp", *TINY, "trainer.max_steps=1", "meta_optimizer=sgdm", "hydra.run.dir=run"),
        *(f"data._target_={__name__}.private_digits", f"+data.token={token}"),
        f'+callbacks.mine={{_target_:{__name__}.Notifier,token:"{token}"}}',
        f"+logger.mine={{_target_:{__name__}.Logger,name:x}}",
    ]
    monkeypatch.setattr(sys, "argv", ["learned_opt", *words])
    train.main()

    assert set(SEEN) == {SECRET}
    assert SECRET not in json.dumps(LOGGED, default=str)
    assert token in json.dumps(LOGGED, default=str)

    naming = set()
    for path in Path("run").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert SECRET.encode() not in content, path
        if token.encode() in content:
            naming.add(path.name)
    assert naming >= {"job.json", "theta.json", "identity.yaml", "config.yaml", "overrides.yaml"}
