"""What people get wrong on a command line is one sentence and exit code 2."""

import pytest

from learned_opt.commands import train
from learned_opt.compose import config_files
from tasks.networks.mlp import MLP
from tests.cases import others_slow
from tests.commands.test_cli import TASKS, refused


class WrongSymmetry(MLP):
    """A network that calls its classes interchangeable."""

    def permutation_axes(self):
        axes, fixed = super().permutation_axes()
        return axes, fixed - {"output"}


class WrongAxes(MLP):
    """A network whose axis names do not fit its parameters."""

    def permutation_axes(self):
        axes, fixed = super().permutation_axes()
        return {**axes, "layers.0.weight": ("input", "hidden0")}, fixed


MISTAKES = [
    (
        ["+task=nope"],
        f"unknown task 'nope'; choose one of: {TASKS}.",
    ),
    (
        ["+task=mlp", "network=mpl"],
        f"unknown network 'mpl'; choose one of: {', '.join(config_files.options('network'))}. "
        "Did you mean 'mlp'?",
    ),
    (
        ["+task=mlp", "estimator.sgima=0.1"],
        "unknown key 'estimator.sgima'. Did you mean 'sigma'?",
    ),
    (["+task=mlp", "horizn=3"], "unknown key 'horizn'. Did you mean 'horizon'?"),
    (["+task=mlp", "estimator.sigma=-1.0"], "sigma must be positive, got -1.0."),
    (
        ["+task=mlp", "perturbation.factors={weight: 2}"],
        "factors[weight] names no tensor of theta, and no block of it ",
    ),
    (
        ["+task=mlp", "meta_loss.split=valid"],
        "task 'mlp' keeps no such data; set the task's valid_fraction above 0.",
    ),
    (
        ["+task=mlp", "estimator.sigma=big"],
        "estimator.sigma must be a finite number, got 'big'.",
    ),
    (["+task=mlp", "+meta_optimizer.widht=3"], "got an unexpected keyword argument 'widht'"),
    (["+task=mlp", "trainer.max_steps=0"], "max_steps must be at least 1, got 0."),
    (
        ["+task=mlp", "+benchmark.baselines.adam.widht=3"],
        "benchmark.baselines.adam: a value has the wrong type or a key is unknown: ",
    ),
    (["+task=mlp", "estimator=null"], "estimator takes the name of a file, got estimator=null"),
    (["+task=mix4", "augment=null"], "one of: reparam, or augment=[] for none"),
    (["+task=mlp", "trainer=1e3"], "trainer takes the name of a file, got trainer=1e3; one of"),
    (["+task=mlp", "data=[a,[b]]"], "data takes the name of a file, got data=[a,[b]]; one of"),
    (["+task=mlp", "~experiment=1"], "experiment takes the name of a file, got ~experiment=1"),
    (["+task=mlp", "data=a b"], "unknown data 'a b'; choose one of: arithmetic, cifar10"),
    (["+task=mlp", f"~seed={'x' * 2000}"], f"{'x' * 80}..."),
    (["+task=mlp", "--resolve"], "these words make no config: The --resolve flag can only be"),
    (
        ["+task=mlp", "-x"],
        "unrecognized arguments: -x; python -m learned_opt VERB --help shows",
    ),
    (["+task=mlp", "--cfg=x"], "argument --cfg/-c: invalid choice: 'x' (choose from"),
    (["+task=mlp", "+foo=1"], "nothing reads the new key 'foo', got +foo=1; leave it out."),
    (["+task=mlp", "seed=1,2"], "seed=1,2 has several values: add -m for a sweep over them"),
    (["+task=mlp", "+trainer.fast_dev_run=true"], "trainer.fast_dev_run cannot be set: it"),
    (["+task=mlp", "name=${nope}"], "Interpolation key 'nope' not found; look at name and"),
    (
        ["+task=mlp", "outer_optimizer.optimizer.lr=-1"],
        "outer_optimizer: Invalid learning rate: -1",
    ),
    (
        ["+task=mlp", "meta_optimizer.channels=-1"],
        "meta_optimizer: channels must be at least 1, got -1.",
    ),
    (["+experiment=unf_cnn_cifar", "task=cnn", "horizon=0"], "horizon must be from 1 to"),
    (["task=mlp", "--horizon=0"], "horizon must be from 1 to 1000000000, got 0."),
    (["+task=mlp", "network.hidden_sizes=[0]"], "hidden_sizes[0] must be at least 1, got 0."),
    (
        ["+task=mlp", "network._target_=tests.commands.test_mistakes.WrongAxes"],
        "axis 0 of 'layers.0.bias' is named 'hidden0'",
    ),
    (
        ["+task=mlp", "network._target_=tests.commands.test_mistakes.WrongSymmetry"],
        "wrong: output is no symmetry: permuting axis 0 of layers.1.weight, "
        "axis 0 of layers.1.bias changes",
    ),
    (
        ["+task=mlp", "checkpoint=nowhere.ckpt"],
        "checkpoint must be the file of one or a run folder that holds one, "
        "but there is none at nowhere.ckpt.",
    ),
]
# met by the same lines as one above
OF_A_KIND = [
    (["+task=mlp", "horizon=0"], "horizon must be from 1 to 1000000000, got 0."),
    (["+task=mlp", "device=tpu"], "device must be auto, cpu or cuda, got 'tpu'."),
    (["+task=mlp", "+network.widht=3"], "widht"),
    (["+experiment=unf_cnn_cifar", "+task=cnn", "horizon=0"], "horizon must be from 1 to"),
    (
        ["+task=mlp", "network=moe_mlp", "network.num_experts=0"],
        "num_experts must be at least 1, got 0.",
    ),
    (
        ["+task=mlp", "network=prefix_tree_mlp", "network.depth=-1"],
        "depth must not be negative, got -1.",
    ),
    (
        ["+task=mlp", "data=fashion_mnist", "data.root=."],
        "root: no parquet files in fashion_mnist or .",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), [*MISTAKES, *others_slow(OF_A_KIND, [])])
def test_bad_input_is_one_sentence_and_exit_code_2(
    monkeypatch, capsys, tmp_path, arguments, message
) -> None:
    assert message in refused(monkeypatch, capsys, tmp_path, train.main, *arguments)
