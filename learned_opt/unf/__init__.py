"""Universal Neural Functionals: equivariant layers on any weight space."""

from learned_opt.unf.layers import UNF as UNF
from learned_opt.unf.layers import InvariantPool as InvariantPool
from learned_opt.unf.layers import Pointwise as Pointwise
from learned_opt.unf.layers import UNFLinear as UNFLinear
