"""Problems on which a trained optimizer takes the place of the composed one."""

import hashlib
from typing import Any, NamedTuple

from omegaconf import DictConfig

from learned_opt.compose.inner_problems import Problem, build_problems
from learned_opt.compose.resolve import with_meta_optimizer
from learned_opt.core.errors import usage_errors
from learned_opt.deploy import hub, metadata_schema, pretrained
from learned_opt.deploy.foreign_classes import trusted_modules
from learned_opt.deploy.weights import load_theta


class Trained(NamedTuple):
    """A trained optimizer on the tasks of a config.

    Args:
        cfg: the config with the meta-optimizer of the file.
        problems: by the name of the task, with the theta of the file.
        metadata: of the file.
    """

    cfg: DictConfig
    problems: dict[str, Problem]
    metadata: dict[str, Any]


def build_trained(cfg: DictConfig, name: str) -> Trained:
    """``build_problems`` with the meta-optimizer and the theta that a name stands for.

    Args:
        cfg: the composed config.
        name: a packaged name, a run folder, a theta file, or ``owner/name`` on the hub.

    Raises:
        UsageError: nothing has that name, the files are not ours or damaged, the hub cannot be
            reached, or theta belongs to another weight space; and what ``build_problems`` raises.
    """
    with usage_errors():
        # files may come from anywhere: this builds nothing but classes of ours and those trusted,
        # and refuses whatever the config below would resolve
        _, metadata = pretrained.load(name, trust=trusted_modules(cfg.trust))
        metadata_schema.require(metadata, ("optimizer_name", "tasks"), f"theta.json of {name}")

    optimizer_name = metadata["optimizer_name"]
    trained_cfg = with_meta_optimizer(cfg, metadata["meta_optimizer"], optimizer_name)

    problems = build_problems(trained_cfg, trained_cfg.meta_optimizer, optimizer_name)
    with usage_errors():
        for problem in problems.values():
            load_theta(hub.find(name), problem.optimizer)

    return Trained(trained_cfg, problems, metadata)


def ancestry(name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """What ``theta.json`` keeps of the theta that a training started from.

    Args:
        name: of the theta, as for ``build_trained``.
        metadata: of its file: what it has seen is kept.
    """
    digest = hashlib.sha256(hub.find(name).read_bytes()).hexdigest()[:16]
    origin = {"name": str(name), "theta": digest}
    for key in ("tasks", "task_configs", "draws", "started_from"):
        if key in metadata:
            origin[key] = metadata[key]
    return origin
