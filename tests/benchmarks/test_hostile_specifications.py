"""A hundred mutated specifications, each read in a process with limits of time and memory."""

from __future__ import annotations

import pytest
from benchmarks.hardening.bounded_worker import Ending
from benchmarks.hardening.findings import Findings
from benchmarks.hardening.specifications import drawn, examine


@pytest.mark.slow
def test_no_specification_ends_in_a_traceback_a_hang_or_a_fault_without_a_place() -> None:
    findings = examine(drawn(100, seed=2_026), Findings("specifications"), hang_s=60.0)
    assert findings.count >= 100
    assert not findings.faults
    assert findings.total(Ending.OK) > 0
    assert findings.total(Ending.MESSAGE) > findings.count / 2
