"""Contract tables: one row puts a network, family, optimizer or estimator through all tests."""

from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.control_variate import ControlVariate
from learned_opt.estimators.es import ES
from learned_opt.estimators.guided_es import GuidedES
from learned_opt.estimators.inverse_variance import InverseVariance
from learned_opt.estimators.nres import NRES
from learned_opt.estimators.pes import PES
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.optimizers.adafactor_features import AdafactorFeatures
from learned_opt.optimizers.celo import Celo
from learned_opt.optimizers.celo2 import Celo2
from learned_opt.optimizers.celo_adam import CeloAdam
from learned_opt.optimizers.controller import AdamController
from learned_opt.optimizers.gradmetanet import GradMetaNet
from learned_opt.optimizers.hand.adafactor import Adafactor
from learned_opt.optimizers.hand.adagrad import Adagrad, RMSProp
from learned_opt.optimizers.hand.adam import NAdam, RAdam
from learned_opt.optimizers.hand.hand_designed import HandDesigned
from learned_opt.optimizers.hand.lion import Lion
from learned_opt.optimizers.hand.matrix import Muon, Shampoo
from learned_opt.optimizers.hand.references import make_adam, make_sgdm
from learned_opt.optimizers.hand.schedule_free import ScheduleFreeAdamW
from learned_opt.optimizers.hand.sgd import SGD, Momentum
from learned_opt.optimizers.hand.soap import SOAP
from learned_opt.optimizers.hand.trust_ratio import TrustRatio
from learned_opt.optimizers.lstm import LSTMOptimizer
from learned_opt.optimizers.mlp import MLPOptimizer
from learned_opt.optimizers.neuron_moments import NeuronMoments
from learned_opt.optimizers.nominal import Relative
from learned_opt.optimizers.nowcast.networks import EntryNetwork
from learned_opt.optimizers.nowcast.optimizer import Nowcast
from learned_opt.optimizers.schedule import Cosine
from learned_opt.optimizers.second_moments import SecondMoments
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.optimizers.velo import VeLO
from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import NFNLinear, Pointwise, PointwiseUNFLinear, TypeTied, UNFLinear
from tasks.arithmetic import Arithmetic
from tasks.base import TaskFamily
from tasks.data.arithmetic import arithmetic
from tasks.data.images import LabelledImages
from tasks.data.text import TokenText
from tasks.language import NextToken
from tasks.module import ModuleTask
from tasks.networks.autoencoder import Autoencoder, VariationalAutoencoder
from tasks.networks.cnn import CNN
from tasks.networks.looped_relu import LoopedMLP, NoisySubleq
from tasks.networks.mlp import MLP
from tasks.networks.moe import MoEMLP
from tasks.networks.prefix_tree import PrefixTreeMLP
from tasks.networks.quadratic import QuadraticConv2d, QuadraticLinear
from tasks.networks.recurrent import GRUCell, LSTMCell, RecurrentNetwork, RNNCell
from tasks.networks.resnet import ResNet
from tasks.networks.seq2seq import Seq2Seq
from tasks.networks.transformer import Transformer
from tasks.networks.two_views import TwoViews
from tasks.networks.vision_transformer import VisionTransformer
from tasks.quadratic import Quadratic
from tasks.regression import regression
from tasks.reparam import Reparametrised
from tasks.subleq.task import SubleqStep, subleq_steps
from tasks.supervised import Classification
from tasks.unsupervised import unsupervised
from tasks.unsupervised_losses import (
    InfoNCE,
    kl_divergence,
    negative_elbo,
    pair_accuracy,
    reconstruction,
)


def images(shape: tuple[int, ...] = (1, 4, 4), num_classes: int = 3) -> LabelledImages:
    """Forty images of pure noise; the classes are random."""
    source = torch.Generator().manual_seed(0)
    pixels = torch.rand(40, *shape, generator=source)
    labels = torch.randint(num_classes, (40,), generator=source)
    return LabelledImages("noise", pixels[:30], labels[:30], pixels[30:], labels[30:], num_classes)


