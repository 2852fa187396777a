"""Permutation symmetries of weight spaces."""

from learned_opt.symmetry.check import SpecReport as SpecReport
from learned_opt.symmetry.check import check_spec as check_spec
from learned_opt.symmetry.infer import infer_permutation_spec as infer_permutation_spec
from learned_opt.symmetry.spec import PermutationSpec as PermutationSpec
