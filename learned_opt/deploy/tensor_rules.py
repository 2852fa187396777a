"""Rules of single tensors: what users choose, and what they see."""

from collections.abc import Mapping, Sequence
from typing import Any

from learned_opt.deploy.weight_space import Slot, slots_of
from learned_opt.optimizers.base import MetaOptimizer


def chosen(rules: Mapping[str, str], slots: Sequence[Slot]) -> dict[str, str]:
    """The rules that users chose, by the names of the parameters.

    Args:
        rules: name -> rule; goes before the ``rule`` of a param group.
        slots: all parameters.

    Raises:
        ValueError: no parameter has a name.
    """
    names = [slot.name for slot in slots]
    unknown = sorted(set(rules) - set(names))
    if unknown:
        raise ValueError(
            f"rules must name parameters of the optimizer, got {', '.join(unknown)}; "
            f"they are {', '.join(names)}."
        )
    of_groups = {slot.name: slot.group["rule"] for slot in slots if "rule" in slot.group}
    return {**of_groups, **rules}


def by_group(
    meta_optimizer: MetaOptimizer, param_groups: Sequence[dict[str, Any]]
) -> list[list[str]]:
    """The rule of each parameter of each group; empty lists where there is one rule for all.

    Args:
        meta_optimizer: has the rules.
        param_groups: as ``torch.optim.Optimizer`` keeps them.
    """
    slots = slots_of(param_groups)
    rules = meta_optimizer.rules({slot.name: slot.param for slot in slots})
    of_groups = []
    for group in param_groups:
        names = [slot.name for slot in slots if slot.group is group]
        of_groups.append([rules[name] for name in names if name in rules])
    return of_groups


def listing(meta_optimizer: MetaOptimizer, slots: Sequence[Slot]) -> str:
    """Which parameters each rule has, for people; nothing where there is one rule for all.

    Args:
        meta_optimizer: has the rules.
        slots: all parameters.
    """
    params = {slot.name: slot.param for slot in slots}
    by_rule: dict[str, list[str]] = {}
    for name, rule in meta_optimizer.rules(params).items():
        by_rule.setdefault(rule, []).append(name)
    if not by_rule:
        return ""

    lines = [f"    {rule}: {', '.join(names)}" for rule, names in by_rule.items()]
    return "\n".join(["", "Rules", *lines])
