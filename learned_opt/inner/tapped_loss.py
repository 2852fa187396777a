"""A loss that gives the factors of the gradients of single examples beside its gradient.

The loss is traced once. Zeros, the *taps*, are added to what each operation gives that reads a
parameter: the gradient with respect to a tap is that of the operation's result, for every example
and position at once. One backward pass gives the gradients of parameters and taps.

Source: the factors are those of Goodfellow 2015 (arXiv 1510.01799).
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch._subclasses.functional_tensor import dispatch_functionalize
from torch.func import grad, grad_and_value
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_leaves
from typing_extensions import override

from learned_opt.core.tracing import traced
from learned_opt.core.tree import Tree, tree_map
from learned_opt.inner.graph_sites import GraphSite, find_sites
from learned_opt.inner.norms import norm_decompositions
from learned_opt.inner.row_orders import row_order
from learned_opt.optimizers.factors import Factors, count_rows, uncovered_sentence

Loss = Callable[[Tree, Tree, Tree], Tensor]  # ``(params, batch, task)``
TOLERANCE = 1e-3  # of gradients, in units of their size: float32 on a traced graph
ROUNDING = 1e-5  # of gradients, in units of the largest one of all parameters

log = logging.getLogger(__name__)


class TappedLoss:
    """Gradient, loss and factors of a task family's loss; goes through vmap and compile.

    Where the traced loss has another gradient than the loss (code that hides a part from autograd,
    a backward pass written by hand), no parameter is covered, and gradients are those of the loss.

    Args:
        loss: of a task family.
        params: example parameters, which fix shapes and dtypes; so do the next two.
        batch: an example batch.
        task: an example task.

    Attributes:
        uncovered: parameters without factors, and the reason.

    >>> def loss(params, batch, task):
    ...     return (batch["x"] @ params["w"]).square().mean()
    >>> params, batch = {"w": torch.ones(2, 1)}, {"x": torch.tensor([[1.0, 2.0], [3.0, 0.0]])}
    >>> grads, value, factors = TappedLoss(loss, params, batch, {})(params, batch, {})
    >>> grads["w"].flatten().tolist(), factors["w"].gradient().flatten().tolist()
    ([12.0, 6.0], [12.0, 6.0])
    >>> (2 * factors["w"].squares()).flatten().tolist()  # gradients of the examples: 6, 12; 18, 0
    [180.0, 72.0]
    """

    def __init__(self, loss: Loss, params: Tree, batch: Tree, task: Tree) -> None:
        self.loss = loss
        self.names = list(params)
        self.sites: dict[str, list[GraphSite]] = {}
        try:
            self.graph = _trace(loss, params, batch, task)
        except RuntimeError as error:
            reason = f"the loss cannot be traced: {str(error).splitlines()[0]}"
            self.uncovered = dict.fromkeys(self.names, reason)
            return

        values = _Recorder(self.graph).record(*_flat(params, batch, task))
        shapes = {node: v.shape for node, v in values.items() if isinstance(v, Tensor)}
        placeholders = self.graph.graph.find_nodes(op="placeholder")
        num_batch = len(tree_leaves(batch))
        batch_nodes = set(placeholders[len(params) : len(params) + num_batch])

        sites, self.uncovered = find_sites(self.graph.graph, self.names, batch_nodes, shapes)
        self._plan(sites, params, values)
        self._verify(params, batch, task)
        self._order_rows(params, batch, task)

    def _plan(self, sites: list[GraphSite], params: Tree, values: dict[fx.Node, Any]) -> None:
        self.num_rows: dict[str, float | Tensor] = {}
        self.taps: dict[fx.Node, tuple[torch.Size, torch.dtype]] = {}
        self.kept: set[fx.Node] = set()

        for name, param in params.items():
            routes: list = []
            planned = []
            for site in sites:
                if site.view.parameter == name:
                    planned.append(site.with_route(routes, param.shape, values))
            if not planned:
                self.uncovered.setdefault(name, "the loss does not read it")
                continue
            self.sites[name] = planned
            for site in planned:
                self.taps[site.node] = (values[site.node].shape, values[site.node].dtype)
                self.kept.update(site.needed)
            examples = [site.site(values, values[site.node].detach()) for site in planned]
            num_rows = count_rows(tuple(examples))
            self.num_rows[name] = _on_device(num_rows, param)

    def __call__(self, params: Tree, batch: Tree, task: Tree) -> tuple[Tree, Tensor, Tree]:
        """Gradients, loss and factors.

        Args:
            params: as those of the example, and so on.
            batch: a batch.
            task: a task.

        Returns:
            tuple[Tree, Tensor, Tree]: gradients shaped like the parameters; the scalar loss; and
            ``Factors`` by parameter, without those that are not covered.
        """
        if not self.sites:
            grads, loss = grad_and_value(self.loss)(params, batch, task)
            return grads, loss, {}

        device = next(iter(params.values())).device
        taps = {}
        for node, (shape, dtype) in self.taps.items():
            taps[node.name] = torch.zeros(shape, dtype=dtype, device=device)

        def tapped(params: Tree, taps: Tree) -> tuple[Tensor, dict[str, Any]]:
            tapping = _Tapping(self.graph, taps, self.kept)
            return tapping.run(*_flat(params, batch, task)), tapping.values

        both = grad_and_value(tapped, argnums=(0, 1), has_aux=True)
        (grads, gradients), (loss, by_name) = both(params, taps)
        values = {node: by_name[node.name] for node in self.kept}

        factors = {}
        for name, sites in self.sites.items():
            made = [site.site(values, gradients[site.node.name]) for site in sites]
            factors[name] = Factors(tuple(made), self.num_rows[name])
        return grads, loss, factors

    def outputs(self, params: Tree, batch: Tree, task: Tree) -> dict[str, list[Tensor]]:
        """What the operations give that read a parameter: pre-activations, for a layer's weights.

        Args:
            params: as those of the example, and so on.
            batch: a batch.
            task: a task.

        Returns:
            dict[str, list[Tensor]]: parameter -> the result of each operation that reads it,
            without those that are not covered.
        """
        values = _Recorder(self.graph).record(*_flat(params, batch, task))
        results = {}
        for name, sites in self.sites.items():
            results[name] = [values[site.node] for site in sites]
        return results

    def _verify(self, params: Tree, batch: Tree, task: Tree) -> None:
        """Drop what does not give the gradient, on the example."""
        expected = grad(self.loss)(params, batch, task)
        grads, _, factors = self(params, batch, task)
        # gradients that are zero but for rounding are compared with the largest ones
        largest = max((g.abs().max().item() for g in expected.values() if g.numel()), default=0.0)
        slack = ROUNDING * largest
        if not all(_close(grads[name], expected[name], slack) for name in self.names):
            reason = "the traced loss has another gradient than the loss"
            self.uncovered = dict.fromkeys(self.names, reason)
            self.sites = {}
            return

        for name, of_param in factors.items():
            if not _close(of_param.gradient(), expected[name], slack):
                self.uncovered[name] = "its factors do not give its gradient"
                del self.sites[name]

    def _order_rows(self, params: Tree, batch: Tree, task: Tree) -> None:
        """Find out how rows follow from examples, by a batch whose examples are rolled."""
        lengths = {len(leaf) for leaf in tree_leaves(batch) if leaf.ndim}
        if len(lengths) != 1:
            return
        rolled = tree_map(lambda leaf: leaf.roll(1, 0) if leaf.ndim else leaf, batch)
        before = self(params, batch, task)[2]
        after = self(params, rolled, task)[2]

        for name, sites in self.sites.items():
            orders = []
            for pair in zip(before[name].sites, after[name].sites, strict=True):
                orders.append(row_order(*pair, *lengths))
            self.sites[name] = [
                replace(site, order=order) for site, order in zip(sites, orders, strict=True)
            ]

    def report(self, task: str) -> None:
        """Log which parameters have no factors; task is its name."""
        if not self.uncovered:
            return
        log.warning("task %s: %s", task, uncovered_sentence(self.uncovered))


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps all values."""

    def record(self, *arguments: Any) -> dict[fx.Node, Any]:
        self.garbage_collect_values = False
        with torch.no_grad():
            self.run(*arguments)
        return self.env


