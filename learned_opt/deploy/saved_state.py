"""A ``state_dict`` of an optimizer, matched to parameters by their names."""

from collections.abc import Sequence
from typing import Any

from learned_opt.core import tree


def matched(state_dict: dict[str, Any], groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same state in the order of these param groups, where both sides know names.

    torch matches by position alone, so that a model whose layers are registered in another order
    would train on with the states of other parameters.

    Args:
        state_dict: as ``torch.optim.Optimizer.state_dict`` gives it.
        groups: param groups of the optimizer that it is for.

    Raises:
        ValueError: the numbers of groups, the names in one or the thetas differ; names them.

    >>> saved = {"state": {0: "of a", 1: "of b"},
    ...          "param_groups": [{"params": [0, 1], "param_names": ["a", "b"]}]}
    >>> matched(saved, [{"params": [None, None], "param_names": ["b", "a"]}])["state"]
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
        for position, number_there in zip(numbers, order or range(len(numbers)), strict=True):
            if numbers[number_there] in state_dict["state"]:
                state[position] = state_dict["state"][numbers[number_there]]

    named = []
    for saved, group in zip(saved_groups, groups, strict=True):
        names = {"param_names": group["param_names"]} if "param_names" in group else {}
        named.append({**saved, **names})
    return {**state_dict, "state": state, "param_groups": named}


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
