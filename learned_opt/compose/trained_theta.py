"""The values of ``theta`` and ``checkpoint``, two things with one word each, in every verb.

``theta`` is a trained one, which any verb may read that takes it; ``checkpoint`` is the state of a
training, from which only a training goes on.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from learned_opt.core.errors import UsageError

CHOICES = "a packaged name, run folder, file or hub id"


def single(cfg: DictConfig) -> str | None:
    """The one theta that a verb starts from or measures at; None for a fresh one.

    Raises:
        UsageError: there are several, or it is no text.
    """
    if cfg.theta is None:
        return None
    if OmegaConf.is_config(cfg.theta):
        values = OmegaConf.to_container(cfg.theta)
        raise UsageError(f"theta must be {CHOICES}, one here, got {values}; evaluate takes more.")
    return _text("theta", cfg.theta)


def named(cfg: DictConfig) -> list[tuple[str, str]]:
    """The name and the theta of each that is to be evaluated; without a name it is empty.

    Those of one name are meta-trainings of one optimizer with several seeds.

    Raises:
        UsageError: there is none, or one is no text.
    """
    theta = cfg.theta
    pairs = []
    if OmegaConf.is_dict(theta):
        for name, value in theta.items():
            # a list is one optimizer, meta-trained with several seeds
            values = list(value) if OmegaConf.is_list(value) else [value]
            pairs += [(str(name), _text(f"theta.{name}", each)) for each in values]
    elif OmegaConf.is_list(theta):
        pairs = [("", _text("theta", value)) for value in theta]
    elif theta is not None:
        pairs = [("", _text("theta", theta))]

    if not pairs:
        raise UsageError(f"give theta=X, {CHOICES}, or theta={{NAME: X, NAME: X}} for several.")
    return pairs


def refuse(cfg: DictConfig, *keys: str) -> None:
    """Refuse values that a verb would not read, though its config has their keys.

    Args:
        cfg: the composed config.
        keys: ``checkpoint``, and ``theta`` where the verb has no use of one.

    Raises:
        UsageError: one of them has a value.
    """
    for key in keys:
        value = cfg.get(key)
        if value is None:
            continue

        hint = "leave it out"
        if "theta" not in keys:
            hint = f"only a training goes on from one, for a trained theta write theta={value}"
        raise UsageError(f"nothing reads {key} here, got {key}={value}; {hint}.")


def _text(key: str, value: Any) -> str:
    # a folder may be called 0
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    shown = "null" if value is None else value
    raise UsageError(f"{key} must be {CHOICES}, got {shown!r}.")
