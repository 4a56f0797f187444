"""What `circinus validate` finds in code that is imported without a fault."""

from __future__ import annotations

from pathlib import Path

import pytest
from verbs import run_circinus


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("return []", "found no item, expected at least one"),
        ("return [3]", "found int at index 0"),
        ("raise FileNotFoundError('words.txt')", "failed with FileNotFoundError: words.txt"),
    ],
)
def test_a_data_set_on_which_nothing_can_be_measured_is_a_fault(code: str, said: str, tmp_path: Path) -> None:
    assert run_circinus("init", cwd=tmp_path).returncode == 0
    (tmp_path / "nothing.py").write_text(f"def items():\n    {code}\n", encoding="utf-8")
    pipeline = tmp_path / "pipeline.yaml"
    lines = pipeline.read_text(encoding="utf-8").splitlines()
    at = next(number for number, line in enumerate(lines) if "dataset:" in line)
    lines[at:] = ["  dataset: {uses: nothing:items}"]
    pipeline.write_text("\n".join(lines), encoding="utf-8")
    run = run_circinus("validate", cwd=tmp_path)
    assert run.returncode == 2
    assert f"pipeline.yaml:{at + 1}: spec.dataset.uses: found 'nothing:items'" in run.stderr
    assert said in run.stderr
    assert run_circinus("validate", "--no-operators", cwd=tmp_path).returncode == 0
