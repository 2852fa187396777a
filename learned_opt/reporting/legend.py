"""What the short forms in a table of optimizers mean, said beside the table that has them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# ending of a row -> what it is tuned for
SECOND_CRITERIA = {"-final": "final loss", "-mean": "mean loss", "-test": "lowest test loss"}


def legend(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each short form that the rows of a setting have; none where they have none.

    Args:
        summaries: of the optimizers of one setting.

    >>> common = {"horizon": 20, "reached": 1, "with_target": 2}
    >>> for line in legend([
    ...     {"optimizer": "adam", "steps_to_target": 9.0, **common},
    ...     {"optimizer": "adam-final", "steps_to_target": math.inf, **common},
    ... ]):
    ...     print(line)
    adam-final: adam with the learning rate that is best for its final loss
    >20 (1/2): 1 of 2 seeds got to the target, so that the median run had not by step 20
    """
    names = [summary["optimizer"] for summary in summaries]
    lines = []
    for name in names:
        for ending, loss in SECOND_CRITERIA.items():
            base = name.removesuffix(ending)
            if base != name and base in names:
                lines.append(f"{name}: {base} with the learning rate that is best for its {loss}")

    for summary in summaries:
        if math.isinf(summary["steps_to_target"]):
            reached = summary["reached"]
            seeds = summary["with_target"]
            horizon = summary["horizon"]
            lines.append(
                f">{horizon} ({reached}/{seeds}): {reached} of {seeds} seeds got to the target, "
                f"so that the median run had not by step {horizon}"
            )
            break  # the others of the table are read alike
    return lines
