"""Problems on which a trained optimizer takes the place of the composed one: to evaluate it, or to train it further."""

import hashlib
from typing import Any

from omegaconf import DictConfig, OmegaConf

from learned_opt.compose.inner_problems import Problem, build_problems
from learned_opt.core.errors import usage_errors
from learned_opt.deploy import hub, pretrained
from learned_opt.deploy.weights import load_theta


def build_trained(cfg: DictConfig, name: str) -> tuple[dict[str, Problem], dict[str, Any]]:
    """``build_problems`` with the meta-optimizer and the theta that a name stands for.

    Args:
        cfg: the composed config; its meta-optimizer and the name of it become those of the file.
        name: a packaged name, a run folder, a theta file, or ``owner/name`` on the hub.

    Returns:
        dict[str, Problem], dict[str, Any]: the problems by the name of the task, and the metadata of the file.

    Raises:
        UsageError: nothing has that name, the files are not ours or damaged, the hub cannot be reached, or theta
            belongs to another weight space; and what ``build_problems`` raises.
    """
    with usage_errors():
        _, metadata = pretrained.load(
            name
        )  # which builds nothing but classes of ours: files may come from anywhere
    node: Any = OmegaConf.create(metadata["meta_optimizer"])
    cfg.meta_optimizer, cfg.optimizer_name = node, metadata["optimizer_name"]
    problems = build_problems(cfg, node, metadata["optimizer_name"])
    with usage_errors():
        for problem in problems.values():
            load_theta(hub.find(name), problem.optimizer)
    return problems, metadata


def ancestry(name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """What ``theta.json`` keeps of the theta that a training started from: what it is and what it has seen."""
    digest = hashlib.sha256(hub.find(name).read_bytes()).hexdigest()[:16]
    kept = ("tasks", "task_configs", "draws", "started_from")
    return {
        "name": str(name),
        "theta": digest,
        **{key: metadata[key] for key in kept if key in metadata},
    }
