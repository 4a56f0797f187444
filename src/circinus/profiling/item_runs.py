"""Runs of an operator for one item: none, one, or one for each element of a fan-out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from circinus.arrays import FloatArray
from circinus.errors import ProfileError
from circinus.operators.protocol import NO_BRANCH
from circinus.specification.dataflow import FlowNode, ItemFlow, RunPath, scopes


@dataclass(frozen=True)
class ItemRuns:
    """Runs of an operator for one item, in the order of their paths."""

    paths: tuple[RunPath, ...]
    """(runs,) path of each run: the index of the element in each fan-out around it."""
    service_s: tuple[float, ...]
    """(runs,) service times."""
    output_bytes: tuple[tuple[float, ...], ...]
    """(runs,) serialized sizes of the outputs of each run."""
    branches: tuple[tuple[int, ...], ...]
    """(runs,) index of the branch of each output, `NO_BRANCH` for none."""

    @property
    def is_single(self) -> bool:
        """Whether there is one run, with one output without a branch."""
        return self.paths == ((),) and self.branches == ((NO_BRANCH,),)

    @property
    def total_s(self) -> float:
        """Seconds of all runs."""
        return sum(self.service_s)

    @property
    def total_bytes(self) -> float:
        """Serialized size of all outputs."""
        return sum(map(sum, self.output_bytes))

    def scaled_to(self, total_s: float, total_bytes: float) -> ItemRuns:
        """Return as many runs with other totals.

        Example:
            >>> ItemRuns(((0,), (1,)), (1.0, 3.0), ((10,), (10,)), ((-1,), (-1,))).scaled_to(2.0, 40.0).service_s
            (0.5, 1.5)
        """
        by_s = total_s / self.total_s if self.total_s else 0.0
        by_bytes = total_bytes / self.total_bytes if self.total_bytes else 0.0
        return replace(
            self,
            service_s=tuple(seconds * by_s for seconds in self.service_s),
            output_bytes=tuple(tuple(size * by_bytes for size in sizes) for sizes in self.output_bytes),
        )

    def as_json(self) -> str:
        """Return the runs as text."""
        return json.dumps([self.paths, self.service_s, self.output_bytes, self.branches], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ItemRuns:
        """Return the runs of `as_json`.

        Raises:
            ValueError: the text is damaged.

        Example:
            >>> runs = ItemRuns(((0,), (1,)), (0.5, 0.25), ((10,), (20,)), ((0,), (1,)))
            >>> ItemRuns.from_json(runs.as_json()) == runs
            True
        """
        paths, service_s, output_bytes, branches = json.loads(text)
        lengths = [[len(part) for part in column] for column in (output_bytes, branches)]
        if not len(paths) == len(service_s) == len(output_bytes) == len(branches) or lengths[0] != lengths[1]:
            raise ValueError("runs of different numbers of outputs")
        if not all(0 <= number < math.inf for number in chain(service_s, *output_bytes)):
            raise ValueError("a time or a size is negative or infinite")
        return cls(
            tuple(tuple(map(int, path)) for path in paths),
            tuple(map(float, service_s)),
            tuple(map(tuple, output_bytes)),
            tuple(tuple(map(int, part)) for part in branches),
        )

    @classmethod
    def single(cls, service_s: float, output_bytes: float) -> ItemRuns:
        """Return one run with one output without a branch."""
        return cls(((),), (service_s,), ((output_bytes,),), ((NO_BRANCH,),))


def runs_of_items(
    recorded: Mapping[int, ItemRuns], service_s: FloatArray, output_bytes: FloatArray
) -> tuple[ItemRuns, ...]:
    """Return the runs for n items, of which those that are not recorded had a single one.

    Args:
        recorded: index of the item -> its runs.
        service_s: (n,) service times of all runs for an item.
        output_bytes: (n,) sizes of their outputs.
    """
    totals = zip(service_s.tolist(), output_bytes.tolist(), strict=True)
    return tuple(recorded.get(index) or ItemRuns.single(*total) for index, total in enumerate(totals))


def branch_name(node: FlowNode, branch: int) -> str | None:
    """Return the name of a branch by its index."""
    return None if branch == NO_BRANCH else node.branches[branch]


def check_runs(nodes: Sequence[FlowNode], runs: Mapping[str, ItemRuns]) -> None:
    """Check that each operator ran for what its inputs emitted.

    Raises:
        ProfileError: it did not, as an operator emitted something else when it ran again.
    """
    flow = ItemFlow[int](nodes)
    for node in nodes:
        due, measured = [path for path, _ in flow.due(node.name)], runs[node.name]
        if list(measured.paths) != due:
            raise ProfileError(
                f"found {len(measured.paths)} runs of operator {node.name} for an item, expected {len(due)} by what "
                "came to it: an operator before it emitted other elements or branches when it ran again",
                code="profile.inconsistent_runs",
                hint="Outputs must depend on inputs and knobs only: fix random seeds, then profile again.",
            )
        for path, branches in zip(measured.paths, measured.branches, strict=True):
            flow.add(node.name, path, [(branch_name(node, branch), 0) for branch in branches])


def mean_element_s(nodes: Sequence[FlowNode], runs: Mapping[str, ItemRuns]) -> Mapping[str, float]:
    """Return the seconds of each operator for a random element of an item: 0 where it does not run.

    A random element of each fan-out is followed through all operators, so that the sum along a path is the mean over
    elements, and at most the time of the slowest one.

    Args:
        nodes: operators in topological order.
        runs: runs of each operator for the item.
    """
    check_runs(nodes, runs)
    around = scopes(tuple(nodes))
    elements = {
        name: dict(zip(its_runs.paths, map(len, its_runs.branches), strict=True)) for name, its_runs in runs.items()
    }
    return {
        node.name: sum(
            service_s / math.prod(elements[fan_out][path[:depth]] for depth, fan_out in enumerate(around[node.name]))
            for path, service_s in zip(runs[node.name].paths, runs[node.name].service_s, strict=True)
        )
        for node in nodes
    }
