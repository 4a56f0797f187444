"""Gate on the recorded meeting pipeline: how much is measured and how much is served, in counts.

`python -m benchmarks evaluation` compares with other planners; this fixed part of it fails when a change measures or
serves noticeably worse. The bounds leave room for a tenth more than was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.workloads.recorded import recorded

from budget import LEVEL
from circinus.matching import Matching, plan_all_queries
from circinus.planning.sampler import make_sampler
from circinus.profiling import PipelineProfile, SimulatedClock, TraceBackend, profile_pipeline
from circinus.specification import Specification
from circinus.specification.loader import load_specification

EXAMPLE = Path(__file__).parents[2] / "examples" / "meeting"
QUERIES = 6 if LEVEL == "thorough" else 2
MAX_TOUCHED, MAX_ITEMS, MAX_PROFILED_SHARE = 15, 690, 0.095


@dataclass(frozen=True)
class _Run:
    profile: PipelineProfile
    profiled_share: float
    """Seconds of measurements over those of everything."""
    matching: Matching


@cache
def _run() -> _Run:
    trace, _ = recorded("meeting")
    example = load_specification([EXAMPLE])
    queries = tuple(query for query in example.queries if query.pipeline == "meeting")[:QUERIES]
    specification, clock = Specification({"meeting": trace.pipeline}, example.infrastructure, queries), SimulatedClock()
    with TemporaryDirectory() as folder:
        profile = profile_pipeline(
            specification,
            "meeting",
            Path(folder) / "store.sqlite",
            source=TraceBackend(trace, clock),
            explorer=make_sampler(specification, "meeting"),
        )
    matching, _ = plan_all_queries(specification, {"meeting": profile}, explain_rejections=())
    return _Run(profile, clock() / float(trace.service_s.sum()), matching)


def test_few_configurations_and_items_are_measured() -> None:
    profile = _run().profile
    assert len(profile.configurations) <= MAX_TOUCHED
    assert sum(len(measured.items) for measured in profile.configurations) <= MAX_ITEMS
    assert _run().profiled_share <= MAX_PROFILED_SHARE


def test_as_much_is_served_as_the_bound_allows() -> None:
    matching = _run().matching
    assert matching.satisfied_weight >= matching.weight_bound - 1e-9
    assert matching.satisfied_weight == matching.total_weight
