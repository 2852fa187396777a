"""Models that other people wrote, on tiny budgets: spec inferred and proved, two outer steps."""

import re

import pytest

from examples.other_peoples_models import run

TINY = run.Budget(
    steps=2, num_tasks=1, unroll_length=2, horizon=4, seeds=2, num_lrs=2, compile=False
)
NEEDED = {"resnet18": "transformers", "gpt2": "transformers"}
# symmetries that each must have, with the number of its free names
FREE = {
    "resnet18": 12,
    "lstm_text": 3,
    "transformer_encoder": 6,
    "gpt2": 7,
    "unet": 12,
    "gnn": 3,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", run.MODELS)
def test_spec_is_proved_and_two_outer_steps_run(name, capsys) -> None:
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    task = run.make_task(name, None)
    assert run.show_symmetry(task)
    shown = capsys.readouterr().out
    assert "proved: True, maximal: True" in shown
    free = re.search(r"^free: (.*)$", shown, re.MULTILINE)
    assert free is not None
    assert len(free[1].split(", ")) == FREE[name]

    history = run.meta_train(task, TINY).history
    assert history["step"].tolist() == [0, 1]
    assert history["meta_loss/train"].gt(0).all()


@pytest.mark.slow
def test_a_model_is_compared_with_tuned_adam(capsys) -> None:
    run.study("gnn", None, TINY)
    shown = capsys.readouterr().out
    assert shown.startswith("# gnn: 39 lines of the user's\n")
    for name in ("learned", "adam"):
        assert re.search(rf"^{name} +\d", shown, re.MULTILINE)


def test_a_training_ends_when_its_time_is_over() -> None:
    task = run.make_task("gnn", None)
    budget = run.Budget(seconds=0.0, num_tasks=1, unroll_length=2, horizon=4, compile=False)
    assert len(run.meta_train(task, budget).history) == 2