class _Tapping(fx.Interpreter):
    """Runs a graph, adds taps, and keeps some values.

    Args:
        graph: of a loss.
        taps: name of a node -> what is added to its value.
        kept: nodes whose values are kept.
    """

    def __init__(self, graph: fx.GraphModule, taps: Tree, kept: set[fx.Node]) -> None:
        super().__init__(graph)
        self.taps = taps
        self.kept = kept
        self.values: dict[str, Any] = {}  # by name of the node

    @override
    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.taps:
            value = value + self.taps[n.name]
        if n in self.kept:
            self.values[n.name] = value
        return value


def _trace(loss: Loss, params: Tree, batch: Tree, task: Tree) -> fx.GraphModule:
    """The graph of a loss, of operations simple enough to be understood one by one."""
    names = list(params)
    values = [value.detach().clone().requires_grad_() for value in params.values()]

    def flat(values: list[Tensor], batch: Tree, task: Tree) -> Tensor:
        return loss(dict(zip(names, values, strict=True)), batch, task)

    # taken apart, so that their gains and biases are seen
    slopes = get_decompositions([torch.ops.aten._prelu_kernel])
    table = core_aten_decompositions() | slopes | norm_decompositions()
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")  # of settings of machines that are not this one
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.cudnn.flags(enabled=False):
            graph = traced(dispatch_functionalize(flat), values, batch, task, decompositions=table)
    graph.graph.eliminate_dead_code()
    return graph


def _flat(params: Tree, batch: Tree, task: Tree) -> list[Any]:
    return tree_flatten((list(params.values()), batch, task))[0]


def _on_device(num_rows: float | Tensor, param: Tensor) -> float | Tensor:
    return num_rows.to(param) if isinstance(num_rows, Tensor) else num_rows


def _close(actual: Tensor, expected: Tensor, slack: float) -> bool:
    size = expected.abs().max() if expected.numel() else expected.sum()
    return bool(((actual - expected).abs() <= TOLERANCE * size + slack).all())
