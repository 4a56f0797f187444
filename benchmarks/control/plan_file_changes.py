"""A plan file that is overwritten while it is served, and the resulting changes of the engine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.workloads.burst_shop import PEAK, Scene
from circinus.api.plan_context import load_plan
from circinus.api.plan_source import PlanFileSource
from circinus.control.control_state import ControlState
from circinus.control.managed_plans import ManagedPlans
from circinus.control.state_store import ControlStateStore
from circinus.serving import Mode

_UTILIZATION = re.compile(r'("utilization_target": )0\.7\b')
_LESS_BUSY = r"\g<1>0.6"


class WrittenPlans:
    """Plan file of a scene that alternates between two versions.

    The second version has a lower utilization target: all deployments differ, have equal sizes, and do not fit into
    the pool together with the first ones, so that a change takes several steps.
    """

    def __init__(self, scene: Scene, dwell_s: float) -> None:
        self._file = scene.plan_file
        self._planned = self._file.read_text(encoding="utf-8")
        second, count = _UTILIZATION.subn(_LESS_BUSY, self._planned)
        assert count, "the plan file has no utilization target"
        self._texts = [self._planned, second]
        self._bases = [_managed_plans(scene.folder, text, dwell_s) for text in self._texts]

    def as_planned(self) -> None:
        """Restore the original plan file."""
        if self._texts[0] != self._planned:
            self.write_other()

    def write_other(self) -> None:
        """Replace the plan file atomically with the other version."""
        self._texts.reverse()
        self._bases.reverse()
        unfinished = self._file.with_suffix(".tmp")
        unfinished.write_text(self._texts[0], encoding="utf-8")
        os.replace(unfinished, self._file)

    def in_force(self, records: ControlStateStore) -> ControlState:
        """Return the plans in force, as stored by a controller."""
        plans = ControlState.of(self._bases[0])
        return plans.restored(records) or plans


def _managed_plans(folder: Path, text: str, dwell_s: float) -> ManagedPlans:
    """Return the plans that `circinus serve --standby-factor` manages for a plan file."""
    file = folder / "read.json"
    file.write_text(text, encoding="utf-8")
    try:
        return PlanFileSource(load_plan(file, needs_store=True), Mode.REPLAY, PEAK, dwell_s).managed
    finally:
        file.unlink()


@dataclass(frozen=True)
class BroughtAbout:
    """Changes that a local engine applied, according to its log."""

    begun: int
    """Number of started changes."""
    states: Sequence[str]
    """Fingerprints of the applied states, in order; other changes were cancelled."""

    @classmethod
    def of(cls, log: str) -> BroughtAbout:
        """Parse the log of an engine."""
        return cls(len(re.findall(r"INFO applying \d", log)), re.findall(r"INFO state (\S+) is in force", log))

    @property
    def repeated(self) -> int:
        """Number of changes to the state already in force."""
        return sum(state == following for state, following in pairwise(self.states))
