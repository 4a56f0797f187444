"""Result of a sizing: the cheapest machines on which all SLOs hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from circinus.api.quantities import AnyPath
from circinus.api.result import Result
from circinus.errors import PlanningError
from circinus.matching.candidate_machines import chosen_machines
from circinus.matching.sufficient_machines import added_nodes
from circinus.specification.atomic_file import write_atomically
from circinus.specification.infrastructure_file import infrastructure_text

if TYPE_CHECKING:
    from circinus.matching import Rejection
    from circinus.matching.machine_sizing import CurvePoint, MachineSizing, SloSaving
    from circinus.specification import Infrastructure, Specification


@dataclass(frozen=True, repr=False)
class SizingReport(Result):
    """The cheapest machines on which all SLOs hold: nodes of each pool, their cost, and what it depends on.

    Example:
        >>> sizing = workspace.size()
        >>> sizing.nodes == {row["pool"]: row["nodes"] for row in sizing.rows()}
        True
        >>> sizing.cost_bound_usd_per_h <= sizing.cost_usd_per_h, dict(sizing.rejected)
        (True, {})
        >>> sizing.save("sized/infrastructure.yaml").name
        'infrastructure.yaml'
        >>> again = c.Workspace(["pipeline.yaml", "queries.yaml", "sized/infrastructure.yaml"], store=workspace.store)
        >>> again.plan().cost_usd_per_h <= sizing.cost_usd_per_h + 1e-9
        True
    """

    specification: Specification
    """Specification that was sized, with its own infrastructure."""
    sizing: MachineSizing
    sufficient: MachineSizing | None = None
    """Cheapest machines with more nodes than allowed that serve more, if the allowed ones do not serve all."""
    path: Path | None = None
    """File that the infrastructure was written to."""

    @property
    def infrastructure(self) -> Infrastructure:
        """Infrastructure with the chosen numbers of nodes, which are paid whole."""
        return chosen_machines(self.sizing.specification.required_infrastructure, self.sizing.matching.nodes)

    @property
    def nodes(self) -> Mapping[str, int]:
        """Pool -> number of nodes."""
        return {pool.name: pool.nodes for pool in self.infrastructure.pools}

    @property
    def cost_usd_per_h(self) -> float:
        """Cost of the nodes and of all transfers, in US dollars per hour."""
        return self.sizing.cost_usd_per_h

    @property
    def cost_bound_usd_per_h(self) -> float:
        """Lower bound on the cost of any machines that serve as much, with plans at utilization targets."""
        return self.sizing.cost_bound_usd_per_h

    @property
    def optimality_gap(self) -> float:
        """Share of the cost that cheaper machines may save at most, by the lower bound."""
        return 1.0 - self.cost_bound_usd_per_h / self.cost_usd_per_h if self.cost_usd_per_h > 0 else 0.0

    @property
    def rejected(self) -> Mapping[str, Rejection]:
        """Query -> reason, for each query that no allowed machines serve beside the others."""
        return {rejection.query: rejection for rejection in self.sizing.matching.rejections}

    @property
    def added_usd_per_h(self) -> Mapping[str, float]:
        """Served query -> cost of all machines minus that of the cheapest ones without it, in US dollars per hour."""
        return self.sizing.added_usd_per_h

    @property
    def savings(self) -> tuple[SloSaving, ...]:
        """The next looser SLOs with which cheaper machines do, the largest saving first."""
        return self.sizing.savings

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """Cost of the cheapest machines that hold at least 50, 60, ... % of the weight, where it changes."""
        return self.sizing.curve

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each pool: its nodes, how many there may be, their price and their cost."""
        candidates = self.sizing.specification.required_infrastructure
        return [
            {
                "pool": pool.name,
                "nodes": pool.nodes,
                "max_nodes": candidates.pool(pool.name).nodes,
                "chosen": candidates.pool(pool.name).is_elastic,
                "price_usd_per_h": pool.paid_usd_per_h,
                "cost_usd_per_h": pool.nodes * pool.paid_usd_per_h if pool.bills_nodes else None,
            }
            for pool in self.infrastructure.pools
        ]

    def _document(self) -> Any:
        matching = self.sizing.matching
        return {
            "pools": self.rows(),
            "cost_usd_per_h": self.cost_usd_per_h,
            "transfer_cost_usd_per_h": matching.transfer_cost_usd_per_h,
            "cost_bound_usd_per_h": self.cost_bound_usd_per_h,
            "cost_at_targets_usd_per_h": matching.cost_at_targets_usd_per_h,
            "optimality_gap": self.optimality_gap,
            "optimal": self.sizing.is_optimal,
            "satisfied_weight": matching.satisfied_weight,
            "total_weight": matching.total_weight,
            "rejected": {name: rejection.reason for name, rejection in self.rejected.items()},
            "sufficient": None if self.sufficient is None else self._sufficient(self.sufficient),
            "added_usd_per_h": self.added_usd_per_h,
            "added_is_lower_bound": not self.sizing.are_added_exact,
            "savings": self.savings,
            "curve": self.curve,
            "written": self.path,
        }

    def _sufficient(self, sufficient: MachineSizing) -> dict[str, Any]:
        return {
            "max_nodes": added_nodes(self.sizing, sufficient),
            "cost_usd_per_h": sufficient.cost_usd_per_h,
            "satisfied_weight": sufficient.matching.satisfied_weight,
            "served": sorted(sufficient.matching.served),
        }

    def save(self, path: AnyPath) -> Path:
        """Write the infrastructure with the chosen numbers of nodes, with the comments of its file; return the path.

        Raises:
            PlanningError: no query is served, or the file cannot be written.
        """
        if not self.sizing.matching.assignments:
            raise PlanningError(
                "no machines to write: no query is served",
                code="size.nothing_served",
                location=f"infrastructure {self.infrastructure.name}",
                hint="Allow more nodes, or see the reasons in `rejected`.",
            )
        path = Path(path)
        text = infrastructure_text(self.specification, self.infrastructure, path)
        try:
            write_atomically(path, text)
        except OSError as error:
            raise PlanningError(
                f"cannot write the infrastructure: {error.strerror or error}",
                code="size.unwritable",
                location=str(path),
                hint="Name a file in a folder that exists and is writable.",
            ) from error
        return path

    def _table(self) -> RenderableType:
        from circinus.reporting.sizing_table import sizing_table

        return sizing_table(self.sizing, self.infrastructure, self.sufficient)
