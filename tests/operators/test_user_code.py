"""Metrics and data sets in their process: which item fails, when the process is replaced, what reaches it."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from circinus.errors import OperatorError
from circinus.operators.code_host import CodeHost, ScoreFailure
from circinus.operators.pickling import pickle_value
from circinus.operators.user_code import UserCode, shared_processes
from raised import raises_code

pytestmark = pytest.mark.slow  # every test starts a process

SOURCE = """
import os
from circinus.operators import Item

def score(output, truth):
    if truth == "exit":
        os._exit(3)
    if truth == "none":
        return None
    return output / truth

def process(output, truth):
    return os.getpid()

def items():
    return [Item("only", (os.getcwd(), os.environ.get("HERE")), None)]
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserCode]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within a second would share their bytecode
    (tmp_path / "called_code.py").write_text(SOURCE, encoding="utf-8")
    code = UserCode([tmp_path])
    yield code
    code.close()


def _scores(code: UserCode, *truths: object, metric: str = "score") -> list[float | ScoreFailure]:
    rows = [(pickle_value(number), pickle_value(truth)) for number, truth in enumerate(truths)]
    return list(code.scores(f"called_code:{metric}", ["sink"], rows))


def test_each_failure_belongs_to_its_item(code: UserCode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circinus.operators.user_code._BATCH_S", math.inf)  # batches grow on slow machines, too
    assert _scores(code, *[2] * 100) == [number / 2 for number in range(100)]  # from now on, many are sent together
    truths = [2, 2, "exit", 2, 0, 2, "none", *[2] * 50]
    scores = _scores(code, *truths)
    failures = {row: score for row, score in enumerate(scores) if isinstance(score, ScoreFailure)}
    assert {row: truths[row] for row in failures} == {2: "exit", 4: 0, 6: "none"}
    assert "exited with code 3" in failures[2].reason
    assert "ZeroDivisionError" in failures[4].reason
    assert failures[6] == ScoreFailure("None", is_invalid=True)
    assert all(scores[row] == row / 2 for row in range(len(truths)) if row not in failures)


def test_a_metric_that_ends_its_process_is_not_tried_on_every_item(code: UserCode, tmp_path: Path) -> None:
    source = SOURCE.replace("os._exit(3)", f"open({str(tmp_path / 'calls')!r}, 'a').write('x'); os._exit(3)")
    (tmp_path / "called_code.py").write_text(source, encoding="utf-8")
    scores = _scores(code, *["exit"] * 1000)
    assert all(isinstance(score, ScoreFailure) and "exited with code 3" in score.reason for score in scores)
    assert len((tmp_path / "calls").read_text(encoding="utf-8")) < 10


def test_one_process_serves_until_its_modules_change(code: UserCode, tmp_path: Path) -> None:
    version = code.source_version("called_code:items")
    first = _scores(code, 1, metric="process")
    assert code.source_version("called_code:items") == version
    assert _scores(code, 1, metric="process") == first
    (tmp_path / "called_code.py").write_text(f"{SOURCE}\n# edited", encoding="utf-8")
    assert code.source_version("called_code:items") != version
    assert _scores(code, 1, metric="process") != first


@pytest.mark.parametrize(("place", "is_own"), [("site-packages/app", True), ("app/site-packages/more", False)])
def test_an_edited_import_is_noticed_unless_it_is_installed_below_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, is_own: bool
) -> None:
    host = CodeHost([tmp_path / place.removesuffix("/site-packages/more")])
    (tmp_path / place).mkdir(parents=True)
    imported = tmp_path / place / "imported_code.py"
    imported.write_text("", encoding="utf-8")
    module = ModuleType("imported_code")
    module.__file__ = str(imported)
    monkeypatch.setitem(sys.modules, "imported_code", module)
    host._note_imports()
    imported.write_text("# edited", encoding="utf-8")
    assert host._is_edited() is is_own


def test_a_data_set_is_built_in_the_folder_and_environment_of_its_client(
    code: UserCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.setenv("HERE", name)
        (item,) = code.items("called_code:items", {})
        assert item.value == pickle_value((os.getcwd(), name))


def test_a_lost_fork_server_is_no_failure_of_the_metric(code: UserCode) -> None:
    assert _scores(code, 1, 1) == [0.0, 1.0]
    server = shared_processes()._server
    assert server is not None
    server.process.kill()
    server.process.wait()
    assert _scores(code, 1, 1) == [0.0, 1.0]


def test_what_does_not_exist_is_no_failure_of_the_process(code: UserCode) -> None:
    with raises_code(OperatorError, "operator.no_attribute"):
        code.describe("called_code:scores")
    with raises_code(OperatorError, "operator.not_decorated"):
        code.operator("called_code:score")
