"""Whole replicas on nodes: vector bin packing into equal nodes, exact where it is small."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.cuts import PackingCut, PoolCut
from circinus.matching.problem import Problem, Usage

SEARCH_STEPS, _FEW_STEPS = 20_000, 100
"""Partial packings that the exact search looks at before it gives up; few where no proof is asked for."""

_TOLERANCE = 1e-9
"""Share of a node by which rounded sums may exceed it."""

_LESS = 0.995
"""Of what filled a pool that does not pack, what fills it at most the next time."""

_LIFTED_KINDS = 3
"""Cores of so many kinds of replicas at most are widened to all replicas that are at least as large."""


@dataclass(frozen=True, eq=False)
class Packing:
    """A verdict on whether replicas go on the nodes of a pool."""

    nodes: tuple[tuple[int, ...], ...] | None
    """For each kind of replica the node of each, ascending; None: no packing was found."""
    proved: bool
    """Whether the verdict is certain."""


def pack(demand: FloatArray, count: IntArray, capacity: FloatArray, nodes: int, steps: int = SEARCH_STEPS) -> Packing:
    """Put `count[i]` replicas that take `demand[i]` each on equal nodes.

    First-fit decreasing in several orders, then a search over all packings up to symmetry (equal replicas, equal
    nodes), which is given up after `steps` partial packings.

    Args:
        demand: (m, R) what one replica of each kind takes of its node.
        count: (m,) replicas of each kind.
        capacity: (R,) of one node.
        nodes: number of nodes.
        steps: partial packings to look at.
    """
    if not count.sum():
        return Packing(tuple(() for _ in count), proved=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(demand > 0, demand / capacity, 0.0)
    if nodes == 0 or np.any(share[count > 0] > 1 + _TOLERANCE):
        return Packing(None, proved=True)
    if np.any(share.T @ count > nodes * (1 + _TOLERANCE)):
        return Packing(None, proved=True)
    for order in _orders(share):
        placed = _first_fit(share, count, nodes, order)
        if sum(map(len, placed)) == count.sum():
            return Packing(placed, proved=True)
    return _search(share, count, nodes, steps)


def _orders(share: FloatArray) -> Iterator[IntArray]:
    """Kinds by falling size, size being the largest share, the sum of shares, or the share of one resource."""
    for size in (share.max(axis=1), share.sum(axis=1), *share.T):
        yield np.argsort(-size, kind="stable")


def _first_fit(share: FloatArray, count: IntArray, nodes: int, order: IntArray) -> tuple[tuple[int, ...], ...]:
    """For each kind the nodes of those of its replicas that find one."""
    load = np.zeros((nodes, share.shape[1]))
    placed: list[tuple[int, ...]] = [()] * len(count)
    for kind in order:
        found: list[int] = []
        while len(found) < count[kind]:
            room = np.flatnonzero(np.all(load + share[kind] <= 1 + _TOLERANCE, axis=1))
            if not len(room):
                break
            load[room[0]] += share[kind]
            found.append(int(room[0]))
        placed[kind] = tuple(sorted(found))
    return tuple(placed)


def _search(share: FloatArray, count: IntArray, nodes: int, steps: int) -> Packing:
    """Node by node, every maximal set of what is left: a replica that still fits on a closed node may as well go there.

    States that differ only in which node holds what never arise, because only what is left is remembered.
    """
    failed: set[tuple[int, tuple[int, ...]]] = set()
    looked = 0
    order = np.argsort(-share.max(axis=1), kind="stable")
    sizes = share[order]

    def fill(left: tuple[int, ...], free: int) -> list[tuple[int, ...]] | None:
        nonlocal looked
        if not any(left):
            return []
        if free == 0 or (free, left) in failed or np.any(np.array(left) @ sizes > free * (1 + _TOLERANCE)):
            return None
        for taken in _maximal_fillings(sizes, left):
            looked += 1
            if looked > steps:
                raise _GivenUpError
            rest = fill(tuple(have - take for have, take in zip(left, taken, strict=True)), free - 1)
            if rest is not None:
                return [taken, *rest]
        failed.add((free, left))
        return None

    try:
        fillings = fill(tuple(int(count[kind]) for kind in order), nodes)
    except _GivenUpError:
        return Packing(None, proved=False)
    if fillings is None:
        return Packing(None, proved=True)
    placed: list[tuple[int, ...]] = [()] * len(count)
    for position, kind in enumerate(order):
        placed[kind] = tuple(node for node, taken in enumerate(fillings) for _ in range(taken[position]))
    return Packing(tuple(placed), proved=True)


class _GivenUpError(Exception):
    """The search has used its steps."""


def _maximal_fillings(sizes: FloatArray, left: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """All ways to fill one node to which nothing that is left could be added, largest kinds first.

    The largest kind that is left goes on some node, and nodes are equal: it goes on this one.
    """
    first = next(kind for kind, have in enumerate(left) if have)

    def extend(kind: int, taken: tuple[int, ...], load: FloatArray) -> Iterator[tuple[int, ...]]:
        if kind == len(left):
            open_kinds = [k for k, have in enumerate(left) if taken[k] < have]
            if not any(np.all(load + sizes[k] <= 1 + _TOLERANCE) for k in open_kinds):
                yield taken
            return
        most = left[kind]
        while most and not np.all(load + most * sizes[kind] <= 1 + _TOLERANCE):
            most -= 1
        for take in range(most, -1 if kind != first else 0, -1):
            yield from extend(kind + 1, (*taken, take), load + take * sizes[kind])

    yield from extend(0, (), np.zeros(sizes.shape[1]))


def packed_share(demand: FloatArray, count: IntArray, capacity: FloatArray, nodes: int) -> float:
    """Share of what the replicas take, of the scarcest resource, that first-fit decreasing puts on the nodes.

    Args:
        demand: (m, R) what one replica of each kind takes of its node.
        count: (m,) replicas of each kind.
        capacity: (R,) of one node.
        nodes: number of nodes.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(demand > 0, demand / capacity, 0.0)
    scarcest = share[:, int((share.T @ count).argmax())]
    packed = ([len(found) for found in _first_fit(share, count, nodes, order)] for order in _orders(share))
    return max(float(scarcest @ np.array(found)) for found in packed) / float(scarcest @ count)


