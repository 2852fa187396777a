"""``+debug=quick`` and ``+debug=profile`` on every task."""

import pytest

from learned_opt.compose import config_files, hydra_job
from learned_opt.compose.mixture import task_configs
from learned_opt.compose.resolve import tasks_of
from tests.cases import others_slow
from tests.compose.test_configs import check_nodes, final

TASKS_ONCE = ("mlp", "rnn", "mix")  # of images, of text, and several


@pytest.mark.parametrize("task", others_slow(config_files.options("task"), TASKS_ONCE))
def test_debug_values_are_those_of_every_task(task) -> None:
    cfg = final(f"+task={task}", "+debug=quick")
    assert cfg.trainer.max_steps == 4
    for task_config in tasks_of(cfg).values():
        check_nodes(task_config)
        assert (task_config.horizon, task_config.estimator.num_tasks) == (8, 2)
        assert task_config.benchmark.num_seeds == 2
        assert task_config.benchmark.archive is None


def test_words_of_the_command_line_win_over_debug_values() -> None:
    cfg = final("+task=mix", "+debug=quick", "estimator.num_tasks=6")
    assert hydra_job.choice("debug") == "quick"
    assert {task.estimator.num_tasks for task in tasks_of(cfg).values()} == {6}
    # without the debug file a task of the mix has its own sizes
    alone = task_configs(final("+task=mix"), [], [])
    assert alone["rnn"].benchmark.num_chains != 2


def test_a_profile_has_the_callbacks_of_a_run_and_compares_nothing() -> None:
    cfg = final("+task=rnn", "+debug=profile")
    check_nodes(cfg)
    assert list(cfg.callbacks)[-1] == "profile"
    assert {"checkpoints", "progress"} < set(cfg.callbacks)
    assert not cfg.benchmark.compares