NETWORKS = {
    "mlp": partial(MLP, hidden_sizes=(5,)),
    "mlp_deep": partial(MLP, hidden_sizes=(5, 4, 5)),
    "cnn": partial(CNN, channels=(4, 5)),
    "cnn_norm": partial(CNN, channels=(4, 5), norm=True),
    "resnet": partial(ResNet, channels=(4,), groups=2),
    "cnn_flatten": partial(CNN, channels=(4,), strides=(2,), pool="flatten"),
    "prefix_tree_mlp": partial(PrefixTreeMLP, hidden_sizes=(5,), depth=2, rank=2),
    "moe_mlp": partial(MoEMLP, num_experts=3, width=4),
    "quadratic_mlp": partial(MLP, hidden_sizes=(5,), layer=QuadraticLinear),
    "quadratic_cnn": partial(
        CNN, channels=(4,), strides=(2,), layer=partial(QuadraticConv2d, recompute=1)
    ),
    "vision_transformer": partial(
        VisionTransformer, width=6, num_blocks=1, num_heads=2, head_size=3, mlp_size=5
    ),
    "looped_mlp": partial(LoopedMLP, width=6, hidden_sizes=(5,)),
}

HAND_WRITTEN = [
    name for name, make in NETWORKS.items() if make((2, 4, 4), 3).permutation_axes() is not None
]

SEQUENCE_NETWORKS = {
    "irnn": partial(RecurrentNetwork, cell=RNNCell, embed_size=3, hidden_size=4),
    "vanilla_rnn": partial(
        RecurrentNetwork, cell=partial(RNNCell, identity=False), embed_size=3, hidden_size=4
    ),
    "gru": partial(RecurrentNetwork, cell=GRUCell, embed_size=3, hidden_size=4),
    "lstm": partial(RecurrentNetwork, cell=LSTMCell, embed_size=3, hidden_size=4),
    "gru_tied": partial(RecurrentNetwork, cell=GRUCell, embed_size=3, hidden_size=4, tied=True),
    "transformer": partial(
        Transformer, width=6, num_blocks=1, num_heads=2, head_size=3, mlp_size=5
    ),
}


def tokens() -> TokenText:
    """Two hundred tokens of noise, five different ones."""
    drawn = torch.randint(5, (200,), generator=torch.Generator().manual_seed(0))
    return TokenText("noise", drawn[:150], drawn[150:], vocab_size=5)


class FourMethods(TaskFamily):
    """A family of a user's: a small regression with the four methods of the contract alone."""

    def sample(self, generator):
        return {"target": torch.randn(3, generator=generator)}

    def init(self, generator, task):
        hidden = torch.randn(4, 3, generator=generator)
        return {"hidden": hidden, "output": torch.randn(4, generator=generator)}

    def batch(self, generator, task, split="train"):
        return {"inputs": torch.randn(5, 3, generator=generator)}

    def loss(self, params, batch, task):
        inputs = batch["inputs"]  # (B, 3)
        outputs = (inputs @ params["hidden"].T).tanh() @ params["output"]
        return (outputs - inputs @ task["target"]).square().mean()


def classification(network) -> Classification:
    return Classification("noise", network, images((2, 4, 4)), batch_size=7)


def without_classes(network, loss, **settings) -> ModuleTask:
    return unsupervised("noise", network, images(), loss, batch_size=7, **settings)


def table() -> dict[str, torch.Tensor]:
    """Forty rows of noise in units of their own."""
    source = torch.Generator().manual_seed(0)
    names = ("age", "height", "pulse", "weight")
    return {name: 9 + 5 * torch.randn(40, generator=source) for name in names}


def next_token(network) -> NextToken:
    return NextToken("noise", network, tokens(), length=4, batch_size=3)


