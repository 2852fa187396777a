"""A tiny GPT-2 of Hugging Face's transformers, from a config: nothing is downloaded."""

from functools import partial

from transformers import GPT2Config, GPT2LMHeadModel

from examples.other_peoples_models.data import VOCABULARY, windows
from tasks import ModuleTask
from tasks.module_losses import next_token_cross_entropy

LENGTH = 16


def make_task(root: str | None = None) -> ModuleTask:
    """Prediction of the next byte.

    Args:
        root: folder of real data, see ``data``.
    """
    config = GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=32,
        n_positions=LENGTH,
        vocab_size=VOCABULARY,
        bos_token_id=0,
        eos_token_id=0,
    )
    train, test = windows(root, LENGTH)
    return ModuleTask(
        partial(GPT2LMHeadModel, config),
        next_token_cross_entropy,
        train,
        test=test,
        output="logits",
        batch_size=16,
        name="gpt2",
    )
