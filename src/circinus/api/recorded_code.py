"""Measurements of the code that a plan was made with, found without importing any code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from circinus.errors import ProfileError
from circinus.profiling.measurement.backend import LocalBackend
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys

if TYPE_CHECKING:
    from circinus.matching import PlanFile
    from circinus.profiling.hardware.machine import Machine
    from circinus.specification import Pipeline


class RecordedCode(LocalBackend):
    """Backend whose measurements are found by the versions in a plan file. The code need not be at hand."""

    def __init__(self, plan_set: PlanFile) -> None:
        super().__init__(())
        self._versions = plan_set.code_versions

    def addresses(self, pipeline: Pipeline, machine: Machine | None) -> MeasurementKeys:
        """Return the keys of a pipeline's measurements.

        Raises:
            ProfileError: the plan file has no versions of its code.
        """
        if pipeline.dataset.uses not in self._versions:
            raise ProfileError(
                "planned from a recorded trace, whose measurements the plan file does not identify",
                code="profile.from_trace",
                location=f"pipeline {pipeline.name}",
                hint="Run `circinus profile` and `circinus plan` where its code is.",
            )
        return MeasurementKeys(pipeline, CodeVersions.recorded(pipeline, self._versions), machine=machine)