def pack_pools(
    problem: Problem, usage: Usage, *, widely: bool = False
) -> tuple[dict[int, tuple[int, ...]], tuple[PackingCut | PoolCut, ...]]:
    """Pack the replicas of every pool.

    Args:
        problem: with the pools.
        usage: what is to be packed.
        widely: whether a pool that does not pack is filled less, rather than what does not go together is ruled out.

    Returns:
        For each used deployment the nodes of its replicas, and a cut for every pool that does not pack; when there
        are cuts, the nodes are not complete.
    """
    nodes: dict[int, tuple[int, ...]] = {}
    cuts: list[PackingCut | PoolCut] = []
    for pool in range(len(problem.pools)):
        members = np.flatnonzero((problem.pool_of == pool) & (usage.replicas > 0))
        packing = pack(
            problem.demand[members],
            usage.replicas[members],
            problem.node_capacity[pool],
            int(problem.nodes[pool]),
            _FEW_STEPS if widely else SEARCH_STEPS,
        )
        if packing.nodes is None and widely:
            cuts.append(_filled_less(problem, usage, pool, members))
        elif packing.nodes is None:
            cuts.append(_cut(problem, usage, pool, proved=packing.proved))
        else:
            nodes.update(zip(members.tolist(), packing.nodes, strict=True))
    return nodes, tuple(cuts)


def _filled_less(problem: Problem, usage: Usage, pool: int, members: IntArray) -> PoolCut:
    """As much of the pool as could be packed."""
    rows = np.flatnonzero(problem.rows.plain & (problem.rows.pool == pool))
    filled = float((usage.rows[rows] / problem.rows.limit[rows]).max(initial=0.0))
    packed = packed_share(
        problem.demand[members], usage.replicas[members], problem.node_capacity[pool], int(problem.nodes[pool])
    )
    return PoolCut(pool, filled * min(packed, _LESS))


def _cut(problem: Problem, usage: Usage, pool: int, *, proved: bool) -> PackingCut:
    """Why the replicas of a pool do not go on its nodes, as widely as it can be said."""
    members = np.flatnonzero((problem.pool_of == pool) & (usage.replicas > 0))
    kinds, kind_of = np.unique(problem.demand[members], axis=0, return_inverse=True)
    count = np.bincount(kind_of.reshape(-1), weights=usage.replicas[members], minlength=len(kinds)).astype(np.int64)
    if proved:
        count = _core(kinds, count, problem.node_capacity[pool], int(problem.nodes[pool]))
    core = np.flatnonzero(count)
    inside = problem.pool_of == pool
    if len(core) > _LIFTED_KINDS:
        groups = [(np.all(problem.demand == kinds[kind], axis=1), int(count[kind])) for kind in core]
    else:
        # By Hall's theorem every replica of the core finds a replica of its own that is at least as large when,
        # for every set of kinds, enough replicas are at least as large as one of the set.
        larger = {int(kind): np.all(problem.demand >= kinds[kind], axis=1) for kind in core}
        groups = [
            (np.any([larger[int(kind)] for kind in subset], axis=0), int(count[list(subset)].sum()))
            for size in range(1, len(core) + 1)
            for subset in combinations(core, size)
        ]
    return PackingCut(
        pool=pool,
        groups=tuple((np.flatnonzero(mask & inside).astype(np.int64), least) for mask, least in groups),
        valid=proved,
    )


def _core(kinds: FloatArray, count: IntArray, capacity: FloatArray, nodes: int) -> IntArray:
    """Fewer replicas that provably still do not fit: smallest kinds are left out first, one replica at a time."""
    count = count.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(kinds > 0, kinds / capacity, 0.0).max(axis=1)
    for kind in np.argsort(size, kind="stable"):
        while count[kind]:
            count[kind] -= 1
            verdict = pack(kinds, count, capacity, nodes)
            if verdict.nodes is not None or not verdict.proved:
                count[kind] += 1
                break
    return count
