"""Which operation of a module stops a trace."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from typing_extensions import override


class UntraceableError(ValueError):
    """A module whose operations cannot be recorded."""


class _LastOperation(TorchFunctionMode):
    """Remembers the operation that failed."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = ""

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except Exception:
            self.failed = self.failed or _name(func)
            raise


@contextmanager
def quiet_failures() -> Iterator[None]:
    """Without torch's traces of operations that fail on tensors without numbers."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def error_of(trace: Callable[[], Any], module: nn.Module) -> UntraceableError:
    """What stops a trace, as one sentence.

    Args:
        trace: fails.
        module: of the trace.
    """
    operations = _LastOperation()
    operation = reason = "an unknown operation"
    try:
        with operations:
            trace()
    except Exception as error:
        operation = operations.failed or type(error).__name__
        reason = _first_line(error)

    kind = type(module).__name__
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        operation = "torch.jit"
    return UntraceableError(f"{kind} cannot be traced: it stops at {operation} ({reason}).")


def call_error(module: nn.Module, tensors: Sequence[Tensor], error: Exception) -> ValueError:
    """Why a module does not take its example inputs, as one sentence.

    Args:
        module: was called.
        tensors: of the call.
        error: what it raised.

    >>> call_error(nn.ReLU(), [torch.zeros(2, 5)], RuntimeError("5 is too many"))
    ValueError('ReLU fails on the example inputs float32 (2, 5): 5 is too many.')
    """
    shapes = []
    for tensor in tensors:
        kind = str(tensor.dtype).removeprefix("torch.")
        shapes.append(f"{kind} {tuple(tensor.shape)}")
    shown = " and ".join(shapes) or "without tensors"
    name = type(module).__name__
    return ValueError(f"{name} fails on the example inputs {shown}: {_first_line(error)}.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _name(func: Any) -> str:
    return str(resolve_name(func) or getattr(func, "__name__", func))