FAMILIES = {
    **{name: partial(next_token, network) for name, network in SEQUENCE_NETWORKS.items()},
    "arithmetic": lambda: Arithmetic(
        "noise",
        partial(Seq2Seq, cell=GRUCell, hidden_size=4),
        arithmetic(2, num_train=30, num_test=20),
        batch_size=7,
    ),
    "autoencoder": lambda: without_classes(
        partial(Autoencoder, hidden_size=5, code_size=3), functional.mse_loss
    ),
    "contrastive": lambda: without_classes(
        partial(TwoViews, encoder=partial(MLP, hidden_sizes=(5,)), embed_size=3),
        InfoNCE(),
        figures={"accuracy": pair_accuracy},
    ),
    "four_methods": FourMethods,
    "module": lambda: ModuleTask(
        nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.Dropout(0.2), nn.Linear(5, 3)),
        functional.cross_entropy,
        images((2, 4, 4)),
        batch_size=7,
        name="noise",
    ),
    "quadratic": lambda: Quadratic(dim=6, noise=0.1),
    "regression": lambda: regression(
        "noise", partial(MLP, hidden_sizes=(5,)), table(), targets=["pulse", "weight"], batch_size=7
    ),
    "reparametrised": lambda: Reparametrised(FAMILIES["mlp"](), "tensor", 0.5, 2.0),
    "subleq_repair": lambda: SubleqStep(
        "subleq",
        partial(NoisySubleq, num_words=4, word_bits=2, noise=0.02, compact=True),
        subleq_steps(4, 2, num_train=200, num_test=50, num_runs=4, run_length=8),
        batch_size=50,
    ),
    "vae": lambda: without_classes(
        partial(VariationalAutoencoder, hidden_size=5, code_size=3),
        negative_elbo,
        figures={"reconstruction": reconstruction, "kl_divergence": kl_divergence},
    ),
    **{name: partial(classification, network) for name, network in NETWORKS.items()},
}

