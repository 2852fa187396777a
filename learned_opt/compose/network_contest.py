"""From a composed config to the networks of a contest, each on the same task."""

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt.compose.inner_problems import parametrised
from learned_opt.compose.resolve import task_values
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.runtime.memory import keep_freed_memory


def build_families(cfg: DictConfig) -> dict[str, tuple[Any, Any]]:
    """The task with each network of a contest.

    Args:
        cfg: the composed config of ``contest``.

    Returns:
        dict: name of the network -> (task family, permutation spec).

    Raises:
        ValueError: no network is listed, or a value is out of its range.
    """
    keep_freed_memory()
    if not cfg.networks:
        raise ValueError("networks is empty; choose an experiment that lists some.")

    make_family = instantiate(task_values(cfg), _partial_=True)  # the data are loaded once
    families = {}
    for name, network in cfg.networks.items():
        family = parametrised(cfg, make_family(network=instantiate(network)))
        _, spec = symmetry_of(family)
        families[str(name)] = (family, spec)

    return families


def build_benchmark(cfg: DictConfig) -> Any:
    """How the networks are trained and compared.

    Raises:
        ValueError: a value is out of its range, or nothing is to be compared.
    """
    benchmark = instantiate(cfg.benchmark)
    if not benchmark.compares:
        raise ValueError("benchmark=none compares nothing; leave it out here.")
    return benchmark
