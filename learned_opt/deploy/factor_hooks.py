"""Hooks on the modules of a user that see the gradients of single examples.

A forward hook keeps what goes into a module and puts a hook on what comes out. When autograd has
the gradient of a parameter, all gradients of the results that the parameter has had a part in are
known, and the factors of this backward pass are complete: they are reduced to what the features
read, and what was kept of the module is let go.

A set is of all backward passes since the gradient was last zero or None, whoever set it. The loss
may be a mean, a sum, scaled (``GradScaler``) or taken in parts (gradient accumulation); before the
step, gradients may be multiplied by one factor (clipped by their norm). One backward pass per
forward pass, whose rows would count twice otherwise. What reads a parameter beside the layers of
torch.nn is not seen; such a parameter is named in a warning, and its channels are 0.
"""

import logging
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from learned_opt.deploy.factor_sets import FactorSets
from learned_opt.deploy.forward_hook import ForwardHook
from learned_opt.deploy.inputs import unwrap
from learned_opt.deploy.module_call import ModuleCall, current_pass
from learned_opt.deploy.module_replay import REPLAYED, Replay, has_positions_first
from learned_opt.deploy.module_sites import rule_of
from learned_opt.deploy.weight_space import Slot
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.optimizers.factors import ROWS, Factors, GradientSet, uncovered_sentence

TOLERANCE = 1e-3  # of gradients, in units of their size: two orders of summation in float32
HALF_TOLERANCE = 3e-2  # the same where autocast has computed in 16 bits
ROUNDING = 1e-5  # of gradients, in units of the largest that rows of this size could add up to

UNSEEN = "no module of torch.nn that hooks see into reads it"
INCOMPLETE = "its factors do not give its gradient: something else reads it, too"

log = logging.getLogger(__name__)