HAND_DESIGNED = {
    "sgdm": make_sgdm,
    "adam": make_adam,
    "sgd": partial(HandDesigned, rule=SGD, lr=0.1, schedule=Cosine(50)),
    "nesterov": partial(HandDesigned, rule=partial(Momentum, nesterov=True), lr=0.1),
    "rmsprop": partial(HandDesigned, rule=RMSProp, lr=0.01),
    "adagrad": partial(HandDesigned, rule=Adagrad, lr=0.01),
    "nadamw": partial(HandDesigned, rule=NAdam, lr=0.01, weight_decay=0.1),
    "radam": partial(HandDesigned, rule=RAdam, lr=0.01),
    "adafactor": partial(HandDesigned, rule=Adafactor, lr=0.01),
    "lion": partial(HandDesigned, rule=Lion, lr=0.01, weight_decay=0.1),
    "lamb": partial(HandDesigned, rule=TrustRatio, lr=0.01),
    "muon": partial(HandDesigned, rule=Muon, lr=0.01),
    "schedule_free_adamw": partial(HandDesigned, rule=ScheduleFreeAdamW, lr=0.01),
    "shampoo": partial(HandDesigned, rule=partial(Shampoo, eps=0.1), lr=0.01),
    # eps damps directions without a gradient (the sum of all logits), where rounding would decide
    "soap": partial(HandDesigned, rule=partial(SOAP, eps=1e-2, largest=3), lr=0.01),
}
OPTIMIZERS = {
    **HAND_DESIGNED,
    "mlp": partial(MLPOptimizer, hidden_size=6, step_mult=0.1, exp_mult=0.1),
    "adafactor_mlp": partial(
        MLPOptimizer, features=AdafactorFeatures, hidden_size=6, step_mult=0.1, exp_mult=0.1
    ),
    "lstm": partial(LSTMOptimizer, hidden_size=3, step_mult=0.1),
    "adam_controller": partial(AdamController, hidden_size=4, output_scale=0.1),
    "celo": partial(Celo, num_steps=20, lstm_size=5, step_mult=0.1, exp_mult=0.1),
    "celo_adam": partial(CeloAdam, num_steps=20, lstm_size=5, lr=0.01),
    "celo2": partial(Celo2, lr=0.01),
    "celo2_base": partial(Celo2, lr=0.01, vectors=None, orthogonal=False),
    "velo": partial(
        VeLO, num_steps=20, lstm_size=5, bank_size=3, step_mult=0.1, exp_mult=0.1, bank_mult=3.0
    ),
    # what a prediction has moved is seen by the decay of the other optimizer
    "nowcast": partial(
        Nowcast,
        base=partial(HandDesigned, rule=NAdam, lr=0.01, weight_decay=0.1),
        network=partial(EntryNetwork, 4),
        period=5,
        num_steps=20,
    ),
    "deep_set": partial(UNFOptimizer, head=Pointwise, channels=6, beta=0.1),
    "unf": partial(UNFOptimizer, channels=6, beta=0.1),
    "unf_channel": partial(UNFOptimizer, channels=6, beta=0.1, normalisation="channel"),
    "unf_all": partial(UNFOptimizer, trunk=UNFLinear, channels=4, num_layers=3, beta=0.1),
    "unf_fold": partial(UNFOptimizer, channels=4, beta=0.1, fixed_axes="fold"),
    "unf_encode": partial(UNFOptimizer, channels=6, beta=0.1, fixed_axes="encode"),
    "unf_shared": partial(UNFOptimizer, head=PointwiseUNFLinear, channels=6, beta=0.1),
    "unf_tied": partial(
        UNFOptimizer,
        head=partial(PointwiseUNFLinear, equivariant=TypeTied),
        channels=6,
        beta=0.1,
        nominal=Relative,
    ),
    "unf_muon": partial(
        UNFOptimizer,
        head=PointwiseUNFLinear,
        channels=6,
        beta=0.1,
        nominal=partial(Relative, orthogonal=True),
    ),
    "nfn": partial(UNFOptimizer, head=NFNLinear, channels=6, beta=0.1),
    "unf_second_moments": partial(
        UNFOptimizer,
        head=PointwiseUNFLinear,
        channels=6,
        beta=0.1,
        extra_features={"second_moments": SecondMoments},
    ),
    "mlp_second_moments": partial(
        MLPOptimizer,
        hidden_size=6,
        step_mult=0.1,
        exp_mult=0.1,
        extra_features={"second_moments": partial(SecondMoments, factored=True)},
    ),
}
# read the gradients of single examples, which the inner loop hands to them, or hooks on a module
READS_EXAMPLES = {
    "unf_gradient_set": partial(
        UNFOptimizer,
        head=PointwiseUNFLinear,
        channels=6,
        beta=0.1,
        extra_features={
            "examples": partial(SecondMoments, squares="examples"),
            "errors": partial(SecondMoments, squares="errors"),
            "moments": NeuronMoments,
        },
    ),
    "deep_set_gradmetanet": partial(
        UNFOptimizer,
        head=Pointwise,
        channels=6,
        beta=0.1,
        extra_features={"gradmetanet": partial(GradMetaNet, width=4)},
    ),
    "mlp_gradmetanet": partial(
        MLPOptimizer,
        features=partial(GradMetaNet, width=4, num_examples=3),
        hidden_size=6,
        step_mult=0.1,
        exp_mult=0.1,
    ),
}
# not equivariant to permutations of (some) fixed axes
TELLS_POSITIONS_APART = {"unf_fold", "unf_encode", "nfn"}
# see no network, only tensors
POINTWISE = {
    *HAND_DESIGNED,
    "mlp",
    "adafactor_mlp",
    "mlp_second_moments",
    "lstm",
    "adam_controller",
    "celo",
    "celo_adam",
    "celo2",
    "celo2_base",
    "velo",
    "nowcast",
}
# theta of these moves to any weight space, that of the others belongs to one
FITS_EVERY_SPEC = {*POINTWISE, "deep_set", "unf_tied"}
CHAINS_ONLY = {"nfn"}
CHAINS = {"mlp", "mlp_deep", "cnn", "cnn_flatten"}
# a sign, or a read-out that is zero at the start, hides these parts of theta
SCHEDULER = {
    f"scheduler.{name}"
    for name in (
        "start",
        "direct.weight",
        "direct.bias",
        "pooled.weight",
        "pooled.bias",
        "cell.weight",
        "cell.bias",
    )
}
NOT_DIFFERENTIABLE = {
    "lion": {"rule.logit_beta1", "rule.logit_beta2"},
    "adam_controller": {"cell.weight", "cell.bias"},
    "celo": SCHEDULER,
    "celo_adam": SCHEDULER,
}
# gradients of key biases are zero but for rounding, which relative steps bring to full size,
# see docs/log/inner-loop.md#zero-gradients-and-features-at-full-size
ROUNDING_DECIDES = {
    ("vision_transformer", optimizer)
    for optimizer in ("unf_tied", "unf_muon", "unf_second_moments")
}
# weight spaces of layers that other families have with every optimizer
LIKE_OTHERS = {"autoencoder", "contrastive", "gru_tied", "regression", "vae"}
PAIRS = [
    (family, optimizer)
    for optimizer in OPTIMIZERS
    for family in FAMILIES
    if (optimizer not in CHAINS_ONLY or family in CHAINS)
    and (optimizer not in POINTWISE or family in ("cnn", "quadratic"))
    and (family not in LIKE_OTHERS or optimizer == "unf")
    and (family, optimizer) not in ROUNDING_DECIDES
]
# one of each kind of layer; key biases of attention have gradients that are zero but for rounding
READ_BY_EXAMPLES = ("mlp", "cnn_norm", "quadratic", "prefix_tree_mlp", "lstm", "gru_tied")
PAIRS += [(family, optimizer) for optimizer in READS_EXAMPLES for family in READ_BY_EXAMPLES]
# every family and every optimizer once, which is what runs by default; the other pairs are slow
PAIRS_ONCE = {(family, "unf") for family in FAMILIES}
PAIRS_ONCE |= {("quadratic" if name in POINTWISE else "mlp", name) for name in OPTIMIZERS}
PAIRS_ONCE |= {("mlp", name) for name in READS_EXAMPLES}


