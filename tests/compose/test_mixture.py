"""A mix of tasks: each has the config that it would have alone."""

import re

import pytest
from hydra.core.hydra_config import HydraConfig

from learned_opt.compose.mixture import task_configs
from learned_opt.core import errors
from tests.compose.test_configs import composed


def test_a_mix_gives_each_task_the_config_that_it_would_have_alone() -> None:
    words = [
        "+task=mix",
        "estimator=es",
        "horizon=30",
        "estimator.num_tasks=3",
        "mix.cnn.task.batch_size=7",
    ]
    words += [
        "+mix.rnn.horizon=20",
        "+task@mix.fashion=mlp",
        "data@mix.fashion.data=fashion_mnist",
        "~mix.mlp",
    ]
    cfg = composed(*words)
    groups = list(HydraConfig.get().runtime.choices)
    tasks = task_configs(cfg, words, groups)
    assert list(tasks) == ["cnn", "rnn", "fashion"]
    alone = composed("+task=cnn", "task.batch_size=7", "network.channels=[8,16]")
    assert tasks["cnn"].task == alone.task
    assert [c.task.data["_target_"].split(".")[-1] for c in tasks.values()] == [
        "digits",
        "docs_text",
        "images",
    ]
    assert [c.estimator.num_tasks for c in tasks.values()] == [3, 3, 3]  # the rnn's file says 8
    assert [c.benchmark.num_chains for c in tasks.values()] == [16, 16, 16]
    assert [c.horizon for c in tasks.values()] == [
        30,
        30,
        30,
    ]  # the command line speaks of all tasks
    assert [c.horizon for c in task_configs(cfg, words[-4:], groups).values()] == [30, 20, 30]
    assert (
        tasks["rnn"].estimator.unroll_length == 30
    )  # interpolations are those of the task's own config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["+task=mix", "~mix.mlp", "~mix.cnn", "~mix.rnn"],
            "mix must hold at least one task, got none.",
        ),
        (["+task=mix", "+mix.gru.horizon=3"], "mix.gru has no task; add +task@mix.gru=NAME"),
        (["+task=mlp", "+task@mix.cnn=cnn"], "there is one beside it, under task."),
    ],
)
def test_a_mix_that_is_none_is_refused(words, message) -> None:
    with pytest.raises(errors.UsageError, match=re.escape(message)):
        task_configs(composed(*words), words, [])


def test_an_entry_may_bring_another_estimator() -> None:
    cfg = composed("+task=mix", "+estimator@mix.rnn.estimator=bptt")
    tasks = task_configs(cfg, [], [])
    assert tasks["rnn"].estimator["_target_"] == "learned_opt.estimators.bptt.BPTT"
    assert "sigma" not in tasks["rnn"].estimator  # nothing of the other is left
    assert "sigma" in tasks["cnn"].estimator


def test_an_entry_that_refers_to_a_shared_node_changes_its_own_alone() -> None:
    cfg = composed("+task=mix", "+mix.rnn.estimator.meta_loss.reduction=final")
    tasks = task_configs(cfg, [], [])
    reductions = {name: task.estimator.meta_loss.reduction for name, task in tasks.items()}
    assert reductions == {"mlp": "mean", "cnn": "mean", "rnn": "final"}
