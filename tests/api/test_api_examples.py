"""The example in the docstring of every public name of `circinus.api` runs, on the starter application."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

import circinus as c
from cli_runner import as_a_new_process
from prepared import prepared_starter

CLASSES = sorted(
    (value for name in c.__all__ if isinstance(value := getattr(c, name), type)), key=lambda value: value.__name__
)
API = [value for value in CLASSES if value.__module__.startswith("circinus.api.")]
METHODS_WITH_EXAMPLES = (c.Workspace, c.DeployedPlan, c.PlanController)
"""Classes each of whose methods has an example of its own, too."""
STARTER = Path(c.__file__).parent / "cli" / "starter"
STARTS_AN_ENGINE = (".deploy(", ".control(")


def _public_methods(owner: type) -> Iterator[tuple[str, Any]]:
    for name, member in inspect.getmembers(owner):
        if not name.startswith("_") and inspect.isroutine(member):
            yield f"{owner.__name__}.{name}", member


def _documented() -> dict[str, Any]:
    documented: dict[str, Any] = {value.__name__: value for value in (*API, c.progress_bar)}
    for owner in METHODS_WITH_EXAMPLES:
        documented |= dict(_public_methods(owner))
    return documented


DOCUMENTED = _documented()
WITHOUT_EXAMPLE = {"PlanController.run", "PlanController.stop"}
"""Methods whose example is that of their class."""
QUICK = {
    name for name, value in DOCUMENTED.items() if not any(call in (value.__doc__ or "") for call in STARTS_AN_ENGINE)
}


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A copy of the starter application, profiled and planned."""
    return prepared_starter(tmp_path_factory).copy(tmp_path / "application")


def test_every_public_name_has_an_example() -> None:
    assert len(API) == 15
    missing = [name for name, value in DOCUMENTED.items() if ">>>" not in (value.__doc__ or "")]
    assert set(missing) == WITHOUT_EXAMPLE


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in DOCUMENTED]
)
def test_the_example_runs(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documented = DOCUMENTED[name]
    with as_a_new_process((), folder):
        workspace = c.Workspace(".")
        variables = {"c": c, "workspace": workspace, "plan": workspace.load_plan("plan.json")}
        if name == "ValidationReport":  # prints the configurations of the whole starter
            copyfile(STARTER / "pipeline.yaml", "pipeline.yaml")
            variables["workspace"] = c.Workspace(".")
        parsed = doctest.DocTestParser().get_doctest(inspect.getdoc(documented) or "", variables, name, None, None)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        try:
            result = runner.run(parsed)
        finally:
            workspace.engine.close()
    assert result.failed == 0, capsys.readouterr().out
