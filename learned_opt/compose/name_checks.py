"""The names in a config, checked by the one rule for names before anything is built or written."""

from omegaconf import DictConfig, OmegaConf

from learned_opt.core.errors import usage_errors
from learned_opt.core.names import check_name

PATHS = ("name",)  # may have slashes: folders below runs/
NAMES = ("task.name", "optimizer_name")
# mappings whose keys are names of tasks, optimizers, networks or thetas
NAMED = ("mix", "theta", "fixed", "benchmark.baselines", "cases", "networks", "predictors")


def check_names(cfg: DictConfig) -> None:
    """Refuse names that no table, file name or plot could show.

    Args:
        cfg: the composed config.

    Raises:
        UsageError: names the key, the rule and the name.
    """
    with usage_errors():
        for key in (*PATHS, *NAMES):
            name = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
            if isinstance(name, str):  # else it has the wrong type, and is refused for that
                check_name(key, name, is_path=key in PATHS)

        for key in NAMED:
            mapping = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
            if isinstance(mapping, DictConfig):
                for name in mapping:
                    check_name(f"a name in {key}", name)
