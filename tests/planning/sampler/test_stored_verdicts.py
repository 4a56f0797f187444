"""Verdicts of the last run are read; for other measurements or SLOs they follow without a decision of the sampler."""

from __future__ import annotations

from pathlib import Path

import pytest

from circinus.planning.sampler import make_sampler
from circinus.planning.sampler.sampler import PlanCostSampler
from circinus.profiling import PipelineProfile, TraceBackend, load_profile
from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification import Specification
from planning.sampler.two_operators import PIPELINE, measured, recorded, two_queries

TRACE = recorded(0)


def test_reading_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    computed: list[PipelineProfile] = []
    suggest = PlanCostSampler.suggest

    def counted(self: PlanCostSampler, profile: PipelineProfile, *others: object) -> object:
        computed.append(profile)
        return suggest(self, profile, *others)  # type: ignore[arg-type]

    def load(specification: Specification) -> PipelineProfile:
        computed.clear()
        explorer = make_sampler(specification, PIPELINE.name)
        source = TraceBackend(TRACE)
        return load_profile(specification, PIPELINE.name, store, source=source, with_verdicts=True, explorer=explorer)

    profile, _ = measured(TRACE, two_queries(), store, budget_s=40.0)
    monkeypatch.setattr(PlanCostSampler, "suggest", counted)
    with ProfileStore(store) as opened, opened.transaction():  # another start, as for the recordings of a replay
        opened.rows("UPDATE replica SET loads = loads + 1, peak_memory_bytes = peak_memory_bytes + 4096")
    stored = load(two_queries())
    assert computed == []
    assert stored.verdicts == profile.verdicts
    assert stored.certificate == profile.certificate
    assert profile.certificate is not None
    edited = load(two_queries((0.7, 0.95)))
    assert computed == []
    assert edited.verdicts != profile.verdicts
    assert edited.certificate is not None
    assert not edited.certificate.is_computed
    measured(TRACE, two_queries((0.7, 0.95)), store, budget_s=1.0)
    again = load(two_queries((0.7, 0.95)))
    assert computed == []
    assert again.certificate is not None
    assert again.certificate.is_computed
