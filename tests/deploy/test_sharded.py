"""Parameters that are spread over processes take the steps of one process."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from learned_opt.deploy.sharded import owners
from learned_opt.deploy.weight_space import Slot


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_processes_with_shards_equal_one_process(num_ranks, tmp_path) -> None:
    programs = []
    for rank in range(num_ranks):
        command = [sys.executable, "-m", "tests.deploy.sharded_program"]
        arguments = [*command, str(rank), str(num_ranks), str(tmp_path)]
        programs.append(subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True))
    for program in programs:
        _, errors = program.communicate(timeout=500)
        assert program.returncode == 0, errors[-3000:]


def test_whole_parameters_have_no_owner() -> None:
    assert owners([Slot("w", nn.Parameter(torch.zeros(2)), {})]) == {}
