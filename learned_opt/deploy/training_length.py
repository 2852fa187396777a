"""The length of the training, which some deployed optimizers must know."""

from learned_opt.optimizers.base import MetaOptimizer


def told(meta_optimizer: MetaOptimizer, num_steps: int | None) -> MetaOptimizer:
    """The optimizer for a training of that many steps.

    Args:
        meta_optimizer: any; those that do not read the length stay as they are.
        num_steps: steps of the training; None where the optimizer has been told.

    Raises:
        ValueError: it must know, and nobody says; or the number is below 1.
    """
    if num_steps is not None:
        return meta_optimizer.with_num_steps(num_steps)
    if meta_optimizer.needs_num_steps and meta_optimizer.num_steps is None:
        name = type(meta_optimizer).__name__
        raise ValueError(
            f"{name} schedules its steps over the whole training: give num_steps, the number of "
            "steps that it will take, got none."
        )
    return meta_optimizer
