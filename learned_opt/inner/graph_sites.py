"""Where a traced loss uses its parameters: the operations that get a tap, see ``tapped_loss``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, fx

from learned_opt.inner.parameter_views import ParameterView, Views, name_of
from learned_opt.inner.site_rules import RULES, Finding, Use, Values
from learned_opt.optimizers.routes import Route
from learned_opt.optimizers.sites import RowOrder, Site


@dataclass(frozen=True)
class GraphSite:
    """One use of a parameter.

    Args:
        node: the operation.
        view: of the parameter, as the operation reads it.
        finding: what the rule of the operation says.
        route: with its positions, known from one run of the graph.
        order: of the rows, where it is known.
    """

    node: fx.Node
    view: ParameterView
    finding: Finding
    route: Route | None = None
    order: RowOrder | None = None

    @property
    def needed(self) -> tuple[fx.Node, ...]:
        """The values of the graph that a site is made of."""
        return (*self.finding.needed, *self.view.needed)

    def with_route(
        self, known: list[Route], param_shape: torch.Size, values: Values
    ) -> "GraphSite":
        """The same with a route: one of ``known`` that is alike, else a new one, added to them.

        Args:
            known: routes of the same parameter.
            param_shape: of the parameter.
            values: of ``needed``.
        """
        route = Route.along(tuple(param_shape), self._forward(values))
        for other in known:
            if np.array_equal(route.positions.array, other.positions.array):
                return replace(self, route=other)
        known.append(route)
        return replace(self, route=route)

    def site(self, values: Values, gradient: Tensor) -> Site:
        """The site of one step.

        Args:
            values: of ``needed``.
            gradient: of the loss with respect to what the operation gave.
        """
        assert self.route is not None  # see with_route
        is_plain = not self.view.steps and self.finding.turn is None
        forward = None if is_plain else self._forward(values)
        site = self.finding.make(values, gradient, replace(self.route, forward=forward))
        return replace(site, order=self.order)

    def _forward(self, values: Values) -> Callable[[Tensor, int], Tensor]:
        turn = self.finding.turn

        def forward(param: Tensor, power: int) -> Tensor:
            reading = self.view.replay(param, power, values)
            return reading if turn is None else turn(reading)

        return forward


def find_sites(
    graph: fx.Graph,
    names: list[str],
    batch: set[fx.Node],
    shapes: Mapping[fx.Node, torch.Size],
) -> tuple[list[GraphSite], dict[str, str]]:
    """All uses of parameters.

    Args:
        graph: of a loss.
        names: of the parameters, its first placeholders.
        batch: placeholders of the batch.
        shapes: of the tensors of the graph.

    Returns:
        tuple[list[GraphSite], dict[str, str]]: the sites of the parameters that are covered, in the
        order of the graph; and the parameters that are not, with the reason.
    """
    views = Views(graph, names, batch)
    sites: list[GraphSite] = []
    uncovered: dict[str, str] = {}

    for node in graph.nodes:
        readings = [source for source in node.all_input_nodes if source in views.of]
        if not readings or node in views.of or name_of(node) == "detach":
            continue

        rule = RULES.get(name_of(node))
        findings = [] if rule is None else rule(Use(node, views, shapes))
        covered = {finding.reading for finding in findings}
        for finding in findings:
            sites.append(GraphSite(node, views.of[finding.reading], finding))
        for reading in readings:
            if reading not in covered:
                operation = name_of(node) or "the loss itself"
                uncovered.setdefault(views.of[reading].parameter, f"it is read by {operation}")

    sites = [site for site in sites if site.view.parameter not in uncovered]
    return sites, uncovered
