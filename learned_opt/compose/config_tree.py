"""The composed config on the terminal."""

import yaml
from omegaconf import DictConfig
from rich.console import Console
from rich.syntax import Syntax

from learned_opt.compose.recorded_values import readable_values


def print_if_asked(cfg: DictConfig, console: Console) -> None:
    """With ``print_config=true`` print the composed config as YAML.

    Interpolations are resolved, but what comes from the environment has the name of its variable.

    Args:
        cfg: the composed config.
        console: where to print.
    """
    if not cfg.print_config:
        return

    text = yaml.safe_dump(readable_values(cfg), sort_keys=False, allow_unicode=True)
    if console.is_terminal:
        console.print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:  # whole lines, to be kept in a file
        console.print(text, soft_wrap=True, highlight=False, markup=False, end="")
