"""A plan file that is written over while it is served, and what the engine was brought to meanwhile."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.workloads.burst_shop import PEAK, Scene
from circinus.api.plan_source import PlanFileSource
from circinus.control.active_plans import ActivePlans
from circinus.control.managed_plans import ManagedPlans
from circinus.control.state_store import ControlStateStore
from circinus.serving import Mode

_UTILIZATION = re.compile(r'("utilization_target": )0\.7\b')
_LESS_BUSY = r"\g<1>0.6"


class WrittenPlans:
    """The plan file of a scene, in two versions in turn.

    The other one asks for the same with less busy replicas: all of its deployments are others, of the same size, and
    the pool has no room for both at once, so that going from one to the other takes several steps.
    """

    def __init__(self, scene: Scene, dwell_s: float) -> None:
        """The plan file is as it was planned."""
        self._file = scene.plan_file
        self._planned = own = self._file.read_text(encoding="utf-8")
        other, count = _UTILIZATION.subn(_LESS_BUSY, own)
        assert count, "plans name the utilization of their replicas"
        self._texts = [own, other]
        self._bases = [_controlled(scene.folder, text, dwell_s) for text in self._texts]

    def as_planned(self) -> None:
        """Have it as it was."""
        if self._texts[0] != self._planned:
            self.write_other()

    def write_other(self) -> None:
        """Write it over, whole or not at all."""
        self._texts.reverse()
        self._bases.reverse()
        unfinished = self._file.with_suffix(".tmp")
        unfinished.write_text(self._texts[0], encoding="utf-8")
        os.replace(unfinished, self._file)

    def in_force(self, records: ControlStateStore) -> ActivePlans:
        """What shall run, as a controller kept it."""
        plans = ActivePlans.of(self._bases[0])
        return plans.restored(records) or plans


def _controlled(folder: Path, text: str, dwell_s: float) -> ManagedPlans:
    """As `circinus serve --standby` makes it of a plan file."""
    file = folder / "read.json"
    file.write_text(text, encoding="utf-8")
    try:
        return PlanFileSource(file, Mode.REPLAY, PEAK, dwell_s).open()[0]
    finally:
        file.unlink()


@dataclass(frozen=True)
class BroughtAbout:
    """What a local engine was told to bring about, as it says itself."""

    begun: int
    """Changes that it began with."""
    states: Sequence[str]
    """Fingerprints of what came into force, in order; the other changes were broken off."""

    @classmethod
    def of(cls, log: str) -> BroughtAbout:
        """Of an engine's log."""
        return cls(len(re.findall(r"INFO applying \d", log)), re.findall(r"INFO state (\S+) is in force", log))

    @property
    def repeated(self) -> int:
        """How often what was in force already was brought about again."""
        return sum(one == following for one, following in pairwise(self.states))
