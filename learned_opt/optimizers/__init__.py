"""Meta-optimizers: learned ones and hand-designed ones, in one contract."""

from learned_opt.optimizers.base import MetaOptimizer as MetaOptimizer