class FactorHooks:
    """Records gradient sets while a model is trained.

    Args:
        module: the model.
        params: name in messages -> parameter of the model.
        sets: what records are added to.
        is_compiled: whether the model is compiled already.

    Attributes:
        uncovered: name of a parameter without factors -> reason.
    """

    def __init__(
        self,
        module: nn.Module,
        params: Mapping[str, Tensor],
        sets: FactorSets,
        is_compiled: bool = False,
    ) -> None:
        self.sets = sets
        self.is_compiled = is_compiled
        self.labels = {param: name for name, param in params.items()}
        self.uncovered: dict[str, str] = {}
        self.reported: set[str] = set()
        self.verified: set[Tensor] = set()
        self.calls: dict[Tensor, list[weakref.ref[ModuleCall]]] = {}
        self.replays: dict[nn.Module, Replay] = {}
        self.known: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()
        self.num_examples: int | None = None  # of the batch that is in the modules
        self.handles: list[RemovableHandle] = []

        for layer in hooked_modules(module):
            if isinstance(layer, REPLAYED):
                self.replays[layer] = Replay(layer)
            hook = ForwardHook(weakref.ref(self))
            self.handles.append(layer.register_forward_hook(hook, with_kwargs=True))
        self.close = weakref.finalize(self, _remove, self.handles)
        self.close.atexit = False

    def collect(self, slots: Sequence[Slot]) -> dict[str, GradientSet]:
        """The factors of parameters by name; warns once of each that has a gradient and no factors.

        Raises:
            ValueError: hooks were removed, or see ``FactorSets.collect``.
        """
        if not self.close.alive:
            raise ValueError("this optimizer was closed: it sees no single examples any more.")
        if self.is_compiled and not self.calls:
            raise ValueError(
                "torch.compile does not see the hooks of an optimizer that was made after the "
                "compiled model ran: make the optimizer first, or call torch.compiler.reset()."
            )
        factors = self.sets.collect(slots)

        news = {}
        for slot in slots:
            is_missing = slot.param.grad is not None and slot.name not in factors
            if is_missing and slot.name not in self.reported:
                news[slot.name] = self.uncovered.get(slot.name, UNSEEN)
        if news:
            log.warning("%s", uncovered_sentence(news))
            self.reported.update(news)
        return factors

    def called(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Keep what a call of a module needs; its forward hook."""
        if not torch.is_grad_enabled():
            return
        names = module.named_parameters(recurse=isinstance(module, REPLAYED))
        params = {}
        for name, param in names:
            label = self.labels.get(param)  # None for what the optimizer does not train
            if param.requires_grad and label is not None and label not in self.uncovered:
                params[name] = param
        results = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        if not params or not any(result.requires_grad for result in results):
            return

        call = ModuleCall(module, (args, kwargs), params, self.num_examples, self.known)
        if call.num_examples is None and call.tensors and call.tensors[0].ndim:
            first = call.tensors[0]
            axis = 1 if has_positions_first(module, first) else 0
            call.num_examples = self.num_examples = first.shape[axis]

        # the graph of autograd keeps the call, so what is never differentiated leaves nothing
        for number, result in enumerate(results):
            if result.requires_grad:
                result.register_hook(partial(call.receive, number))
        for param in params.values():
            if param not in self.calls:
                self.calls[param] = []
                hook = partial(_arrived, weakref.ref(self), weakref.ref(param))
                self.handles.append(param.register_hook(hook))
            self.calls[param] = [known for known in self.calls[param] if known() is not None]
            self.calls[param].append(weakref.ref(call))

    def arrived(self, param: Tensor, gradient: Tensor) -> None:
        """Add the factors of a parameter whose gradient a backward pass has."""
        self.num_examples = None  # what comes next is another batch
        label = self.labels[param]
        sites = []
        num_rows: float | Tensor = 0.0
        waiting = []
        is_half = False
        for reference in self.calls[param]:
            call = reference()
            if call is None:
                continue
            if call.backward_pass != current_pass():  # no part of this pass
                waiting.append(reference)
                continue
            is_half |= any(part.dtype != param.dtype for part in call.gradients.values())
            name = next(name for name, other in call.params.items() if other is param)
            of_call = self._factors(call).get(name)
            if of_call is None:
                self.uncovered.setdefault(label, self._reason(call, name))
            else:
                sites += of_call.sites
                num_rows = num_rows + of_call.num_rows
            call.finish(name)
        self.calls[param] = waiting

        if not sites or label in self.uncovered or gradient.is_sparse:
            return
        factors = Factors(tuple(sites), num_rows)
        # a step whose gradients are not finite is skipped, and shows nothing
        if param not in self.verified and bool(gradient.isfinite().all()):
            if not _explains(factors, gradient, HALF_TOLERANCE if is_half else TOLERANCE):
                self.uncovered[label] = INCOMPLETE
                return
            self.verified.add(param)
        self.sets.add(param, factors, gradient.detach())

    def _factors(self, call: ModuleCall) -> Mapping[str, Factors]:
        if call.factors is None:
            if call.module in self.replays:
                call.factors = self.replays[call.module].factors(call)
            else:
                rule = rule_of(call.module)
                assert rule is not None  # else it has no hook
                sites = rule(call).items()
                call.factors = {k: Factors((site,), float(site.num_rows)) for k, site in sites}
        return call.factors

    def _reason(self, call: ModuleCall, name: str) -> str:
        if call.module in self.replays:
            return self.replays[call.module].uncovered.get(name, UNSEEN)
        return UNSEEN


def hooked_modules(module: nn.Module) -> list[nn.Module]:
    """The modules that hooks see into."""
    layers = []
    for layer in module.modules():
        if isinstance(layer, REPLAYED) or rule_of(layer) is not None:
            layers.append(layer)
    return layers


def watch(
    meta_optimizer: MetaOptimizer,
    model: nn.Module | None,
    slots: Sequence[Slot],
    compile: bool,
) -> FactorHooks | None:
    """Hooks on a model for a meta-optimizer that reads single examples; None for any other.

    Args:
        meta_optimizer: the optimizer.
        model: what it trains, perhaps within DDP.
        slots: the parameters.
        compile: whether steps are to be compiled.

    Raises:
        ValueError: the model is not known, or rows are read where only sums over rows can be.
    """
    needs = meta_optimizer.factor_needs
    if not needs:
        return None
    if model is None:
        raise ValueError(
            "this meta-optimizer reads the gradients of single examples, which hooks on the model "
            "record: give the model itself as params, or as module."
        )
    group = getattr(model, "process_group", None)
    if ROWS in needs and (compile or group is not None):
        raise ValueError(
            "this meta-optimizer reads the rows of gradient sets (gradmetanet), which works "
            "neither with compile nor within DistributedDataParallel."
        )

    seen = {p for layer in hooked_modules(unwrap(model)) for p in layer.parameters()}
    params = {slot.name: slot.param for slot in slots}
    candidates = [param for param in params.values() if param in seen]
    module = unwrap(model)
    is_compiled = hasattr(model, "_orig_mod") or module._compiled_call_impl is not None
    return FactorHooks(module, params, FactorSets(needs, candidates, group), is_compiled)


def _arrived(
    recorder: "weakref.ref[FactorHooks]", param: "weakref.ref[Tensor]", gradient: Tensor
) -> None:
    known = recorder()
    of_param = param()
    if known is not None and of_param is not None:
        with torch.no_grad():
            known.arrived(of_param, gradient)


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _explains(factors: Factors, gradient: Tensor, tolerance: float) -> bool:
    """Whether factors give a gradient."""
    total = factors.gradient()
    # gradients of keys are zero but for rounding: what rows of this size add up to is compared
    possible = (factors.squares() * factors.num_rows).sqrt().max()
    slack = tolerance * gradient.abs().max() + ROUNDING * possible
    return bool(((total - gradient).abs() <= slack).all())
