"""A task of a user's own that raises in the middle of a run: nothing before it is lost."""

from functools import partial

import pytest
from typing_extensions import override

from learned_opt.api.meta_train import meta_train
from learned_opt.estimators.pes import PES
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.unf.layers import Pointwise
from tasks.quadratic import Quadratic

DEEP_SET = partial(UNFOptimizer, head=Pointwise, channels=4)
PES_OF_TWO = partial(PES, num_tasks=2, unroll_length=2, sigma=0.03)
MANY = 10**6


class Broken(Quadratic):
    """A task whose data end after some batches."""

    def __init__(self) -> None:
        super().__init__()
        self.left = MANY

    @override
    def batch(self, generator, task, split="train"):
        self.left -= 1
        if self.left < 0:
            raise LookupError("row 17 is damaged")
        return super().batch(generator, task, split)


def run(task, folder):
    settings = {"horizon": 4, "compile": False, "progress": False, "validate_every": None}
    return meta_train(task, DEEP_SET, PES_OF_TWO, 6, folder=folder, **settings)


def test_the_steps_before_are_kept_and_the_run_goes_on_to_the_same_end(tmp_path) -> None:
    task = Broken()
    whole = run(task, tmp_path / "whole")
    task.left = (MANY - task.left) // 2  # of the batches that the whole run has drawn
    with pytest.raises(LookupError, match="row 17 is damaged") as raised:
        run(task, tmp_path / "broken")
    (note,) = raised.value.__notes__
    step = len(list((tmp_path / "broken/checkpoints").glob("*.ckpt")))
    assert step == 1
    assert "are kept" in note

    task.left = MANY
    mended = run(task, tmp_path / "broken")
    assert mended.history["step"].tolist() == list(range(6))
    for name, tensor in whole.theta.items():
        assert tensor.equal(mended.theta[name]), name
