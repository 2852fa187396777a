"""Permutation symmetries of weight spaces."""

from learned_opt.symmetry.spec import PermutationSpec as PermutationSpec
