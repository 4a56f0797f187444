"""Options that are typed wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
from verbs import run_circinus


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("apply", "--mode", "fake"), "--mode: found fake, expected real or replay"),
        (("apply", "--mode", "rael"), "found rael, expected real or replay; did you mean real?"),
        (("serve", "--metrics", "99999"), "--metrics: found 99999, expected at most 65535"),
        (("load", "--items", "few"), "--items: found few, expected a whole number"),
        (("simulate", "--load", "two"), "found 'two', expected a number above 0"),
    ],
)
def test_it_is_said_as_all_faults_are(typed: tuple[str, ...], message: str, tmp_path: Path) -> None:
    run = run_circinus(*typed, cwd=tmp_path)
    assert run.returncode == 2
    words = " ".join(run.stderr.replace("│", " ").replace("'", "").split())
    assert message.replace("'", "") in words
    assert "Value error" not in words
    assert "Input should" not in words
