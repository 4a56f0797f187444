"""Resolution of references to user code, and its errors."""

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
from golden import check_message
from raised import raises_code

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
    loaded = set(sys.modules)
    (tmp_path / "registry_sample.py").write_text(SOURCE, encoding="utf-8")
    yield tmp_path
    for name in set(sys.modules) - loaded:
        del sys.modules[name]


def test_module_and_attribute(folder: Path) -> None:
    factory = resolve_operator("registry_sample:doubled", [folder])
    assert isinstance(factory, OperatorFactory)
    assert factory.create({}, 1).process([1, 2]) == [2, 4]
    assert resolve("registry_sample:Metrics.equal", [folder])(1, 1) == 1.0


def test_an_edit_changes_the_version(folder: Path) -> None:
    version = resolve_operator("registry_sample:doubled", [folder]).version
    del sys.modules["registry_sample"]
    (folder / "registry_sample.py").write_text(SOURCE.replace("2 * value", "value + value"), encoding="utf-8")
    edited_version = resolve_operator("registry_sample:doubled", [folder]).version
    assert version != edited_version
    assert source_version(resolve("registry_sample:Metrics.equal", [folder])) == edited_version


def test_a_near_name_is_offered(folder: Path) -> None:
    with raises_code(OperatorError, "operator.no_attribute") as caught:
        resolve("registry_sample:doublet", [folder])
    check_message("operators/no_attribute", str(caught.value))
    with raises_code(OperatorError, "operator.no_module") as caught:
        resolve("registry_simple:doubled", [folder])
    assert "registry_simple" in caught.value.message
    assert str(folder) in caught.value.message
    assert caught.value.hint == "Did you mean registry_sample?"


def test_a_missing_dependency_is_named_as_such(folder: Path) -> None:
    (folder / "registry_needy.py").write_text("import surely_not_installed_anywhere", encoding="utf-8")
    with raises_code(OperatorError, "operator.missing_dependency") as caught:
        resolve("registry_needy:anything", [folder])
    check_message("operators/missing_dependency", str(caught.value))


@pytest.mark.parametrize(
    ("source", "cause"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("raise SystemExit(3)", "SystemExit: 3"), ("(", "SyntaxError")],
)
def test_what_the_module_raises_is_told(folder: Path, source: str, cause: str) -> None:
    (folder / "registry_broken.py").write_text(source, encoding="utf-8")
    with raises_code(OperatorError, "operator.import_failed") as caught:
        resolve("registry_broken:anything", [folder])
    assert cause in caught.value.message
    assert caught.value.location == "registry_broken:anything"


def test_half_a_reference(folder: Path) -> None:
    for reference in ("registry_sample:", ":doubled"):
        with raises_code(OperatorError, "operator.malformed_reference") as caught:
            resolve(reference, [folder])
        assert caught.value.location == reference


def test_what_is_not_decorated_is_no_operator(folder: Path) -> None:
    with raises_code(OperatorError, "operator.not_decorated") as caught:
        resolve_operator("registry_sample:plain", [folder])
    check_message("operators/not_decorated", str(caught.value))


def test_a_namesake_in_another_folder_is_refused(folder: Path) -> None:
    resolve("registry_sample:plain", [folder])
    other = folder / "other"
    other.mkdir()
    (other / "registry_sample.py").write_text("plain = 4", encoding="utf-8")
    with raises_code(OperatorError, "operator.duplicate_module"):
        resolve("registry_sample:plain", [other])
    assert resolve("registry_sample:plain", [folder, other]) == 3


def test_a_module_written_after_its_folder_was_searched(folder: Path) -> None:
    with raises_code(OperatorError, "operator.no_module"):
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
    with raises_code(OperatorError, "operator.unknown_entry_point") as caught:
        resolve("doubel")
    assert caught.value.hint == "Did you mean double?"
    with raises_code(OperatorError, "operator.import_failed") as caught:
        resolve("gone")
    assert "registry_sample:nowhere" in caught.value.message
