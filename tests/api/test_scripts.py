"""Python scripts that profile their own operators: unguarded ones, and ones whose operators all fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from budget import HANG_LIMIT_S

pytestmark = pytest.mark.slow  # every test starts processes

SCRIPT = """
import circinus as c

@c.operator
def scale(x, *, k):
    return x * k

def data():
    return [c.Item(str(i), i, i) for i in range(30)]

def close(output, truth):
    return float(output == truth)

pipeline = c.Pipeline(
    name="p",
    operators=[c.OperatorSpec(name="a", uses=scale, knobs={"k": [1, 2]})],
    metric=c.MetricSpec(name="m", uses=close),
    dataset=c.DatasetSpec(uses=data),
)
pool = c.Pool(
    name="n", site="s", tier="edge", cpus=2, memory="1GiB", hardware=c.HardwareClass(name="local")
)
query = c.Query(
    name="q", pipeline="p", source="s", rate="1/s", slos=["latency p95 <= 10s", "accuracy >= 0.9"]
)
infrastructure = c.Infrastructure(name="i", sites=["s"], pools=[pool])
workspace = c.Workspace(c.Specification.of([pipeline], infrastructure, [query]))

def main(**options):
    try:
        print(len(workspace.profile(budget="1min", **options).rows()))
    except c.CircinusError as error:
        print(error.code, error.location, error)
        raise SystemExit(3)
"""
GUARDED = SCRIPT + "\nif __name__ == '__main__':\n    main()\n"
FAILING = GUARDED.replace("return x * k", "raise ValueError('boom')")


def _run(folder: Path, text: str, command: tuple[str, ...] = ("app.py",)) -> str:
    (folder / "app.py").write_text(text, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        input=text,
        text=True,
        capture_output=True,
        timeout=HANG_LIMIT_S,
        check=False,
    )
    return result.stdout or result.stderr


def test_a_guarded_script_profiles(tmp_path: Path) -> None:
    assert int(_run(tmp_path, GUARDED)) >= 1


def test_a_program_of_standard_input_profiles_without_a_guard(tmp_path: Path) -> None:
    assert int(_run(tmp_path, SCRIPT + "\nmain()\n", ("-",))) >= 1


def test_an_unguarded_script_is_refused_at_once(tmp_path: Path) -> None:
    unguarded = SCRIPT + "\nworkspace.profile(budget='5s')\n"
    assert "Put the calls under `if __name__" in _run(tmp_path, unguarded)


def test_an_unguarded_module_that_is_imported_otherwise_fails_in_its_workers(tmp_path: Path) -> None:
    unguarded = SCRIPT + "\nworkspace.profile(budget='5s')\n"
    output = _run(tmp_path, unguarded, ("-c", "import app"))
    assert "Put the calls under `if __name__" in output
    assert "every measured configuration failed" not in output


def test_configurations_that_all_fail_are_an_error_or_a_report_for_a_callback(tmp_path: Path) -> None:
    reported = "main(on_profile=lambda report: print(len(report['p'].failed)))"
    failures, rows, code, reason = _run(tmp_path, f"{FAILING[:-7]}{reported}\n    main()\n").split(maxsplit=3)
    assert (failures, rows) == ("2", "0")
    assert code == "profile.all_configurations_failed"
    assert "ValueError: boom" in reason
