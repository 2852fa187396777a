"""Words that Hydra would take without a reader, or answer with something else than what helps."""

import sys

import pytest

from learned_opt.commands.words import check_words
from learned_opt.core.errors import UsageError


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ckpt=run"], "ckpt is now called checkpoint; write checkpoint=run."),
        (["checkpoints={a: b}"], "checkpoints is now called theta; write theta={a: b}."),
        (["+checkpoints.a=b"], "checkpoints is now called theta; write +theta.a=b."),
        (
            ["+task=mlp", "+task=cnn"],
            "a run has one task, got +task=mlp +task=cnn; leave one out, or write -m "
            "+task=mlp,cnn for a sweep over them.",
        ),
        (["+foo=1"], "nothing reads the new key 'foo', got +foo=1; leave it out."),
    ],
)
def test_each_is_one_sentence(words, sentence) -> None:
    with pytest.raises(UsageError) as error:
        check_words(words)
    assert str(error.value) == sentence


def test_a_key_that_a_config_of_the_user_has_is_read(tmp_path, monkeypatch) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("extra: 1\ntask:\n  width: ${factor}\n")
    monkeypatch.setattr(sys, "argv", ["learned_opt", f"--config-dir={tmp_path}"])
    check_words(["+extra=2", "+factor=3"])
    with pytest.raises(UsageError, match="nothing reads the new key 'other'"):
        check_words(["+other=2"])
