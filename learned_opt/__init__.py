"""Meta-train, compare and use learned optimizers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learned_opt.deploy.optimizer import LearnedOptimizer

__all__ = ["LearnedOptimizer"]


def __getattr__(name: str) -> Any:
    """Import ``LearnedOptimizer`` at its first use: entry points must answer before torch is imported."""
    if name == "LearnedOptimizer":
        from learned_opt.deploy.optimizer import LearnedOptimizer

        return LearnedOptimizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
