"""A ``state_dict`` of an optimizer, matched to parameters by their names."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from torch import Tensor

from learned_opt.core import tree
from learned_opt.deploy import sharded
from learned_opt.deploy.state_layout import by_parameter
from learned_opt.deploy.weight_space import Slot, WeightSpaces


def matched(
    state_dict: dict[str, Any],
    groups: Sequence[dict[str, Any]],
    rules: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """The same state in the order of these param groups, where both sides know names.

    torch matches by position alone, so that a model whose layers are registered in another order
    would train on with the states of other parameters.

    Args:
        state_dict: as ``torch.optim.Optimizer.state_dict`` gives it.
        groups: param groups of the optimizer that it is for.
        rules: of the parameters of each group there; empty where there is one rule for all.

    Raises:
        ValueError: the numbers of groups, the names in one, the rules of a parameter or the thetas
            differ; names them.

    >>> saved = {"state": {0: "of a", 1: "of b"},
    ...          "param_groups": [{"params": [0, 1], "param_names": ["a", "b"]}]}
    >>> matched(saved, [{"params": [None, None], "param_names": ["b", "a"]}], [[]])["state"]
    {0: 'of b', 1: 'of a'}
    """
    saved_groups = state_dict["param_groups"]
    # torch keeps what is in a group, so each group holds the fingerprint of theta
    theta = groups[0].get("theta")
    theta_of_state = {group.get("theta") for group in saved_groups}
    if theta_of_state != {theta}:
        raise ValueError(
            f"the state_dict was written with theta {theta_of_state.pop()}, "
            f"this optimizer has {theta}."
        )
    if len(saved_groups) != len(groups):
        raise ValueError(
            f"the state_dict holds {len(saved_groups)} param groups, this optimizer has "
            f"{len(groups)}."
        )

    state = {}
    for number, (saved, group) in enumerate(zip(saved_groups, groups, strict=True)):
        numbers = saved["params"]
        order = _order(saved.get("param_names"), group.get("param_names"), number)
        order = order or list(range(len(numbers)))
        if "param_rules" in saved:
            rules_there = [saved["param_rules"][number_there] for number_there in order]
            _check_rules(rules_there, rules[number], group.get("param_names"))
        for position, number_there in zip(numbers, order, strict=True):
            if numbers[number_there] in state_dict["state"]:
                state[position] = state_dict["state"][numbers[number_there]]

    named = []
    for saved, group in zip(saved_groups, groups, strict=True):
        names = {"param_names": group["param_names"]} if "param_names" in group else {}
        # a version before this one may not have written all that a group has
        options = {key: value for key, value in group.items() if key != "params"}
        saved_options = {key: value for key, value in saved.items() if key != "param_rules"}
        named.append({**options, **saved_options, **names})
    return {**state_dict, "state": state, "param_groups": named}


def restore(
    states: MutableMapping[Tensor, Any],
    state_dict: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Give parameters their states, in the types that these have.

    torch would give them the type of the parameter, which may have fewer bits. Tensors are handed
    over as they are where they lie on the device of the parameter: there is no second copy.

    Args:
        states: of an optimizer.
        state_dict: as ``matched`` gives it.
        groups: param groups of the optimizer.
    """
    states.clear()
    for saved, group in zip(state_dict["param_groups"], groups, strict=True):
        for number, param in zip(saved["params"], group["params"], strict=True):
            saved_state = state_dict["state"].get(number, {})
            if not saved_state.get("step", 1):  # fresh: written for readers of checkpoints
                continue
            state = {}
            for key, value in saved_state.items():
                # the counter of steps stays where reading it waits for nothing
                is_moved = isinstance(value, Tensor) and key != "step"
                state[key] = value.to(param.device) if is_moved else value
            if state:
                states[param] = state


def fresh_states(
    spaces: WeightSpaces, slots: Sequence[Slot], states: Mapping[Tensor, Any]
) -> dict[int, dict[str, Any]]:
    """States of the parameters that had no gradient yet, by their numbers.

    Args:
        spaces: the meta-optimizer.
        slots: all parameters.
        states: of those that had.
    """
    fresh = {}
    for number, slot in enumerate(slots):
        if slot.param.requires_grad and not states.get(slot.param):
            space = spaces.of([slot])
            param = sharded.whole(slot.param.detach()).to(space.dtype)
            state = by_parameter(space.optimizer.init_state({slot.name: param}), [slot.name])
            fresh[number] = sharded.shards_of_state(state[slot.name], slot.param)
    return fresh


def _order(
    saved: Sequence[str] | None, names: Sequence[str] | None, number: int
) -> list[int] | None:
    """Where each of our parameters stands in a saved group; None where names are not known."""
    if saved is None or names is None:
        return None
    if difference := tree.difference(list(saved), list(names)):
        raise ValueError(
            f"the state_dict is of other parameters than those of param group {number}: "
            f"{difference}."
        )
    return [list(saved).index(name) for name in names]


def _check_rules(saved: Sequence[str], rules: Sequence[str], names: Sequence[str] | None) -> None:
    """Refuse states that another rule has written."""
    named = names or [f"parameter {number}" for number in range(len(rules))]
    differences = []
    for name, rule_there, rule in zip(named, saved, rules, strict=True):
        if rule_there != rule:
            differences.append(f"{name} {rule_there} there and {rule} here")
    if differences:
        raise ValueError(
            "the state_dict was written with other rules than this optimizer has: "
            f"{', '.join(differences)}; give the same rules and example_inputs as then."
        )
