"""What each parameter of a model does, as nowcasting networks tell kinds of weights apart."""

from torch import nn

LINEAR = 1
BIAS = 2  # and whatever has no kind of its own
CONVOLUTION = 3
GAIN = 4  # of a norm
WORDS = 5
POSITIONS = 6
QUERY = 7
KEY = 8
VALUE = 9
SELF_LOOP = 13
NUM_ROLES = 15

# names of the layers that people give to parts of attention
ATTENTION = {
    **dict.fromkeys(("q", "q_proj", "to_q", "query"), QUERY),
    **dict.fromkeys(("k", "k_proj", "to_k", "key"), KEY),
    **dict.fromkeys(("v", "v_proj", "to_v", "value"), VALUE),
}
PACKED = ("in_proj_weight",)  # queries, keys and values, one under the other
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)

Roles = tuple[int, ...]  # of equal parts of the first axis, one for most parameters


def roles_of(model: nn.Module) -> dict[str, Roles]:
    """The roles of all parameters, by their types, ranks and the names of their layers.

    >>> roles_of(nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Linear(2, 2, bias=False)))
    {'0.weight': (3,), '0.bias': (2,), '1.weight': (4,), '1.bias': (2,), '2.weight': (1,)}
    """
    modules = dict(model.named_modules())
    roles = {}
    for name, param in model.named_parameters():
        layer, _, kind = name.rpartition(".")
        module = modules[layer]
        if kind in PACKED:
            roles[name] = (QUERY, KEY, VALUE)
        elif isinstance(module, nn.Embedding):
            is_position = "pos" in layer or layer.endswith("wpe")
            roles[name] = (POSITIONS if is_position else WORDS,)
        elif isinstance(module, NORMS) and kind == "weight":
            roles[name] = (GAIN,)
        elif param.ndim < 2:
            roles[name] = (BIAS,)
        elif param.ndim > 2:
            roles[name] = (CONVOLUTION,)
        else:
            roles[name] = (ATTENTION.get(layer.rpartition(".")[2], LINEAR),)
    return roles


def rank_role(num_axes: int) -> int:
    """What a tensor of a rank mostly is, where nothing but its shape is known."""
    if num_axes < 2:
        return BIAS
    return LINEAR if num_axes == 2 else CONVOLUTION


def reads_first_axis(model: nn.Module) -> set[str]:
    """The parameters whose first axis is the input, not the second."""
    names = set()
    for layer, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.modules.conv._ConvTransposeNd):
            names.add(f"{layer}.weight".lstrip("."))
    return names
