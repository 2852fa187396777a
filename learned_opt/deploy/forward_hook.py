"""A forward hook on a module of the user that dies with the optimizer and does not travel."""

import weakref
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import nn


class Recorder(Protocol):
    """Who wants to know of calls."""

    def called(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Take note of one."""
        ...


class ForwardHook:
    """Tells a recorder of the calls of a module; copies and pickles of a model lose it.

    Args:
        recorder: reference to the recorder.

    >>> import copy
    >>> layer = nn.Linear(1, 1)
    >>> handle = layer.register_forward_hook(ForwardHook(lambda: None), with_kwargs=True)
    >>> [type(hook).__name__ for hook in copy.deepcopy(layer)._forward_hooks.values()]
    ['method']
    """

    def __init__(self, recorder: "weakref.ref[Any]") -> None:
        self.recorder = recorder

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Tell the recorder of a call."""
        recorder = self.recorder()
        if recorder is not None:
            _tell(recorder, module, args, kwargs, output)  # pyright: ignore[reportCallIssue]

    def __reduce__(self) -> Any:
        # a hook of Python's library that does nothing: the model is read where this package is not
        return getattr, (nullcontext(), "__exit__")


@torch.compiler.disable  # a compiled model is cut at its layers
def _tell(recorder: Recorder, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
    recorder.called(module, args, kwargs, output)