def others_slow(cases: Iterable[Any], by_default: Collection[Any]) -> list[Any]:
    """Rows of ``parametrize`` of which all but some are slow.

    Args:
        cases: all rows, each a value or a tuple of values.
        by_default: those that run by default.
    """
    rows = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marks = () if case in by_default else pytest.mark.slow
        rows.append(pytest.param(*values, marks=marks))
    return rows


def spec_of(family: TaskFamily) -> PermutationSpec:
    """The family's own spec, or the one inferred from its loss."""
    return symmetry_of(family)[1]


SIZES = {"h": 4, "o": 2, "p": 3}


def spec_tensors(
    spec: PermutationSpec, channels: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict:
    """Random tensors ``(*shape, channels)`` that fit a spec; names not in SIZES get 3."""
    source = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, axes in spec.axes.items():
        shape = [SIZES.get(axis, 3) for axis in axes]
        tensors[name] = torch.randn(*shape, channels, generator=source, dtype=dtype)
    return tensors


# made-up weight spaces with repeated names, diagonals and ranks 0 to 4, and those of networks
UNMEASURED_SPECS = {
    "vector": PermutationSpec({"b": ("h",)}),
    "square": PermutationSpec({"w": ("h", "h"), "b": ("h",)}),
    "rank3": PermutationSpec({"w": ("h", "h", "o"), "v": ("o", "h"), "s": ()}, fixed={"o"}),
    "rank4": PermutationSpec({"w": ("h", "o", "h", "p"), "v": ("p", "o")}),
    "cube": PermutationSpec({"w": ("h", "h", "h"), "b": ("h",)}),
    "mlp": PermutationSpec(*MLP((3,), 4, (5,)).permutation_axes()),
    "cnn": PermutationSpec(*CNN((2, 4, 4), 3, (4,), (1,)).permutation_axes()),
}
SPECS = {name: spec.measure(spec_tensors(spec, 1)) for name, spec in UNMEASURED_SPECS.items()}


class AnyBPTT(BPTT):
    """BPTT with the settings of the others, of which it leaves sigma out."""

    def __init__(self, unroll, truncation, num_tasks, unroll_length, sigma=0.0, **settings) -> None:
        super().__init__(unroll, truncation, num_tasks, unroll_length, **settings)


# constructors ``(unroll, truncation, num_tasks, unroll_length, sigma)``
ESTIMATORS = {
    "es": ES,
    "pes": PES,
    "nres": NRES,
    "gpes": partial(NRES, noise_period=2),
    "es_control": partial(ES, control=ControlVariate()),
    "pes_control": partial(PES, control=ControlVariate()),
    "nres_control": partial(NRES, control=ControlVariate()),
    "pes_a": partial(PES, control=ControlVariate(coefficient=1.0)),
    "guided_es": partial(GuidedES, num_guides=2),
    "inverse_variance": InverseVariance,
    "bptt": AnyBPTT,
}
PERTURBED = {name: kind for name, kind in ESTIMATORS.items() if name != "bptt"}
# perturbed ones that take a gradient, too, so that an unroll must have two inner steps
WITH_GRADIENTS = (
    "es_control",
    "pes_control",
    "nres_control",
    "pes_a",
    "guided_es",
    "inverse_variance",
)
# what one task counts as depends on what the others have measured
WEIGHED_TOGETHER = {"es_control", "pes_control", "nres_control", "inverse_variance"}
