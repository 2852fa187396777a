"""Universal Neural Functionals: equivariant layers on any weight space."""

from learned_opt.unf.layers import Pointwise as Pointwise
from learned_opt.unf.layers import PointwiseUNFLinear as PointwiseUNFLinear
from learned_opt.unf.layers import UNFLinear as UNFLinear
from learned_opt.unf.nfn import NFNLinear as NFNLinear
from learned_opt.unf.stack import UNF as UNF
from learned_opt.unf.stack import InvariantPool as InvariantPool
from learned_opt.unf.type_tied import TypeTied as TypeTied
