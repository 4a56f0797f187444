"""Packing of replicas on nodes as part of a linear program: nodes are counted by the pattern in which they are filled.

Capacities of a whole pool do not see that replicas cannot be divided between nodes. With a column for each maximal set
of replicas on a node (Gilmore and Gomory, "A linear programming approach to the cutting-stock problem", Operations
Research 9, 1961) what the program chooses packs, and its relaxation is tighter, too. On 64 queries of speech and video,
replicas of seven sizes have at most some tens of patterns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.problem import Problem, Usage
from circinus.matching.solvers.highs import LpModel
from circinus.planning.bin_packing import pack

_MAX_PATTERNS = 500
"""Maximum number of patterns of a pool's nodes; with more, its replicas are packed afterwards."""
_MAX_REPLICAS = 64
"""Maximum number of replicas on a node whose patterns are listed."""
_TOLERANCE = 1e-9
"""Rounding tolerance of the replicas on a node, as a share of the node."""


@dataclass(frozen=True, eq=False)
class PatternColumns:
    """Columns that count the nodes of a pool by their pattern."""

    pool: int
    columns: IntArray
    """(patterns,)"""
    kinds: tuple[IntArray, ...]
    """Deployments of which a replica takes the same of a node, by kind."""
    demand: FloatArray
    """(kinds, R) resources of one replica."""
    replicas: IntArray
    """(patterns, kinds) replicas on one node."""

    def counts(self, problem: Problem, usage: Usage) -> FloatArray:
        """Return (patterns,) numbers of nodes on which a usage packs, 0 if it does not."""
        counts, nodes = np.zeros(len(self.columns)), int(problem.nodes[self.pool])
        replicas = np.array([usage.replicas[members].sum() for members in self.kinds], dtype=np.int64)
        packing = pack(self.demand, replicas, problem.packed[1][self.pool], nodes)
        on_node = np.zeros((nodes, len(self.kinds)), dtype=np.int64)
        for kind, of_kind in enumerate(packing.nodes or ()):
            np.add.at(on_node[:, kind], list(of_kind), 1)
        for filled in on_node[on_node.any(axis=1)]:
            counts[np.flatnonzero((self.replicas >= filled).all(axis=1))[0]] += 1.0
        return counts


def add_patterns(programme: LpModel, problem: Problem, expression: FloatArray) -> tuple[PatternColumns, ...]:
    """Add patterns of the nodes of each pool of fixed size whose replicas differ, as far as these are few.

    Args:
        programme: the columns, to be extended.
        problem: the matching problem.
        expression: (D, columns) replicas of each deployment as a linear form in the columns.
    """
    added, is_used = list[PatternColumns](), expression.any(axis=1)
    for pool in np.setdiff1d(np.arange(len(problem.pools)), problem.elastic).tolist():
        members = np.flatnonzero((problem.pool_of == pool) & is_used)
        demand, kind_of = np.unique(problem.packed[0][members], axis=0, return_inverse=True)
        patterns = node_patterns(demand, problem.packed[1][pool])
        if patterns is None or len(demand) < 2:
            continue
        nodes, first = float(problem.nodes[pool]), len(programme.upper)
        columns = np.arange(first, first + len(patterns))
        programme.upper += [nodes] * len(columns)
        kinds = tuple(members[kind_of.reshape(-1) == kind] for kind in range(len(demand)))
        programme.add_row(columns, np.ones(len(columns)), 0.0, nodes)
        for kind, of_kind in enumerate(kinds):
            replicas = expression[of_kind].sum(axis=0)
            placed, filling = np.flatnonzero(replicas), np.flatnonzero(patterns[:, kind])
            entries = np.append(placed, columns[filling])
            programme.add_row(entries, np.append(replicas[placed], -patterns[filling, kind]), -np.inf, 0.0)
        added.append(PatternColumns(pool, columns, kinds, demand, patterns))
    return tuple(added)


def node_patterns(demand: FloatArray, capacity: FloatArray) -> IntArray | None:
    """Return (patterns, kinds) the maximal sets of replicas on one node, or None if they are too many.

    Args:
        demand: (kinds, R) resources of one replica.
        capacity: (R,) of the node.
    """
    share = np.divide(demand, capacity, out=np.zeros_like(demand), where=demand > 0)
    largest = share.max(axis=1, initial=0.0)
    if not len(share) or largest.min() * _MAX_REPLICAS < 1 or largest.max() > 1 + _TOLERANCE:
        return None
    fillings = list(islice(_fillings(share, 0, np.ones(share.shape[1]) + _TOLERANCE), _MAX_PATTERNS + 1))
    if len(fillings) > _MAX_PATTERNS:
        return None
    patterns = np.array(fillings, dtype=np.int64)
    free = 1 + _TOLERANCE - patterns @ share
    still_fits = np.asarray((share[None] <= free[:, None]).all(axis=2))
    return patterns[~still_fits.any(axis=1)]


def _fillings(share: FloatArray, kind: int, free: FloatArray) -> Iterator[tuple[int, ...]]:
    """Yield sets of replicas of the kinds from one on, with as many of the last kind as fit."""
    if kind == len(share):
        yield ()
        return
    needed = share[kind] > 0
    most = int(np.floor((free[needed] / share[kind, needed]).min()))
    for count in (most,) if kind == len(share) - 1 else range(most, -1, -1):
        for rest in _fillings(share, kind + 1, free - count * share[kind]):
            yield (count, *rest)
