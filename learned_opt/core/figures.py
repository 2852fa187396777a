"""Every figure that a run reports: its name in files, its label for people, unit and direction.

Terminal, HTML, Markdown and W&B take the words from here: one figure reads alike everywhere.
"""

from typing import NamedTuple


class Figure(NamedTuple):
    """One figure.

    Args:
        name: key in rows, files and metrics.
        label: its heading.
        unit: of its values; empty for a pure number.
        better: ``lower`` or ``higher``; empty where neither is better.
        digits: decimal places in tables.
        logarithmic: whether pictures may use a logarithmic axis.
    """

    name: str
    label: str
    unit: str = ""
    better: str = ""
    digits: int = 4
    logarithmic: bool = False

    @property
    def with_unit(self) -> str:
        """The label with the unit behind it, for axes and headings.

        >>> Figure("seconds_to_target", "time to target", "s").with_unit
        'time to target, s'
        """
        return f"{self.label}, {self.unit}" if self.unit else self.label


# of one run on a held-out seed, and of an optimizer over the seeds
HELDOUT = (
    Figure("mean_loss", "mean loss", better="lower"),
    Figure("final_loss", "final loss", better="lower"),
    Figure("final_loss_iqm", "IQM", better="lower"),
    Figure("min_loss", "min loss", better="lower"),
    Figure("initial_loss", "initial loss"),
    Figure("accuracy", "accuracy", better="higher", digits=3),
    Figure("test_loss", "test loss", better="lower"),
    Figure("steps_to_target", "steps to target", better="lower", digits=0),
    Figure(
        "steps_to_test_loss", "steps to the reference's best test loss", better="lower", digits=0
    ),
    Figure("test_speedup", "speed-up to best test loss", better="higher", digits=2),
    Figure("target_test_loss", "best test loss of the reference", better="lower"),
    Figure("seconds_to_target", "seconds to target", better="lower", digits=3),
    Figure("step_score", "score over steps", better="higher", digits=3),
    Figure("time_score", "score over wall-clock", better="higher", digits=3),
    Figure("speedup", "speed-up", better="higher", digits=2),
    Figure("time_speedup", "wall-clock speed-up", better="higher", digits=2),
    Figure("loss_ratio", "loss ratio", better="lower", digits=2),
    Figure("ms_per_step", "ms/step", better="lower", digits=3),
    Figure("diverged", "diverged", better="lower", digits=0),
    Figure("learning_rate", "lr"),
)

# of meta-training, over outer steps
OUTER = (
    Figure("meta_loss/train", "meta-loss, training", better="lower"),
    Figure("meta_loss/valid", "meta-loss of theta itself, validation seeds", better="lower"),
    Figure("final_loss/valid", "final loss, validation seeds", better="lower"),
    Figure("meta_grad_norm", "norm of the meta-gradient", logarithmic=True),
    Figure("meta_grad_snr", "signal to noise of one estimate", better="higher"),
    Figure("control_rho", "correlation of gradients with loss differences", better="higher"),
    Figure("backpropagation_weight", "weight of backpropagation beside ES"),
    Figure("nonfinite_pairs", "tasks left out, not finite", better="lower", digits=0),
    Figure("restarts", "restarts", digits=0),
    Figure("inner_steps_per_second", "inner steps per second", better="higher", digits=0),
    Figure("peak_memory/process", "peak memory of the process", "MiB", "lower"),
    Figure("peak_memory/cuda", "peak memory of the GPU", "MiB", "lower"),
)

# of what the updates do to one inner tensor, over inner steps
UPDATES = (
    Figure("update_to_weight", "norm of update / norm of weight", logarithmic=True),
    Figure("effective_lr", "effective learning rate", logarithmic=True),
    Figure("cosine_sgd", "cosine of the update to SGD's"),
    Figure("cosine_momentum", "cosine of the update to momentum's"),
    Figure("cosine_adam", "cosine of the update to Adam's"),
)

FIGURES = {figure.name: figure for figure in (*HELDOUT, *OUTER, *UPDATES)}


def figure(name: str) -> Figure:
    """The figure of a name; one that a task of a user's own reports is called as it is named.

    >>> figure("steps_to_target").label
    'steps to target'
    >>> figure("bits_per_byte").label
    'bits per byte'
    """
    return FIGURES.get(name) or Figure(name, name.replace("_", " "))
