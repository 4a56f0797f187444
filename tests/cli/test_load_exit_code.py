"""Exit code of a load test: 1 only if it is asked for and an SLO is missed beyond chance."""

from __future__ import annotations

from pathlib import Path

import pytest

import circinus as c
from circinus.serving.loadtest.load_report import GeneratorLag, LoadReport, QueryMeasurement
from circinus.serving.loadtest.slo_bounds import SloVerdict
from circinus.specification import Slos
from cli_runner import run_circinus


@pytest.mark.parametrize(
    ("verdict", "options", "code"),
    [("no", ("--fail-on-miss",), 1), ("no", (), 0), ("unsure", ("--fail-on-miss",), 0), (None, ("--fail-on-miss",), 0)],
)
def test_only_a_missed_slo_fails(
    application: Path, monkeypatch: pytest.MonkeyPatch, verdict: str | None, options: tuple[str, ...], code: int
) -> None:
    query = QueryMeasurement(
        "archive",
        "mend",
        1.0,
        Slos(),
        served=verdict is not None,
        verdict=None if verdict is None else SloVerdict(verdict),
    )
    lag = GeneratorLag(0.0, 0.0, 0.0, late=False)
    measured = LoadReport("replay", "poisson", 0, 1.0, 0.0, 1.0, (query,), lag, 0.0, 0.0, 1.0, 0, 1)
    monkeypatch.setattr(c.DeployedPlan, "load_test", lambda *_, **__: c.LoadReport(measured))
    for more in ((), ("--json",)):
        assert run_circinus("load", *options, *more, cwd=application).returncode == code
