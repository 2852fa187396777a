"""Meta-train, compare and use learned optimizers."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from learned_opt.core.spinning import bound_spinning

if TYPE_CHECKING:  # for type checkers and editors; at run time the table below imports
    from learned_opt.api.compare import compare as compare
    from learned_opt.api.evaluate import evaluate as evaluate
    from learned_opt.api.meta_train import meta_train as meta_train
    from learned_opt.deploy.nowcaster import Nowcaster as Nowcaster
    from learned_opt.deploy.optimizer import LearnedOptimizer as LearnedOptimizer
    from learned_opt.symmetry.check import check_spec as check_spec
    from learned_opt.symmetry.infer import infer_permutation_spec as infer_permutation_spec
    from learned_opt.symmetry.spec import PermutationSpec as PermutationSpec

PUBLIC_NAMES = {  # name -> module that defines it
    "LearnedOptimizer": "learned_opt.deploy.optimizer",
    "Nowcaster": "learned_opt.deploy.nowcaster",
    "PermutationSpec": "learned_opt.symmetry.spec",
    "check_spec": "learned_opt.symmetry.check",
    "compare": "learned_opt.api.compare",
    "evaluate": "learned_opt.api.evaluate",
    "infer_permutation_spec": "learned_opt.symmetry.infer",
    "meta_train": "learned_opt.api.meta_train",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: entry points must answer before torch is imported."""
    if name not in PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC_NAMES])


bound_spinning()

# Python's first word while it looks for the module that ``-m`` names, and no later
if sys.argv[:1] == ["-m"]:
    import_module("learned_opt.commands.module_names").refuse_module(sys.orig_argv)
