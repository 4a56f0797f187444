"""References to user code: what is found, and what is said when nothing is."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from circinus.errors import OperatorError
from circinus.operators import OperatorFactory, registry, resolve, resolve_operator
from circinus.operators.source_version import source_version

SOURCE = """
from circinus.operators import operator

@operator
def doubled(value: int) -> int:
    return 2 * value

class Metrics:
    @staticmethod
    def equal(output, truth):
        return float(output == truth)

plain = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "registry_sample.py").write_text(SOURCE, encoding="utf-8")
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_module_and_attribute(folder: Path) -> None:
    found = resolve_operator("registry_sample:doubled", [folder])
    assert isinstance(found, OperatorFactory)
    assert found.create({}, 1).process([1, 2]) == [2, 4]
    assert resolve("registry_sample:Metrics.equal", [folder])(1, 1) == 1.0


def test_an_edit_changes_the_version(folder: Path) -> None:
    before = resolve_operator("registry_sample:doubled", [folder]).version
    del sys.modules["registry_sample"]
    (folder / "registry_sample.py").write_text(SOURCE.replace("2 * value", "value + value"), encoding="utf-8")
    after = resolve_operator("registry_sample:doubled", [folder]).version
    assert before != after
    assert source_version(resolve("registry_sample:Metrics.equal", [folder])) == after


def test_a_near_name_is_offered(folder: Path) -> None:
    with pytest.raises(OperatorError, match=r"no attribute doublet; did you mean doubled\?"):
        resolve("registry_sample:doublet", [folder])
    with pytest.raises(OperatorError, match=r"no module registry_simple in .*; did you mean registry_sample\?"):
        resolve("registry_simple:doubled", [folder])


def test_a_missing_dependency_is_named_as_such(folder: Path) -> None:
    (folder / "registry_needy.py").write_text("import surely_not_installed_anywhere", encoding="utf-8")
    with pytest.raises(OperatorError, match="needs the module surely_not_installed_anywhere, which is not installed"):
        resolve("registry_needy:anything", [folder])


@pytest.mark.parametrize(
    ("source", "said"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("raise SystemExit(3)", "SystemExit: 3"), ("(", "SyntaxError")],
)
def test_what_the_module_raises_is_told(folder: Path, source: str, said: str) -> None:
    (folder / "registry_broken.py").write_text(source, encoding="utf-8")
    with pytest.raises(OperatorError, match=f"importing registry_broken failed with {said}"):
        resolve("registry_broken:anything", [folder])


def test_half_a_reference(folder: Path) -> None:
    for reference in ("registry_sample:", ":doubled"):
        with pytest.raises(OperatorError, match="both sides of the colon"):
            resolve(reference, [folder])


def test_what_is_not_decorated_is_no_operator(folder: Path) -> None:
    with pytest.raises(OperatorError, match="found int, expected what `@operator` makes"):
        resolve_operator("registry_sample:plain", [folder])


def test_a_namesake_in_another_folder_is_refused(folder: Path) -> None:
    resolve("registry_sample:plain", [folder])
    other = folder / "other"
    other.mkdir()
    (other / "registry_sample.py").write_text("plain = 4", encoding="utf-8")
    with pytest.raises(OperatorError, match="already imported from"):
        resolve("registry_sample:plain", [other])
    assert resolve("registry_sample:plain", [folder, other]) == 3


def test_a_module_written_after_its_folder_was_searched(folder: Path) -> None:
    with pytest.raises(OperatorError):
        resolve("registry_late:value", [folder])
    (folder / "registry_late.py").write_text("value = 5", encoding="utf-8")
    assert resolve("registry_late:value", [folder]) == 5


def test_entry_points(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    points = EntryPoints(
        EntryPoint(name, value, registry.ENTRY_POINT_GROUP)
        for name, value in (("double", "registry_sample:doubled"), ("gone", "registry_sample:nowhere"))
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points.select(group=group))
    assert resolve_operator("double").name == "doubled"
    with pytest.raises(OperatorError, match=r"nor an entry point .*; did you mean double\?"):
        resolve("doubel")
    with pytest.raises(OperatorError, match="loading the entry point registry_sample:nowhere failed"):
        resolve("gone")
