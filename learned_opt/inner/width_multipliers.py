"""What muP multiplies the update of a tensor with, by what the update scales with already."""

from collections.abc import Mapping

from learned_opt.inner.width_growth import HIDDEN, Growth
from learned_opt.optimizers import update_scale

# power of r that the updates of hidden tensors are multiplied with
HIDDEN_POWERS = {
    update_scale.ENTRY: -1.0,
    update_scale.PARAMETER: -0.5,
    update_scale.ORTHOGONAL_ENTRY: -0.5,
    update_scale.ORTHOGONAL_PARAMETER: 0.0,
    update_scale.SPECTRAL: 0.0,
    update_scale.GRADIENT: 0.0,
}
# of the width, for all other tensors that grow
OTHER_POWERS = {update_scale.SPECTRAL: 0.5, update_scale.GRADIENT: 1.0}


def update_multiplier(scale: str, growth: Growth, base_width: int) -> float:
    """What the update of a tensor is multiplied with.

    A change of a pre-activation is a sum over the inputs, which is to stay of order 1. Entries of
    order 1 that agree with the activations need 1 / r; entries that shrink like those of the
    parameter do so by 1 / sqrt(r) already; of orthogonal ones few directions agree.

    Args:
        scale: what the update scales with already, see ``update_scale``.
        growth: of the tensor.
        base_width: width at which nothing is multiplied.

    >>> hidden = Growth(HIDDEN, fan_in=256, fan_out=256)
    >>> [update_multiplier(scale, hidden, 64) for scale in ("entry", "parameter", "gradient")]
    [0.25, 0.5, 1.0]
    """
    if growth.kind == HIDDEN:
        return float((growth.fan_in / base_width) ** HIDDEN_POWERS[scale])
    if growth.width == 1:
        return 1.0
    return float((growth.width / base_width) ** OTHER_POWERS.get(scale, 0.0))


def update_multipliers(
    growths: Mapping[str, Growth], scale: str, base_width: int
) -> dict[str, float]:
    """``update_multiplier`` of every tensor."""
    return {name: update_multiplier(scale, of, base_width) for name, of in growths.items()}
